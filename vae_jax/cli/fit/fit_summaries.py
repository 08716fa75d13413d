"""Fits beside their references: moments with their errors, the exact ones and Laplace's."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from vae_jax import distributions
from vae_jax.cli.regress.poisson_regression import PoissonRegression
from vae_jax.distributions import PositiveNormal
from vae_jax.inference.fit.coupling_flow import CouplingFlow
from vae_jax.inference.fit.families import Factor, FullRankNormal, LowRankNormal, MeanField, MeanFieldNormal
from vae_jax.inference.fit.fit import Fit
from vae_jax.inference.laplace import LaplaceApproximation, laplace
from vae_jax.inference.latent_space import Support
from vae_jax.problems.poisson_gamma.poisson_gamma import GammaPrior, PoissonGamma
from vae_jax.problems.poisson_gamma.poisson_gamma_posterior import PoissonGammaPosterior, exact_posterior

NUM_DRAWS = 200_000
"""That moments without a closed form are taken from."""

INDEPENDENT = ("normal", "log_normal", "gamma")


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


class Moments(NamedTuple):
    """Of K numbers, [K] each."""

    mean: np.ndarray
    std: np.ndarray
    mean_error: np.ndarray
    """Of Monte Carlo alone; zero for a closed form."""
    std_error: np.ndarray


@dataclass(frozen=True)
class ProblemFit:
    """A fit of Poisson-Gamma beside the exact posterior."""

    problem: PoissonGamma
    family_name: str
    fitted: Fit
    moments: dict[str, tuple[Estimate, Estimate]]
    """Mean and standard deviation of u and v under q."""
    parameters: dict[str, Estimate]
    """Of q, by name; of the families with independent factors."""
    correlation: float
    """Of u and v under q."""
    exact: PoissonGammaPosterior

    @property
    def is_independent(self) -> bool:
        """Whether the family has no dependence."""
        return self.family_name in INDEPENDENT

    def rows(self) -> list[dict[str, Any]]:
        """The table as it is saved."""
        return [
            {
                "latent": name,
                "mean": mean.value,
                "mean_se": mean.error,
                "std": std.value,
                "std_se": std.error,
                "exact_mean": getattr(self.exact, f"mean_{name}"),
                "exact_std": getattr(self.exact, f"std_{name}"),
            }
            for name, (mean, std) in self.moments.items()
        ]

    def summary(self) -> dict[str, Any]:
        """What else is saved."""
        parameters = {name: {"value": each.value, "se": each.error} for name, each in self.parameters.items()}
        exact = {"log_evidence": self.exact.log_evidence, "correlation": self.exact.correlation}
        return fit_summary(self.fitted) | {"parameters": parameters, "correlation": self.correlation, "exact": exact}


@dataclass(frozen=True)
class RegressionFit:
    """A Poisson regression's fit beside Laplace's approximation."""

    regression: PoissonRegression
    response: str
    family_name: str
    fitted: Fit
    draws: np.ndarray
    """Coefficients of standardised predictors, [S, K]."""
    moments: Moments
    errors: np.ndarray
    """Standard errors of the means, of optimisation and Monte Carlo together, [K]."""
    own_mean: np.ndarray
    """On the predictors' own scale, [K]."""
    own_std: np.ndarray
    reference: LaplaceApproximation

    def rows(self) -> list[dict[str, Any]]:
        """The table as it is saved."""
        scale = np.asarray(self.reference.marginal_scale)
        return [
            {
                "coefficient": name,
                "mean": float(self.moments.mean[k]),
                "mean_se": float(self.errors[k]),
                "std": float(self.moments.std[k]),
                "laplace_mean": float(self.reference.mode[k]),
                "laplace_std": float(scale[k]),
                "own_scale_mean": float(self.own_mean[k]),
                "own_scale_std": float(self.own_std[k]),
            }
            for k, name in enumerate(self.regression.coefficient_names)
        ]

    @property
    def dispersion(self) -> float:
        """Pearson's, at the posterior's mean."""
        return self.regression.dispersion(self.moments.mean)

    def summary(self) -> dict[str, Any]:
        """What else is saved."""
        scaling = zip(self.regression.means.tolist(), self.regression.scales.tolist(), strict=True)
        standardised = {
            name: {"mean": mean, "std": scale}
            for name, (mean, scale) in zip(self.regression.names, scaling, strict=True)
        }
        return fit_summary(self.fitted) | {
            "laplace_log_evidence": float(self.reference.log_evidence),
            "dispersion": self.dispersion,
            "standardised_by": standardised,
        }


def fit_summary(fitted: Fit) -> dict[str, Any]:
    """How the ascent went."""
    return {
        "elbo": fitted.elbo,
        "elbo_se": fitted.elbo_se,
        "pareto_k": fitted.pareto_k,
        "num_steps": fitted.num_steps,
        "converged": fitted.converged,
        "rise": fitted.rise,
        "rise_se": fitted.rise_se,
        "restart_elbos": fitted.restart_elbos.tolist(),
        "restart_elbo_ses": fitted.restart_elbo_ses.tolist(),
        "best_restart": fitted.best_restart,
    }


def problem_family(name: str, problem: PoissonGamma, rank: int) -> Any:
    """The family by its name in the command, at the means of the priors."""
    priors = {"u": problem.prior_u, "v": problem.prior_v}
    match name:
        case "normal":
            return MeanField({latent: _normal_factor(prior) for latent, prior in priors.items()}, spread=0.05)
        case "log_normal":
            return MeanField({latent: _log_normal_factor(prior) for latent, prior in priors.items()})
        case "gamma":
            return MeanField({latent: Factor(dist.Gamma, prior._asdict()) for latent, prior in priors.items()})
    supports = dict.fromkeys(priors, constraints.positive)
    if name == "flow":
        return CouplingFlow(supports)
    start = {latent: jnp.asarray(prior.concentration / prior.rate) for latent, prior in priors.items()}
    return _joint_family(name, supports, start, rank)


def regression_family(name: str, regression: PoissonRegression, rank: int) -> Any:
    """The family by its name in the command, at an intercept alone."""
    support = Support(constraints.real, regression.start.shape)
    if name == "flow":
        return CouplingFlow(support)
    start = jnp.asarray(regression.start, jnp.result_type(float))
    return MeanFieldNormal(support, start=start) if name == "normal" else _joint_family(name, support, start, rank)


def _joint_family(name: str, supports: Any, start: Any, rank: int) -> Any:
    if name == "full_rank":
        return FullRankNormal(supports, start=start)
    return LowRankNormal(supports, start=start, rank=rank)


def _normal_factor(prior: GammaPrior) -> Factor:
    # Half of the prior's width keeps the draws from the edge at zero.
    mean = prior.concentration / prior.rate
    return Factor(PositiveNormal, {"loc": mean, "scale": min(0.5 * math.sqrt(prior.concentration) / prior.rate, mean)})


def _log_normal_factor(prior: GammaPrior) -> Factor:
    scale = math.sqrt(math.log1p(1 / prior.concentration))
    return Factor(dist.LogNormal, {"loc": math.log(prior.concentration / prior.rate), "scale": scale})


def summarize_problem(problem: PoissonGamma, name: str, family: Any, fitted: Fit, seed: int) -> ProblemFit:
    """Moments of q with their errors: the spread over restarts, with Monte Carlo's."""
    exact = exact_posterior(problem)
    restarts = [_moments_of_latents(family.distribution(params), seed) for params in _each_restart(fitted)]
    kept = restarts[fitted.best_restart][0]
    spread_mean, spread_std = (_spread([getattr(each[0], field) for each in restarts]) for field in ("mean", "std"))
    moments = {
        latent: (
            Estimate(float(kept.mean[k]), float(np.hypot(spread_mean[k], kept.mean_error[k]))),
            Estimate(float(kept.std[k]), float(np.hypot(spread_std[k], kept.std_error[k]))),
        )
        for k, latent in enumerate(("u", "v"))
    }
    return ProblemFit(
        problem=problem,
        family_name=name,
        fitted=fitted,
        moments=moments,
        parameters=_parameters(family, fitted) if isinstance(family, MeanField) else {},
        correlation=restarts[fitted.best_restart][1],
        exact=exact,
    )


def summarize_regression(
    regression: PoissonRegression, response: str, name: str, family: Any, fitted: Fit, seed: int
) -> RegressionFit:
    """Moments of the coefficients with their errors, on both scales, and Laplace's approximation."""
    key = jax.random.key(seed)
    restarts = [_coefficients(family.distribution(params), key) for params in _each_restart(fitted)]
    draws, moments = restarts[fitted.best_restart]
    spread = _spread([each.mean for _, each in restarts])
    own = regression.on_own_scale(draws)
    return RegressionFit(
        regression=regression,
        response=response,
        family_name=name,
        fitted=fitted,
        draws=draws,
        moments=moments,
        errors=np.hypot(spread, moments.mean_error),
        own_mean=regression.on_own_scale(moments.mean),
        own_std=own.std(0, ddof=1),
        reference=laplace(regression.log_joint, jnp.asarray(regression.start, jnp.result_type(float))),
    )


def _each_restart(fitted: Fit) -> list[Any]:
    """The parameters of every restart, and of a failed one the best's."""
    finite = np.isfinite(fitted.restart_elbos)
    numbers = [number if finite[number] else fitted.best_restart for number in range(len(finite))]
    return [jax.tree.map(lambda leaf, number=number: leaf[number], fitted.restart_params) for number in numbers]


def _spread(values: list[np.ndarray]) -> Any:
    """Standard deviation over restarts; NaN of one alone."""
    if len(values) < 2:
        return np.full(np.shape(values[0]), math.nan)
    return np.std(values, axis=0, ddof=1)


def _moments_of_latents(q: Any, seed: int) -> tuple[Moments, float]:
    """Of u and v, in closed form where q is a pair of factors, and their correlation."""
    if isinstance(q, dict):
        mean = np.array([float(q[latent].mean) for latent in ("u", "v")])
        std = np.sqrt(np.array([float(q[latent].variance) for latent in ("u", "v")]))
        return Moments(mean, std, np.zeros(2), np.zeros(2)), 0.0
    draws = distributions.sample(q, jax.random.key(seed), NUM_DRAWS)
    stacked = np.stack([np.asarray(draws[latent], np.float64) for latent in ("u", "v")], -1)
    return _moments_of_draws(stacked), float(np.asarray(np.corrcoef(stacked.T))[0, 1])


def _coefficients(q: Any, key: Any) -> tuple[np.ndarray, Moments]:
    draws: Any = np.asarray(distributions.sample(q, key, NUM_DRAWS), np.float64)
    moments = _moments_of_draws(draws)
    try:
        # The mean of a normal is known, and draws can be moved to have it.
        mean: Any = np.asarray(q.mean, np.float64)
    except NotImplementedError:
        return draws, moments
    return draws + (mean - moments.mean), moments._replace(mean=mean, mean_error=np.zeros(len(mean)))


def _moments_of_draws(draws: np.ndarray) -> Moments:
    mean, std = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1)
    kurtosis = ((draws - mean) ** 4).mean(0) / std**4
    root = math.sqrt(len(draws))
    return Moments(mean, std, std / root, std * np.sqrt(np.maximum(kurtosis - 1, 0)) / (2 * root))


def _parameters(family: MeanField, fitted: Fit) -> dict[str, Estimate]:
    """Arguments of the factors, as loc_u."""
    restarts = [family.parameters(params) for params in _each_restart(fitted)]
    return {
        f"{argument}_{latent}": Estimate(
            float(restarts[fitted.best_restart][latent][argument]),
            float(np.asarray(_spread([np.asarray(each[latent][argument]) for each in restarts]))),
        )
        for latent in ("u", "v")
        for argument in restarts[0][latent]
    }
