"""The truth about costs of one Gaussian latent: moments of their estimators by quadrature in float64.

Every estimator here averages terms that are functions of noise. `Moments` of a term are its mean, variance and
kurtosis, so that an estimate's follow from those of one term.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vae_jax.problems.exact_moments import (
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    leave_one_out_moments,
    mean_alone,
)
from vae_jax.problems.quadrature import difference_moments, moments_of, noise_moments, panels

Derivatives = Callable[[Any], tuple[Any, Any, Any]]
"""Points to f, f' and f'' of a cost."""

_REACH = np.arange(0.0, 13.25, 0.25)
"""Edges of panels for a distance in scales."""


def exact_moments(derivatives: Derivatives, loc: float, scale: float, estimator: str) -> MomentsByParameter:
    """The exact moments of the estimate of E[f(z)], z ~ Normal(loc, scale), and of its gradient's.

    Args:
        derivatives: f, f' and f'' at points.
        loc, scale: of the latent.
        estimator: a name in `ESTIMATORS`. Of others than those in `_MOMENTS` only the means are known.

    Raises:
        ValueError: later, a number of samples that the estimator refuses.
    """
    cost = CostOfNormal(derivatives, loc, scale)
    by_parameter = _MOMENTS[estimator](cost) if estimator in _MOMENTS else cost.means()
    return lambda num_samples: {name: moments(num_samples) for name, moments in by_parameter.items()}


ByParameter = dict[str, MomentsOfSamples]


@dataclass(frozen=True)
class CostOfNormal:
    """A cost and its latent's distribution, as functions of the noise (z - loc) / scale."""

    derivatives: Derivatives
    loc: float
    scale: float

    def f(self, noise: Any) -> Any:
        """The cost."""
        return self.derivatives(self.loc + self.scale * noise)[0]

    def slope(self, noise: Any) -> Any:
        """Its derivative by z."""
        return self.derivatives(self.loc + self.scale * noise)[1]

    def score(self, name: str, noise: Any) -> Any:
        """d log q / d parameter."""
        return (noise if name == "loc" else noise**2 - 1) / self.scale

    def path(self, name: str, noise: Any) -> Any:
        """dz / d parameter."""
        return np.ones_like(noise) if name == "loc" else noise

    def beyond_taylor(self, noise: Any) -> tuple[Any, Any]:
        """f and f' less those of its second-order expansion about loc."""
        at_loc, slope, curvature = (float(value) for value in self.derivatives(np.asarray(self.loc)))
        step = self.scale * noise
        expansion = at_loc + slope * step + curvature * step**2 / 2
        return self.f(noise) - expansion, self.slope(noise) - (slope + curvature * step)

    def gradient(self, name: str) -> float:
        """d E[f] / d parameter."""
        return noise_moments(lambda noise: self.slope(noise) * self.path(name, noise)).mean

    def means(self) -> ByParameter:
        """Of an unbiased estimator whose variance is not known."""
        exact = {"cost": noise_moments(self.f).mean} | {name: self.gradient(name) for name in ("loc", "scale")}
        return {name: mean_alone(mean) for name, mean in exact.items()}


def _by_terms(value: Callable[[Any], Any], gradient: Callable[[str], Callable[[Any], Any]]) -> ByParameter:
    """Moments of averages of one term a sample."""
    terms = {"cost": value} | {name: gradient(name) for name in ("loc", "scale")}
    return {name: averaged(*noise_moments(term)) for name, term in terms.items()}


def _of_pathwise(cost: CostOfNormal) -> ByParameter:
    return _by_terms(cost.f, lambda name: lambda noise: cost.slope(noise) * cost.path(name, noise))


def _of_closed_form_entropy(cost: CostOfNormal) -> ByParameter:
    # log q along the path is -noise^2 / 2 but for a constant: its gradient is the entropy's, and cancels it.
    by_path = _of_pathwise(cost)
    return by_path | {"cost": averaged(*noise_moments(lambda noise: cost.f(noise) + (1 - noise**2) / 2))}


def _of_score_function(cost: CostOfNormal) -> ByParameter:
    return _by_terms(cost.f, lambda name: lambda noise: cost.f(noise) * cost.score(name, noise))


def _of_leave_one_out(cost: CostOfNormal) -> ByParameter:
    value = noise_moments(cost.f)

    def gradient(name: str) -> MomentsOfSamples:
        centred = noise_moments(lambda noise: (cost.f(noise) - value.mean) * cost.score(name, noise))
        return leave_one_out_moments(
            gradient=centred.mean,
            centred_square=centred.variance + centred.mean**2,
            centred_kurtosis=centred.kurtosis,
            value_variance=value.variance,
            score_square=noise_moments(lambda noise: cost.score(name, noise) ** 2).mean,
        )

    return {"cost": averaged(*value)} | {name: gradient(name) for name in ("loc", "scale")}


def _of_pairs(by_sample: Callable[[CostOfNormal], Callable[[str], Callable[[Any], Any]]]) -> Any:
    """Of an estimator whose terms are averaged over pairs of opposite noise."""

    def moments(cost: CostOfNormal) -> ByParameter:
        terms = by_sample(cost)

        def of_pair(term: Callable[[Any], Any]) -> MomentsOfSamples:
            of_one = averaged(*noise_moments(lambda noise: (term(noise) + term(-noise)) / 2))
            return lambda num_samples: of_one(num_samples // 2)

        return {name: of_pair(terms(name)) for name in ("cost", "loc", "scale")}

    return moments


def _pathwise_term(cost: CostOfNormal) -> Callable[[str], Callable[[Any], Any]]:
    return lambda name: cost.f if name == "cost" else lambda noise: cost.slope(noise) * cost.path(name, noise)


def _score_term(cost: CostOfNormal) -> Callable[[str], Callable[[Any], Any]]:
    return lambda name: cost.f if name == "cost" else lambda noise: cost.f(noise) * cost.score(name, noise)


def _of_delta_method(gradient_term: Callable[[CostOfNormal, str, Any], Any]) -> Callable[[CostOfNormal], ByParameter]:
    """Of the remainder after the expansion, around the exact means."""

    def moments(cost: CostOfNormal) -> ByParameter:
        exact = {"cost": noise_moments(cost.f).mean} | {name: cost.gradient(name) for name in ("loc", "scale")}
        # Of a quadratic cost nothing remains but the rounding of what cancels.
        rounding = 1e-24 * noise_moments(cost.f).variance

        def of_term(name: str, term: Callable[[Any], Any]) -> MomentsOfSamples:
            _, variance, kurtosis = noise_moments(term)
            return averaged(exact[name], *((variance, kurtosis) if variance > rounding else (0.0, math.nan)))

        by_parameter = {"cost": of_term("cost", lambda noise: cost.beyond_taylor(noise)[0])}
        for name in ("loc", "scale"):
            by_parameter[name] = of_term(name, partial(gradient_term, cost, name))
        return by_parameter

    return moments


def _of_measure_valued(cost: CostOfNormal) -> ByParameter:
    """Two independent sides: Rayleigh steps from loc; a double-sided Maxwell step and a normal one."""
    steps, width = panels(_REACH)
    rayleigh = width * steps * np.exp(-(steps**2) / 2)
    up, down = (moments_of(cost.f(sign * steps), rayleigh) for sign in (1, -1))
    both = np.concatenate([-steps, steps])
    maxwell = np.tile(width * steps**2 * np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi), 2)
    by_loc = difference_moments(up, down, 1 / (cost.scale * math.sqrt(2 * math.pi)))
    by_scale = difference_moments(moments_of(cost.f(both), maxwell), noise_moments(cost.f), 1 / cost.scale)
    return {"cost": averaged(*noise_moments(cost.f)), "loc": averaged(*by_loc), "scale": averaged(*by_scale)}


def _of_coupled_measure_valued(cost: CostOfNormal) -> ByParameter:
    """The same step up and down; a double-sided Maxwell step and a uniform share of it."""
    steps, width = panels(_REACH)
    rayleigh = width * steps * np.exp(-(steps**2) / 2)
    by_loc = moments_of((cost.f(steps) - cost.f(-steps)) / (cost.scale * math.sqrt(2 * math.pi)), rayleigh)
    shares, share_width = panels(np.linspace(0, 1, 33))
    both = np.concatenate([-steps, steps])[:, None]
    maxwell = np.tile(width * steps**2 * np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi), 2)
    effect = (cost.f(both) - cost.f(both * shares[None])) / cost.scale
    by_scale = moments_of(effect, maxwell[:, None] * share_width[None])
    return {"cost": averaged(*noise_moments(cost.f)), "loc": averaged(*by_loc), "scale": averaged(*by_scale)}


_MOMENTS: dict[str, Callable[[CostOfNormal], ByParameter]] = {
    "pathwise": _of_pathwise,
    "inverse_cdf": _of_pathwise,
    # The costs do not depend on q, so that nothing is dropped.
    "sticking_the_landing": _of_pathwise,
    "closed_form_entropy": _of_closed_form_entropy,
    "score_function": _of_score_function,
    "score_function+leave_one_out": _of_leave_one_out,
    "pathwise+antithetic_pairs": _of_pairs(_pathwise_term),
    "score_function+antithetic_pairs": _of_pairs(_score_term),
    "pathwise+delta_method": _of_delta_method(
        lambda cost, name, noise: cost.beyond_taylor(noise)[1] * cost.path(name, noise)
    ),
    "score_function+delta_method": _of_delta_method(
        lambda cost, name, noise: cost.beyond_taylor(noise)[0] * cost.score(name, noise)
    ),
    "measure_valued": _of_measure_valued,
    "coupled_measure_valued": _of_coupled_measure_valued,
}
