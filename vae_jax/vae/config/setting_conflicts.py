"""Rules that relate several settings of an experiment. Plain data: nothing here imports JAX."""

from vae_jax.vae.config.experiment import (
    CROSS_ENTROPY,
    GREY_LIKELIHOODS,
    JENSEN_SHANNON_OBJECTIVES,
    SIGMOID_LIKELIHOODS,
    Experiment,
    ModelConfig,
    ObjectiveConfig,
)


def check_settings_agree(experiment: Experiment) -> None:
    """Refuses settings that exclude each other.

    Raises:
        ValueError: one line that names the settings and what to do.
    """
    check_binarization(experiment.model.likelihood, experiment.data.binarization)
    _check_output_bias(experiment.model)
    _check_channels(experiment.model)
    _check_free_bits(experiment.objective)
    _check_gradient(experiment.objective)
    _check_hierarchical(experiment.model, experiment.objective)


def check_binarization(likelihood: str, binarization: str) -> None:
    """Refuses grey pixels under a likelihood of binary ones, and the reverse.

    Raises:
        ValueError: naming both.
    """
    if likelihood == "bernoulli" and binarization == "none":
        raise ValueError(
            "binarization must be stochastic, fixed or threshold under likelihood bernoulli, whose pixels are 0 or 1, "
            "got none: choose one, or a likelihood of grey pixels (continuous_bernoulli, gaussian, categorical; "
            f"{CROSS_ENTROPY} is the cross-entropy, which is no likelihood)"
        )
    if likelihood in GREY_LIKELIHOODS and binarization != "none":
        raise ValueError(
            f"binarization must be none under likelihood {likelihood}, whose pixels are grey, got {binarization}: "
            "choose none, or likelihood bernoulli"
        )


def _check_output_bias(model: ModelConfig) -> None:
    if model.output_bias != "data_mean":
        return
    if model.likelihood not in SIGMOID_LIKELIHOODS:
        raise ValueError(
            f"output_bias must be initializer under likelihood {model.likelihood}, whose mean is not the sigmoid of an "
            "output, got data_mean: choose initializer"
        )
    if model.network == "convolutional":
        raise ValueError(
            "output_bias must be initializer with network convolutional, whose last bias is of channels and not of "
            "pixels, got data_mean: choose initializer"
        )


def _check_channels(model: ModelConfig) -> None:
    if model.network == "convolutional" and not model.hidden_sizes:
        raise ValueError(
            "hidden_sizes must hold the channels of at least one layer with network convolutional, got (): add some"
        )


def _check_free_bits(config: ObjectiveConfig) -> None:
    if config.free_bits > 0 and config.objective != "elbo":
        raise ValueError(
            f"free_bits must be 0 under objective {config.objective}, got {config.free_bits}: choose objective elbo"
        )
    if config.free_bits > 0 and config.kl == "sampled":
        raise ValueError(
            f"free_bits must be 0 with kl sampled, which is not computed by latent, got {config.free_bits}: choose kl "
            "closed_form"
        )


def _check_gradient(config: ObjectiveConfig) -> None:
    if config.objective == "iwae" and config.iwae_gradient == "vimco" and config.num_samples < 2:
        raise ValueError(f"num_samples must be at least 2 with iwae_gradient vimco, got {config.num_samples}: raise it")
    if config.objective == "iwae" and config.estimator != "pathwise":
        raise ValueError(
            f"estimator must be pathwise under objective iwae, got {config.estimator}: choose how it is differentiated "
            "by iwae_gradient"
        )
    if config.estimator == "sticking_the_landing" and (config.objective != "elbo" or config.kl != "sampled"):
        raise ValueError(
            "estimator must not be sticking_the_landing where the divergence has a closed form, for it is pathwise "
            "there: choose objective elbo and kl sampled"
        )


def _check_hierarchical(model: ModelConfig, objective: ObjectiveConfig) -> None:
    if model.network != "hierarchical":
        return
    if objective.objective in JENSEN_SHANNON_OBJECTIVES:
        raise ValueError(
            "objective must be elbo or iwae with network hierarchical, whose q and prior are not Gaussian together, "
            f"got {objective.objective}: choose one of them, or network mlp"
        )
    if objective.objective == "elbo" and objective.kl == "closed_form":
        raise ValueError(
            "kl must be sampled with network hierarchical, which has none in closed form, got closed_form: choose "
            "sampled"
        )
