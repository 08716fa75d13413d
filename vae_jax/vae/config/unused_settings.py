"""Which settings have an effect, given the others. Plain data: nothing here imports JAX."""

from dataclasses import fields
from typing import Any, NamedTuple

from vae_jax.vae.config.experiment import Experiment


class OneOf(NamedTuple):
    """The values of another setting with which a setting has an effect."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether the setting has an effect."""
        return value in self.values

    def advice(self, name: str) -> str:
        """What to choose."""
        *others, last = self.values
        return f"{name} {', '.join(others)}{' or ' if others else ''}{last}"


class AnyBut(NamedTuple):
    """The value of another setting with which a setting has none."""

    value: Any

    def holds(self, value: Any) -> bool:
        """Whether the setting has an effect."""
        return value != self.value

    def advice(self, name: str) -> str:
        """What to choose."""
        return f"another {name}"


_HAS_DIVERGENCE = OneOf(("elbo", "geometric_js", "dual_geometric_js"))
_HAS_ALPHA = OneOf(("geometric_js", "dual_geometric_js"))
_HAS_MOMENTS = OneOf(("adam", "adamw", "adamax"))

NEEDS: dict[str, dict[str, OneOf | AnyBut]] = {
    "data_dir": {"data": AnyBut("digits")},
    "binarization_seed": {"binarization": OneOf(("stochastic", "fixed"))},
    "top_latent_size": {"network": OneOf(("hierarchical",))},
    "top_hidden_sizes": {"network": OneOf(("hierarchical",))},
    "likelihood_scale": {"likelihood": OneOf(("gaussian",))},
    "kl": {"objective": OneOf(("elbo",))},
    "iwae_gradient": {"objective": OneOf(("iwae",))},
    "beta": {"objective": _HAS_DIVERGENCE},
    "beta_schedule": {"objective": _HAS_DIVERGENCE},
    "beta_ramp": {"objective": _HAS_DIVERGENCE, "beta_schedule": OneOf(("linear", "cyclical"))},
    "beta_cycles": {"objective": _HAS_DIVERGENCE, "beta_schedule": OneOf(("cyclical",))},
    "alpha": {"objective": _HAS_ALPHA},
    "alpha_schedule": {"objective": _HAS_ALPHA},
    "alpha_end": {"objective": _HAS_ALPHA, "alpha_schedule": OneOf(("linear",))},
    "alpha_convention": {"objective": _HAS_ALPHA},
    "adam_b1": {"optimizer": _HAS_MOMENTS},
    "adam_b2": {"optimizer": _HAS_MOMENTS},
    "adam_epsilon": {"optimizer": _HAS_MOMENTS},
    "weight_decay": {"optimizer": OneOf(("adamw",))},
    "patience": {"num_validation": AnyBut(0)},
}
"""Of each setting that may have no effect: which others must be how. The rest always have one, or are refused by
`check_experiment` where they have none."""


def check_settings_are_used(experiment: Experiment, *, beside: Experiment | None = None) -> None:
    """Refuses a setting that was given and has no effect.

    Args:
        experiment: as it was changed.
        beside: what was changed, by default `Experiment()`. A setting as it is there, or by default, was not given.

    Raises:
        ValueError: one line that names the setting, the other that leaves it without effect and what to do.
    """
    given, before, default = (settings(each) for each in (experiment, beside or Experiment(), Experiment()))
    for name, needs in NEEDS.items():
        if given[name] in (before[name], default[name]):
            continue
        for other, need in needs.items():
            if not need.holds(given[other]):
                raise ValueError(
                    f"{name} must be left out with {other} {given[other]}, where it has no effect, got {given[name]}: "
                    f"leave it out, or choose {need.advice(other)}"
                )


def settings(experiment: Experiment) -> dict[str, Any]:
    """The fields of all parts of an experiment by name."""
    parts = (experiment.data, experiment.model, experiment.objective, experiment.training)
    return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}
