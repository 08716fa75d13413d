"""What a training run is made of. Plain data: nothing here imports JAX."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Binarization: TypeAlias = Literal["none", "threshold", "stochastic", "fixed"]
Likelihood: TypeAlias = Literal["bernoulli", "grey_bernoulli", "continuous_bernoulli", "gaussian", "categorical"]
Precision: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what the model sees of them."""

    data: str = "mnist"
    """mnist, fashion_mnist, kmnist, digits, or the path of a folder of IDX files, an .npz or an .npy."""
    data_dir: str | None = None
    """Where datasets are kept; by default that of TFDS."""
    binarization: Binarization = "stochastic"
    """none, threshold (at one half), stochastic (afresh every batch) or fixed (drawn once)."""
    binarization_seed: int = 0
    """Of the fixed binarization."""
    num_validation: int | None = None
    """Training images held out for validation; by default a twelfth. 0 holds out none."""


@dataclass(frozen=True)
class ModelConfig:
    """The encoder, the decoder and the likelihood."""

    network: Literal["mlp", "convolutional", "hierarchical"] = "mlp"
    """mlp, convolutional, or hierarchical: an MLP with a second layer of latents above the first."""
    latent_size: int = 50
    """Latents; of the lower layer in a hierarchical model."""
    hidden_sizes: tuple[int, ...] = (256,)
    """Widths of the encoder from the image up; the decoder mirrors them. Channels in a convolutional network."""
    top_latent_size: int = 50
    """Latents of the upper layer of a hierarchical model."""
    top_hidden_sizes: tuple[int, ...] = (100, 100)
    """Widths between the layers of a hierarchical model."""
    activation: Literal["relu", "leaky_relu", "tanh", "elu", "gelu", "silu", "softplus"] = "relu"
    """Between layers; leaky_relu has slope 0.2."""
    encoder: Literal["shared", "separate"] = "shared"
    """One trunk for the mean and the scale of q(z|x), or one each."""
    posterior_scale: Literal["log_variance", "sigmoid"] = "log_variance"
    """What the encoder's second head gives: log variances, or logits of scales below 1."""
    initializer: Literal["lecun_normal", "glorot_uniform", "uniform_fan_in"] = "lecun_normal"
    """Of the weights. uniform_fan_in draws weights and biases within 1 / sqrt(fan-in); the others start biases at 0."""
    output_bias: Literal["initializer", "data_mean"] = "initializer"
    """How the decoder's last bias starts; data_mean is the logit of the mean training image."""
    likelihood: Likelihood = "bernoulli"
    """Of the pixels. grey_bernoulli is the Bernoulli's cross-entropy on grey pixels, which is no density."""
    likelihood_scale: float | None = None
    """Scale of a Gaussian likelihood; by default one is learned, the same for all pixels."""

    @property
    def layers(self) -> dict[str, int]:
        """How many latents each layer of a hierarchical model has, in their order; of any other model, nothing."""
        if self.network != "hierarchical":
            return {}
        return {"lower layer": self.latent_size, "upper layer": self.top_latent_size}


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is maximised, and how its gradient is estimated."""

    objective: Literal["elbo", "geometric_js", "dual_geometric_js", "iwae"] = "elbo"
    """elbo, iwae, or a geometric Jensen-Shannon divergence (or its dual) in the place of the KL: not a bound."""
    kl: Literal["closed_form", "sampled"] = "closed_form"
    """How the ELBO's divergence to the prior is had."""
    estimator: str = "pathwise"
    """pathwise, sticking_the_landing, score_function or score_function+leave_one_out."""
    iwae_gradient: Literal["plain", "doubly_reparameterized", "vimco"] = "plain"
    """How the importance-weighted bound is differentiated."""
    num_samples: int = 1
    """Samples of q(z|x) an example: k of the importance-weighted bound."""
    beta: float = 1.0
    """Weight of the divergence, at the end of its schedule."""
    beta_schedule: Literal["constant", "linear", "cyclical"] = "constant"
    """linear and cyclical grow from 0 to beta over beta_ramp of the training or of each cycle."""
    beta_ramp: float = 0.5
    """Share of the training, or of a cycle, in which beta grows."""
    beta_cycles: int = 4
    """Cycles of the cyclical schedule."""
    free_bits: float = 0.0
    """Nats that each latent's batch-mean KL may have for free."""
    alpha: float = 0.5
    """Skew of the geometric Jensen-Shannon divergence, where it starts if it moves."""
    alpha_schedule: Literal["fixed", "linear", "trainable"] = "fixed"
    """fixed, linear from alpha to alpha_end, or trained with the model."""
    alpha_end: float = 1.0
    """Where a linear alpha ends."""
    alpha_convention: Literal["nielsen", "deasy"] = "nielsen"
    """nielsen, or deasy, which swaps alpha and 1 - alpha in the middle distribution only."""


@dataclass(frozen=True)
class TrainingConfig:
    """How it is maximised."""

    num_epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step; the last batch of an epoch may be smaller."""
    learning_rate: float = 1e-3
    """Of the optimizer, at the start of its schedule."""
    learning_rate_schedule: Literal["constant", "cosine", "exponential", "stages"] = "constant"
    """cosine to 0, exponential to a hundredth, or stages: stage i of 3^i epochs at 10^(-i/7) of it."""
    optimizer: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam"
    """An optimizer of optax."""
    adam_b1: float = 0.9
    """Decay of the first moment."""
    adam_b2: float = 0.999
    """Decay of the second moment."""
    adam_epsilon: float = 1e-8
    """What is added to the root of the second moment."""
    weight_decay: float = 0.0
    """Of adamw."""
    gradient_clip: float | None = None
    """Largest global norm of a gradient; longer ones are scaled down."""
    patience: int | None = None
    """Epochs without a better validation ELBO after which the training stops early."""
    precision: Precision = "float32"
    """Of matrix products. Parameters, sums and everything else stay float32."""


@dataclass(frozen=True)
class Experiment:
    """A whole run: with the same one, every number repeats."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Of the random numbers."""
    num_seeds: int = 1
    """Models trained at once, from consecutive splits of the seed's key."""
