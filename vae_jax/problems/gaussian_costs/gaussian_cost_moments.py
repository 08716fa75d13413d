"""Exact moments of the estimators of Gaussian costs, by quadrature in float64.

Every estimator here averages terms that are functions of noise. An estimate's moments follow from those of
one term.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vae_jax.problems.central_moments import difference_moments, weighted_moments
from vae_jax.problems.exact_moments import MomentsByParameter, MomentsOfSamples, averaged, moments_by_parameter
from vae_jax.problems.noise_terms import (
    SCORE_FUNCTION_MOMENTS,
    NamedMoments,
    TermsOfNormal,
    means_alone,
    pair_averages,
    sample_averages,
)
from vae_jax.problems.quadrature import noise_moments, panels

Derivatives = Callable[[Any], tuple[Any, Any, Any]]
"""Points to f, f' and f'' of a cost."""

_REACH = np.arange(0.0, 13.25, 0.25)
"""Edges of panels for a distance in scales."""


def exact_moments(derivatives: Derivatives, loc: float, scale: float, estimator: str) -> MomentsByParameter:
    """The exact moments of the estimate of E[f(z)], z ~ Normal(loc, scale), and of its gradient's.

    Args:
        derivatives: f, f' and f'' at points.
        loc, scale: the mean and the standard deviation of the latent.
        estimator: a name in `ESTIMATORS`. Of others than those in `_MOMENTS` only the means are known.

    Raises:
        ValueError: later, a number of samples that the estimator refuses.
    """
    cost = CostOfNormal(derivatives, loc, scale)
    return moments_by_parameter(_MOMENTS.get(estimator, _of_unknown_variance)(cost))


@dataclass(frozen=True)
class CostOfNormal(TermsOfNormal):
    """A cost and its latent's distribution."""

    value_name: ClassVar[str] = "cost"

    derivatives: Derivatives
    loc: float
    scale: float

    def value(self, noise: Any) -> Any:
        """The cost."""
        return self.derivatives(self.loc + self.scale * noise)[0]

    def path_slope(self, noise: Any) -> Any:
        """Its derivative by z."""
        return self.derivatives(self.loc + self.scale * noise)[1]

    def beyond_taylor(self, noise: Any) -> tuple[Any, Any]:
        """f and f' less those of its second-order expansion about loc."""
        at_loc, slope, curvature = (float(value) for value in self.derivatives(np.asarray(self.loc)))
        step = self.scale * noise
        expansion = at_loc + slope * step + curvature * step**2 / 2
        return self.value(noise) - expansion, self.path_slope(noise) - (slope + curvature * step)


def _of_unknown_variance(cost: CostOfNormal) -> NamedMoments:
    return means_alone(cost.path_terms())


def _of_pathwise(cost: CostOfNormal) -> NamedMoments:
    return sample_averages(cost.path_terms())


def _of_closed_form_entropy(cost: CostOfNormal) -> NamedMoments:
    # log q along the path is -noise^2 / 2 but for a constant: its gradient is the entropy's, and cancels it.
    return sample_averages({**cost.path_terms(), "cost": lambda noise: cost.value(noise) + (1 - noise**2) / 2})


def _of_delta_method(gradient_term: Callable[[CostOfNormal, str, Any], Any]) -> Callable[[CostOfNormal], NamedMoments]:
    """Moments of the remainder after the expansion, around the exact means."""

    def moments(cost: CostOfNormal) -> NamedMoments:
        exact = {name: noise_moments(term).mean for name, term in cost.path_terms().items()}
        # Of a quadratic cost nothing remains but the rounding of what cancels.
        rounding = 1e-24 * noise_moments(cost.value).variance

        def of_term(name: str, term: Callable[[Any], Any]) -> MomentsOfSamples:
            moments = noise_moments(term)._replace(mean=exact[name])
            if moments.variance <= rounding:
                moments = moments._replace(variance=0.0, kurtosis=math.nan)
            return averaged(moments)

        by_parameter = {"cost": of_term("cost", lambda noise: cost.beyond_taylor(noise)[0])}
        for name in ("loc", "scale"):
            by_parameter[name] = of_term(name, partial(gradient_term, cost, name))
        return by_parameter

    return moments


class _Steps(NamedTuple):
    """Distances from loc in scales, with the weights of the densities that weak derivatives are made of."""

    distance: np.ndarray
    rayleigh: np.ndarray
    both_ways: np.ndarray
    """The distances downwards, and then upwards."""
    maxwell: np.ndarray
    """Weights of a double-sided Maxwell variable at the distances both ways."""


def _steps() -> _Steps:
    steps, width = panels(_REACH)
    rayleigh = width * steps * np.exp(-(steps**2) / 2)
    maxwell = np.tile(width * steps**2 * np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi), 2)
    return _Steps(steps, rayleigh, np.concatenate([-steps, steps]), maxwell)


def _of_measure_valued(cost: CostOfNormal) -> NamedMoments:
    """Two independent sides: Rayleigh steps from loc; a double-sided Maxwell step and a normal one."""
    steps, value = _steps(), noise_moments(cost.value)
    up, down = (weighted_moments(cost.value(sign * steps.distance), steps.rayleigh) for sign in (1, -1))
    sided = weighted_moments(cost.value(steps.both_ways), steps.maxwell)
    by_loc = difference_moments(up, down, 1 / (cost.scale * math.sqrt(2 * math.pi)))
    by_scale = difference_moments(sided, value, 1 / cost.scale)
    return {"cost": averaged(value), "loc": averaged(by_loc), "scale": averaged(by_scale)}


def _of_coupled_measure_valued(cost: CostOfNormal) -> NamedMoments:
    """Two coupled sides: one step up and down from loc; a double-sided Maxwell step and a uniform share of it."""
    steps = _steps()
    rise = cost.value(steps.distance) - cost.value(-steps.distance)
    by_loc = weighted_moments(rise / (cost.scale * math.sqrt(2 * math.pi)), steps.rayleigh)
    shares, share_width = panels(np.linspace(0, 1, 33))
    both = steps.both_ways[:, None]
    effect = (cost.value(both) - cost.value(both * shares[None])) / cost.scale
    by_scale = weighted_moments(effect, steps.maxwell[:, None] * share_width[None])
    return {"cost": averaged(noise_moments(cost.value)), "loc": averaged(by_loc), "scale": averaged(by_scale)}


_MOMENTS: dict[str, Callable[[CostOfNormal], NamedMoments]] = {
    "pathwise": _of_pathwise,
    "inverse_cdf": _of_pathwise,
    # The costs do not depend on q, so that nothing is dropped.
    "sticking_the_landing": _of_pathwise,
    "closed_form_entropy": _of_closed_form_entropy,
    **SCORE_FUNCTION_MOMENTS,
    "pathwise+antithetic_pairs": lambda cost: pair_averages(cost.path_terms()),
    "pathwise+delta_method": _of_delta_method(
        lambda cost, name, noise: cost.beyond_taylor(noise)[1] * (noise if name == "scale" else 1)
    ),
    "score_function+delta_method": _of_delta_method(
        lambda cost, name, noise: cost.beyond_taylor(noise)[0] * cost.score(name)(noise)
    ),
    "measure_valued": _of_measure_valued,
    "coupled_measure_valued": _of_coupled_measure_valued,
}
