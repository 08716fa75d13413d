"""The parts of a training run: data, model, objective and training. Plain data: nothing here imports JAX."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from vae_jax.settings import (
    AT_LEAST_0,
    AT_LEAST_1,
    DECAY,
    FINITE_AND_NOT_NEGATIVE,
    FINITE_AND_POSITIVE,
    POSITIVE_SHARE,
    SEED,
    SHARE,
    AppliesWith,
    OtherThan,
    documented,
)

Binarization: TypeAlias = Literal["none", "threshold", "stochastic", "fixed"]
Likelihood: TypeAlias = Literal["bernoulli", "grey_bernoulli", "continuous_bernoulli", "gaussian", "categorical"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

CROSS_ENTROPY = "grey_bernoulli"
"""The choice that is no likelihood: a Bernoulli's cross-entropy on grey pixels. It bounds no log p(x)."""

GREY_LIKELIHOODS = ("continuous_bernoulli", "gaussian", CROSS_ENTROPY)
"""Likelihoods of grey pixels alone. The categorical takes binary ones too."""

SIGMOID_LIKELIHOODS = ("bernoulli", CROSS_ENTROPY)
"""Likelihoods whose mean is the sigmoid of an output."""

JENSEN_SHANNON_OBJECTIVES = ("geometric_js", "dual_geometric_js")
"""Objectives with a geometric Jensen-Shannon divergence instead of the KL."""

_WITH_DIVERGENCE = ("elbo", *JENSEN_SHANNON_OBJECTIVES)
_WITH_MOMENTS = ("adam", "adamw", "adamax")


@dataclass(frozen=True)
@documented
class DataConfig:
    """The images, and the form in which the model sees them.

    Example:
        >>> from vae_jax.vae import DataConfig, Experiment, check_experiment
        >>> check_experiment(Experiment(data=DataConfig(data="digits", binarization="threshold", num_validation=100)))
    """

    data: str = "mnist"
    """mnist, fashion_mnist, kmnist, digits, or the path of a folder of IDX files, an .npz or an .npy."""
    data_dir: Annotated[str | None, AppliesWith(data=OtherThan("digits"))] = None
    """Folder of datasets. By default that of TFDS."""
    binarization: Binarization = "stochastic"
    """none, threshold (at one half), stochastic (afresh every batch) or fixed (drawn once)."""
    binarization_seed: Annotated[int, AT_LEAST_0, AppliesWith(binarization=("stochastic", "fixed"))] = 0
    """Seed of the fixed binarization, which also scores stochastic runs."""
    num_validation: Annotated[int | None, AT_LEAST_0] = None
    """Training images held out for validation. By default the source's own split, or a twelfth. 0 holds out none."""


@dataclass(frozen=True)
@documented
class ModelConfig:
    """The encoder, the decoder and the likelihood.

    Example:
        >>> from vae_jax.vae import ModelConfig
        >>> ModelConfig(network="hierarchical", latent_size=20, top_latent_size=10).layers
        {'lower layer': 20, 'upper layer': 10}
    """

    network: Literal["mlp", "convolutional", "hierarchical"] = "mlp"
    """mlp, convolutional, or hierarchical: an MLP with a second layer of latents above the first."""
    latent_size: Annotated[int, AT_LEAST_1] = 50
    """Latents; those of the lower layer in a hierarchical model."""
    hidden_sizes: Annotated[tuple[int, ...], AT_LEAST_1] = (256,)
    """Widths of the encoder from the image up; the decoder mirrors them. Channels in a convolutional network."""
    top_latent_size: Annotated[int, AT_LEAST_1, AppliesWith(network=("hierarchical",))] = 50
    """Latents of the upper layer of a hierarchical model."""
    top_hidden_sizes: Annotated[tuple[int, ...], AT_LEAST_1, AppliesWith(network=("hierarchical",))] = (100, 100)
    """Widths between the layers of a hierarchical model."""
    activation: Literal["relu", "leaky_relu", "tanh", "elu", "gelu", "silu", "softplus"] = "relu"
    """Activation between layers; leaky_relu has slope 0.2."""
    encoder: Literal["shared", "separate"] = "shared"
    """One trunk for the mean and the scale of q(z|x), or separate trunks."""
    posterior_scale: Literal["log_variance", "sigmoid"] = "log_variance"
    """Output of the encoder's second head: log variances, or logits of scales below 1."""
    initializer: Literal["lecun_normal", "glorot_uniform", "uniform_fan_in"] = "lecun_normal"
    """Initial weights. uniform_fan_in draws weights and biases within 1 / sqrt(fan-in); with others, biases are 0."""
    output_bias: Literal["initializer", "data_mean"] = "initializer"
    """Initial bias of the decoder's last layer; data_mean is the logit of the mean training image."""
    likelihood: Likelihood = "bernoulli"
    """Distribution of pixels. grey_bernoulli is the Bernoulli's cross-entropy on grey pixels, not a density."""
    likelihood_scale: Annotated[float | None, FINITE_AND_POSITIVE, AppliesWith(likelihood=("gaussian",))] = None
    """Scale of a Gaussian likelihood; by default one is learned, the same for all pixels."""

    @property
    def layers(self) -> dict[str, int]:
        """The number of latents in each layer of a hierarchical model, in their order; empty for any other model."""
        if self.network != "hierarchical":
            return {}
        return {"lower layer": self.latent_size, "upper layer": self.top_latent_size}


@dataclass(frozen=True)
@documented
class ObjectiveConfig:
    """The objective that is maximised, and how its gradient is estimated.

    Example:
        >>> from vae_jax.vae import Experiment, ObjectiveConfig, check_experiment
        >>> check_experiment(Experiment(objective=ObjectiveConfig(objective="iwae", num_samples=50)))
    """

    objective: Literal["elbo", "geometric_js", "dual_geometric_js", "iwae"] = "elbo"
    """elbo, iwae, or the ELBO with a geometric Jensen-Shannon divergence (or its dual) for the KL: not a bound."""
    kl: Annotated[Literal["closed_form", "sampled"], AppliesWith(objective=("elbo",))] = "closed_form"
    """Computation of the KL to the prior: in closed form, or from the samples."""
    estimator: str = "pathwise"
    """pathwise, sticking_the_landing, score_function or score_function+leave_one_out."""
    iwae_gradient: Annotated[Literal["plain", "doubly_reparameterized", "vimco"], AppliesWith(objective=("iwae",))] = (
        "plain"
    )
    """Gradient of the importance-weighted bound."""
    num_samples: Annotated[int, AT_LEAST_1] = 1
    """Samples of q(z|x) for each example: K of the importance-weighted bound."""
    beta: Annotated[float, FINITE_AND_NOT_NEGATIVE, AppliesWith(objective=_WITH_DIVERGENCE)] = 1.0
    """Weight of the divergence, at the end of its schedule."""
    beta_schedule: Annotated[Literal["constant", "linear", "cyclical"], AppliesWith(objective=_WITH_DIVERGENCE)] = (
        "constant"
    )
    """linear and cyclical grow from 0 to --beta over the share --beta-ramp of the training or of each cycle."""
    beta_ramp: Annotated[
        float, POSITIVE_SHARE, AppliesWith(objective=_WITH_DIVERGENCE, beta_schedule=("linear", "cyclical"))
    ] = 0.5
    """Share of the training, or of a cycle, in which beta grows."""
    beta_cycles: Annotated[int, AT_LEAST_1, AppliesWith(objective=_WITH_DIVERGENCE, beta_schedule=("cyclical",))] = 4
    """Cycles of the cyclical schedule."""
    free_bits: Annotated[float, FINITE_AND_NOT_NEGATIVE] = 0.0
    """Nats of each latent's KL without cost: a batch mean below this has no gradient."""
    alpha: Annotated[float, SHARE, AppliesWith(objective=JENSEN_SHANNON_OBJECTIVES)] = 0.5
    """Skew of the geometric Jensen-Shannon divergence, at the start of its schedule: 0 is q and 1 is the prior."""
    alpha_schedule: Annotated[
        Literal["fixed", "linear", "trainable"], AppliesWith(objective=JENSEN_SHANNON_OBJECTIVES)
    ] = "fixed"
    """fixed, linear from --alpha to --alpha-end, or trained with the model."""
    alpha_end: Annotated[float, SHARE, AppliesWith(objective=JENSEN_SHANNON_OBJECTIVES, alpha_schedule=("linear",))] = (
        1.0
    )
    """Skew at the end of a linear schedule."""
    alpha_convention: Annotated[Literal["nielsen", "deasy"], AppliesWith(objective=JENSEN_SHANNON_OBJECTIVES)] = (
        "nielsen"
    )
    """nielsen, or deasy, which swaps alpha and 1 - alpha in the middle distribution only."""


@dataclass(frozen=True)
@documented
class TrainingConfig:
    """The optimizer, its schedule and the length of the training.

    Example:
        >>> from vae_jax.vae import TrainingConfig
        >>> TrainingConfig(batch_size=64).steps_per_epoch(1000)  # the last step has 40 images
        16
    """

    num_epochs: Annotated[int, AT_LEAST_1] = 100
    """Passes over the training images."""
    batch_size: Annotated[int, AT_LEAST_1] = 64
    """Images in a step; the last batch of an epoch may be smaller."""
    learning_rate: Annotated[float, FINITE_AND_POSITIVE] = 1e-3
    """Learning rate of the optimizer, at the start of its schedule."""
    learning_rate_schedule: Literal["constant", "cosine", "exponential", "stages"] = "constant"
    """cosine to 0, exponential to a hundredth, or stages: stage i of 3^i epochs at 10^(-i/7) of the rate."""
    optimizer: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam"
    """Optax optimizer."""
    adam_b1: Annotated[float, DECAY, AppliesWith(optimizer=_WITH_MOMENTS)] = 0.9
    """Decay of the first moment."""
    adam_b2: Annotated[float, DECAY, AppliesWith(optimizer=_WITH_MOMENTS)] = 0.999
    """Decay of the second moment."""
    adam_epsilon: Annotated[float, FINITE_AND_POSITIVE, AppliesWith(optimizer=_WITH_MOMENTS)] = 1e-8
    """Number added to the root of the second moment."""
    weight_decay: Annotated[float, FINITE_AND_NOT_NEGATIVE, AppliesWith(optimizer=("adamw",))] = 0.0
    """Decoupled weight decay: each step shrinks every parameter by this times the learning rate."""
    gradient_clip: Annotated[float | None, FINITE_AND_POSITIVE] = None
    """Largest global norm of a gradient; longer ones are scaled down."""
    patience: Annotated[int | None, AT_LEAST_1, AppliesWith(num_validation=OtherThan(0))] = None
    """Stop after this many epochs without a better validation ELBO."""
    precision: Precision = "float32"
    """Precision of matrix products. Parameters, sums and everything else stay float32."""

    def steps_per_epoch(self, num_images: int) -> int:
        """Steps that take every one of the training images once; the last step may have fewer than a batch."""
        return -(-num_images // self.batch_size)


@dataclass(frozen=True)
@documented
class Experiment:
    """All settings of a training run. Runs with the same experiment give the same numbers.

    Example:
        >>> from vae_jax.vae import Experiment, ModelConfig, ObjectiveConfig
        >>> experiment = Experiment(model=ModelConfig(latent_size=2), objective=ObjectiveConfig(beta=4.0), seed=1)
        >>> experiment.model.hidden_sizes, experiment.training.num_epochs
        ((256,), 100)
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: Annotated[int, SEED] = 0
    """Seed of the random numbers."""
    num_seeds: Annotated[int, AT_LEAST_1] = 1
    """Models trained together, each from its own key."""
