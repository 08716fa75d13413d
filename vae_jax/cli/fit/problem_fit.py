"""A fit to the Poisson-Gamma problem, and the exact posterior: families, moments and rows."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from vae_jax import distributions
from vae_jax.cli.ascent_results import NUM_DRAWS, ascent_summary, restart_params, restart_spread
from vae_jax.cli.joint_families import joint_family
from vae_jax.distributions import PositiveNormal
from vae_jax.inference.diagnostics import PosteriorMoments, known_moments, moments_of_draws
from vae_jax.inference.fit import Factor, Fit, MeanField
from vae_jax.problems import GammaPrior, PoissonGamma
from vae_jax.problems.poisson_gamma.poisson_gamma_posterior import (
    PoissonGammaPosterior,
    exact_posterior,
)

LATENTS = ("u", "v")

INDEPENDENT = ("normal", "log_normal", "gamma")


@dataclass(frozen=True)
class ProblemFit:
    """A fit of Poisson-Gamma, and the exact posterior."""

    problem: PoissonGamma
    family_name: str
    fitted: Fit
    moments: PosteriorMoments
    """Moments of u and v under q. Their errors are those of the optimisation and of Monte Carlo together."""
    parameters: dict[str, tuple[float, float]]
    """Parameters of q, such as loc_u, with their standard errors. Empty for a family with dependence."""
    exact: PoissonGammaPosterior

    @property
    def is_independent(self) -> bool:
        """Whether the family has no dependence."""
        return self.family_name in INDEPENDENT

    @property
    def correlation(self) -> float:
        """The correlation of u and v under q."""
        return float(self.moments.correlation[0, 1])

    def rows(self) -> list[dict[str, Any]]:
        """A row for each latent."""
        columns = {name: getattr(self.moments, name).tolist() for name in ("mean", "mean_se", "std", "std_se")}
        return [
            {
                "latent": latent,
                **{name: column[k] for name, column in columns.items()},
                "exact_mean": getattr(self.exact, f"mean_{latent}"),
                "exact_std": getattr(self.exact, f"std_{latent}"),
            }
            for k, latent in enumerate(LATENTS)
        ]

    def summary(self) -> dict[str, Any]:
        """The results that are saved in addition to the rows."""
        parameters = {name: {"value": value, "se": error} for name, (value, error) in self.parameters.items()}
        exact = {"log_evidence": self.exact.log_evidence, "correlation": self.exact.correlation}
        return ascent_summary(self.fitted) | {
            "parameters": parameters,
            "correlation": self.correlation,
            "exact": exact,
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
    start = {latent: jnp.asarray(prior.concentration / prior.rate) for latent, prior in priors.items()}
    return joint_family(name, dict.fromkeys(priors, constraints.positive), start, rank)


def _normal_factor(prior: GammaPrior) -> Factor:
    # Half of the prior's width keeps the draws from the edge at zero.
    mean = prior.concentration / prior.rate
    return Factor(PositiveNormal, {"loc": mean, "scale": min(0.5 * math.sqrt(prior.concentration) / prior.rate, mean)})


def _log_normal_factor(prior: GammaPrior) -> Factor:
    scale = math.sqrt(math.log1p(1 / prior.concentration))
    return Factor(dist.LogNormal, {"loc": math.log(prior.concentration / prior.rate), "scale": scale})


def summarize_problem(problem: PoissonGamma, name: str, family: Any, fitted: Fit, seed: int) -> ProblemFit:
    """Moments of q with their errors: the spread over restarts, and Monte Carlo's.

    Args:
        problem: what was fitted.
        name: of the family in the command.
        family: what was fitted to it.
        fitted: the fit.
        seed: of the draws that moments without a closed form are computed from.
    """
    restarts = [_moments_of_latents(family.distribution(params), seed) for params in restart_params(fitted)]
    kept = restarts[fitted.best_restart]
    return ProblemFit(
        problem=problem,
        family_name=name,
        fitted=fitted,
        moments=kept._replace(
            mean_se=np.hypot(restart_spread([each.mean for each in restarts]), kept.mean_se),
            std_se=np.hypot(restart_spread([each.std for each in restarts]), kept.std_se),
        ),
        parameters=_parameters(family, fitted) if isinstance(family, MeanField) else {},
        exact=exact_posterior(problem),
    )


def _moments_of_latents(q: Any, seed: int) -> PosteriorMoments:
    """Moments of u and v, in closed form where q is a pair of factors."""
    if isinstance(q, dict):
        variances = [float(q[latent].variance) for latent in LATENTS]
        return known_moments({latent: float(q[latent].mean) for latent in LATENTS}, np.diag(variances))
    return moments_of_draws(distributions.sample(q, jax.random.key(seed), NUM_DRAWS))


def _parameters(family: MeanField, fitted: Fit) -> dict[str, tuple[float, float]]:
    """Arguments of the factors with their spread over restarts."""
    restarts = [family.parameters(params) for params in restart_params(fitted)]
    return {
        f"{argument}_{latent}": (
            float(restarts[fitted.best_restart][latent][argument]),
            float(restart_spread([np.asarray(each[latent][argument]) for each in restarts])),
        )
        for latent in LATENTS
        for argument in restarts[0][latent]
    }
