"""A Poisson regression's fit, and Laplace's approximation of it: families, moments and rows."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpyro.distributions import constraints

from vae_jax import distributions
from vae_jax.cli.ascent_results import NUM_DRAWS, ascent_summary, restart_params, restart_spread
from vae_jax.cli.joint_families import joint_family
from vae_jax.cli.regress.poisson_regression import PoissonRegression
from vae_jax.inference.diagnostics import PosteriorMoments, moments_of_draws
from vae_jax.inference.fit import Fit, MeanFieldNormal
from vae_jax.inference.laplace import laplace
from vae_jax.inference.latent_space import Support
from vae_jax.typing import PRNGKey


class LaplaceReference(NamedTuple):
    """Laplace's approximation of a Poisson regression in float64, or the reason why there is none."""

    mean: Float[np.ndarray, " K"]
    """NaN without an approximation, as are the other numbers."""
    std: Float[np.ndarray, " K"]
    log_evidence: float
    failure: str | None = None


def laplace_reference(regression: PoissonRegression) -> LaplaceReference:
    """Laplace's approximation of a regression, in float64 whatever the precision of its fit.

    A reference that fails is reported: it takes nothing from the fit.
    """
    with jax.enable_x64(True):
        try:
            found = laplace(regression.log_joint, jnp.asarray(regression.start))
        except (ValueError, RuntimeError) as error:
            unknown = np.full(regression.start.shape, math.nan)
            return LaplaceReference(unknown, unknown, math.nan, str(error))
        mean, std = (np.asarray(each, float) for each in (found.mode, found.marginal_scale))
        return LaplaceReference(mean, std, float(found.log_evidence))


@dataclass(frozen=True)
class RegressionFit:
    """A Poisson regression's fit, and Laplace's approximation of it."""

    regression: PoissonRegression
    response: str
    family_name: str
    fitted: Fit
    draws: Float[np.ndarray, "S K"]
    """Coefficients of the standardised predictors."""
    moments: PosteriorMoments
    """Their moments. The errors of the means are those of the optimisation and of Monte Carlo together."""
    own_mean: Float[np.ndarray, " K"]
    """Means of the coefficients on the predictors' own scale."""
    own_std: Float[np.ndarray, " K"]
    reference: LaplaceReference

    @property
    def dispersion(self) -> float:
        """Pearson's dispersion at the posterior's mean."""
        return self.regression.dispersion(self.moments.mean)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each coefficient."""
        columns = {
            "mean": self.moments.mean,
            "mean_se": self.moments.mean_se,
            "std": self.moments.std,
            "laplace_mean": self.reference.mean,
            "laplace_std": self.reference.std,
            "own_scale_mean": self.own_mean,
            "own_scale_std": self.own_std,
        }
        return [
            {"coefficient": name} | {column: float(values[k]) for column, values in columns.items()}
            for k, name in enumerate(self.regression.coefficient_names)
        ]

    def summary(self) -> dict[str, Any]:
        """The results that are saved in addition to the rows."""
        scaling = zip(self.regression.means.tolist(), self.regression.scales.tolist(), strict=True)
        standardised = {
            name: {"mean": mean, "std": scale}
            for name, (mean, scale) in zip(self.regression.names, scaling, strict=True)
        }
        return ascent_summary(self.fitted) | {
            "laplace_log_evidence": self.reference.log_evidence,
            "laplace_failure": self.reference.failure,
            "dispersion": self.dispersion,
            "standardised_by": standardised,
        }


def regression_family(name: str, regression: PoissonRegression, rank: int) -> Any:
    """The family by its name in the command, at an intercept alone."""
    support = Support(constraints.real, regression.start.shape)
    start = jnp.asarray(regression.start, jnp.result_type(float))
    return MeanFieldNormal(support, start=start) if name == "normal" else joint_family(name, support, start, rank)


def summarize_regression(
    regression: PoissonRegression, response: str, fitted: Fit, *, family: Any, name: str, seed: int
) -> RegressionFit:
    """Moments of the coefficients with their errors, on both scales, and Laplace's approximation.

    Args:
        regression: what was fitted.
        response: the name of its response.
        fitted: the fit.
        family: what was fitted to it.
        name: of the family in the command.
        seed: of the draws that moments without a closed form are computed from.
    """
    key = jax.random.key(seed)
    restarts = [_coefficients(family.distribution(params), key) for params in restart_params(fitted)]
    draws, moments = restarts[fitted.best_restart]
    spread = restart_spread([each.mean for _, each in restarts])
    return RegressionFit(
        regression=regression,
        response=response,
        family_name=name,
        fitted=fitted,
        draws=draws,
        moments=moments._replace(mean_se=np.hypot(spread, moments.mean_se)),
        own_mean=regression.on_own_scale(moments.mean),
        own_std=regression.on_own_scale(draws).std(0, ddof=1),
        reference=laplace_reference(regression),
    )


def _coefficients(q: Any, key: PRNGKey) -> tuple[Float[np.ndarray, "S K"], PosteriorMoments]:
    """Draws, and their moments."""
    draws: Any = np.asarray(distributions.sample(q, key, NUM_DRAWS), np.float64)
    moments = moments_of_draws(draws)
    try:
        # The mean of a normal is known, and draws can be moved to have it.
        mean = np.asarray(q.mean, np.float64)
    except NotImplementedError:
        return draws, moments
    return draws + (mean - moments.mean), moments._replace(mean=mean, mean_se=np.zeros(len(mean)))
