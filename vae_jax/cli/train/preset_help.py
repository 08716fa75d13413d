"""One-line descriptions of the presets."""

from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.config.presets import PRESETS


def described_presets() -> str:
    """A line for each preset."""
    return "\n".join(f"{name}: {described(experiment)}" for name, experiment in PRESETS.items())


def described(experiment: Experiment) -> str:
    """The settings that set an experiment apart."""
    model, objective = experiment.model, experiment.objective
    upper = f" and {model.top_latent_size}" if model.network == "hierarchical" else ""
    samples = f" of {objective.num_samples} samples" if objective.num_samples > 1 else ""
    sizes = " ".join(map(str, model.hidden_sizes))
    latents = f"{model.latent_size}{upper} latents"
    return f"{model.network} {sizes}, {latents}, {model.likelihood}, {objective.objective}{samples}"
