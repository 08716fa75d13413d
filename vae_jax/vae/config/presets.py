"""Published models, by name."""

from dataclasses import replace

from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig

_BERNOULLI = Experiment()

_GAUSSIAN = Experiment(
    data=DataConfig(binarization="none"),
    model=ModelConfig(
        latent_size=5,
        hidden_sizes=(20, 20),
        encoder="separate",
        posterior_scale="sigmoid",
        likelihood="gaussian",
        likelihood_scale=0.1,
    ),
    objective=ObjectiveConfig(kl="sampled"),
    training=TrainingConfig(num_epochs=5, batch_size=50),
)

_IWAE = Experiment(
    # The 3,280 epochs of the protocol are 9.8 million steps over all 60,000 images.
    data=DataConfig(num_validation=0),
    model=ModelConfig(
        hidden_sizes=(200, 200), activation="tanh", initializer="glorot_uniform", output_bias="data_mean"
    ),
    objective=ObjectiveConfig(objective="iwae", num_samples=50),
    training=TrainingConfig(num_epochs=3280, batch_size=20, learning_rate_schedule="stages", adam_epsilon=1e-4),
)

PRESETS: dict[str, Experiment] = {
    "bernoulli-256-50": _BERNOULLI,
    "bernoulli-256-50-grey": replace(
        _BERNOULLI,
        data=DataConfig(binarization="none"),
        model=replace(_BERNOULLI.model, likelihood="grey_bernoulli"),
    ),
    "gaussian-20-5": _GAUSSIAN,
    "gaussian-20-5-gjs": replace(_GAUSSIAN, objective=ObjectiveConfig(objective="geometric_js")),
    "binarized-400-200": Experiment(
        data=DataConfig(binarization="threshold"),
        model=ModelConfig(latent_size=200, hidden_sizes=(400, 400), activation="leaky_relu"),
        training=TrainingConfig(num_epochs=15, batch_size=100),
    ),
    "manifold-2": Experiment(
        model=ModelConfig(latent_size=2, hidden_sizes=(512, 256)),
        training=TrainingConfig(num_epochs=50, batch_size=128),
    ),
    "convolutional-32": Experiment(
        model=ModelConfig(network="convolutional", latent_size=32, hidden_sizes=(32, 64)),
        training=TrainingConfig(num_epochs=20, batch_size=128),
    ),
    "iwae-1l": _IWAE,
    "iwae-2l": replace(
        _IWAE,
        model=replace(
            _IWAE.model, network="hierarchical", latent_size=100, top_latent_size=50, top_hidden_sizes=(100, 100)
        ),
    ),
}
"""Each is a frozen dataclass; `dataclasses.replace` makes variants."""

DEFAULT_PRESET = "bernoulli-256-50"
