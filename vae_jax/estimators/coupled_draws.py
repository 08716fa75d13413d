"""Estimators whose samples are drawn together, so that their errors cancel. Each sample still has q's distribution.

The samples of one estimate are then not independent: a baseline must not be made of the other samples' values, except
of those outside an antithetic pair.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vae_jax import distributions
from vae_jax.estimators.score_function import optimal_score
from vae_jax.typing import Baseline, Distributions, Estimator, Latents, Objective, PRNGKey, Scalar

NUM_PROBES = 8
"""Values that a baseline is differentiated at, to see which samples it is made of."""


@dataclass(frozen=True)
class CoupledDraws(distributions.Reparameterized):
    """A distribution with other draws."""

    base: Any

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.base.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.base.event_shape

    @property
    def has_rsample(self) -> bool:
        return self.base.has_rsample

    def log_prob(self, value: Any) -> Any:
        return self.base.log_prob(value)

    def entropy(self) -> Any:
        return self.base.entropy()


def with_draws(
    estimator: Estimator,
    couple: Callable[[Distributions], Distributions],
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
) -> Scalar:
    """The estimate from coupled draws of `q`, with an objective that sees `q` itself."""
    distributions.check_latents(q, num_samples)

    def undressed(sample: Latents, q: Distributions) -> Any:
        return objective(sample, jax.tree.map(lambda leaf: leaf.base, q, is_leaf=_is_coupled))

    return estimator(undressed, couple(q), key, num_samples)


def _is_coupled(node: object) -> bool:
    return isinstance(node, CoupledDraws)


def check_baselines(estimator: Estimator, coupled: Float[np.ndarray, "S S"], instead: str) -> None:
    """Refuses an estimator, however wrapped, that makes a sample's baseline of samples coupled to it.

    Args:
        estimator: partial applications are looked through.
        coupled: 1 where two of `NUM_PROBES` samples are.
        instead: the baseline to use.
    """
    for name, part in _parts("", estimator):
        if part is optimal_score:
            raise ValueError(
                "estimator must not make a sample's baseline of samples coupled to it, got optimal_score: use "
                "score_function"
            )
        if name == "baseline" and (_dependence(part) * coupled).any():
            raise ValueError(
                "estimator must not make a sample's baseline of samples coupled to it, got "
                f"{getattr(part, '__name__', 'a function')}: use {instead}"
            )


def _parts(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    """The parts of an estimator, with the names of keywords."""
    yield name, part
    if isinstance(part, partial):
        for inner_name, inner in (("", part.func), *(("", each) for each in part.args), *part.keywords.items()):
            yield from _parts(inner_name, inner)


def _dependence(baseline: Baseline) -> Bool[np.ndarray, "S S"]:
    """The samples whose values each sample's baseline depends on, from its derivatives."""
    values = jnp.arange(1.0, NUM_PROBES + 1) ** 1.5
    return np.asarray(jax.jacobian(lambda values: jnp.broadcast_to(baseline(values), values.shape))(values) != 0)
