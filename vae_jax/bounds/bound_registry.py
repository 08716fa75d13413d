"""The bounds that couple their samples, by name, with the gradients that each one can have."""

from typing import NamedTuple

from vae_jax.estimators.estimator_registry import REPARAMETERIZABLE, WITH_DENSITY
from vae_jax.markdown_tables import markdown_table


class RegisteredBound(NamedTuple):
    """A bound with one of its gradients, and what is known of it.

    Example:
        >>> import vae_jax as vj
        >>> vj.bounds.BOUNDS["importance_weighted, doubly_reparameterized"].evaluations
        '2 K'
        >>> [name for name, bound in vj.bounds.BOUNDS.items() if not bound.differentiable][0]
        'importance_weighted, vimco'
    """

    bounds: str
    """The quantity that is bounded, and the side."""
    latents: str
    """The latents that it takes."""
    differentiable: bool
    """Whether the log joint must be, along the sample."""
    unbiased: str
    """The quantity whose gradient is estimated without bias, or no."""
    evaluations: str
    """Evaluations of the log joint for K samples."""
    source: str


_EVIDENCE = "log p(x) from below"

BOUNDS: dict[str, RegisteredBound] = {
    "importance_weighted, plain": RegisteredBound(
        _EVIDENCE, REPARAMETERIZABLE, True, "of the bound", "K", "Burda et al. (2016)"
    ),
    "importance_weighted, doubly_reparameterized": RegisteredBound(
        _EVIDENCE, REPARAMETERIZABLE, True, "of the bound", "2 K", "Tucker et al. (2019)"
    ),
    "importance_weighted, vimco": RegisteredBound(
        _EVIDENCE, WITH_DENSITY, False, "of the bound", "K", "Mnih & Rezende (2016)"
    ),
    "importance_weighted, multi_sample_score_function": RegisteredBound(
        _EVIDENCE, WITH_DENSITY, False, "of the bound", "K", "Mnih & Rezende (2016)"
    ),
    "renyi": RegisteredBound(
        "log p(x) from below for alpha >= 0",
        REPARAMETERIZABLE,
        True,
        "of its mean over K samples",
        "K",
        "Li & Turner (2016)",
    ),
    "chi": RegisteredBound(
        "log p(x) from above as K grows",
        REPARAMETERIZABLE,
        True,
        "of its mean over K samples",
        "K",
        "Dieng et al. (2017)",
    ),
    "jackknife": RegisteredBound(
        "none: log p(x) with less bias", REPARAMETERIZABLE, True, "of its mean over K samples", "K", "Nowozin (2018)"
    ),
    "wake_model_loss": RegisteredBound(
        _EVIDENCE, WITH_DENSITY, False, "of the bound, in the model alone", "K", "Bornschein & Bengio (2015)"
    ),
    "wake_inference_loss": RegisteredBound(
        "none: KL(p || q)", WITH_DENSITY, False, "no: consistent in K", "K", "Bornschein & Bengio (2015)"
    ),
    "sleep_loss": RegisteredBound(
        "none: KL(p || q) on the model's own data", WITH_DENSITY, False, "yes", "none", "Hinton et al. (1995)"
    ),
}
"""The bounds by the names of their functions, and of the gradient that is handed in."""


def bound_table() -> str:
    """Returns the registry of bounds as a Markdown table, as docs/estimators.md shows it.

    Example:
        >>> import vae_jax as vj
        >>> header, _, first, *_ = vj.bounds.bound_table().splitlines()
        >>> header.split("|")[1].strip(), first.split("|")[1].strip()
        ('bound, gradient', '`importance_weighted, plain`')
    """
    header = ("bound, gradient", "bounds", "latents", "differentiable log joint", "unbiased", "evaluations", "source")
    rows = [
        (f"`{name}`", row.bounds, row.latents, "needed" if row.differentiable else "-", *row[3:])
        for name, row in BOUNDS.items()
    ]
    return markdown_table(header, rows)
