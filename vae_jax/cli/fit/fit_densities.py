"""The densities of u and v under a fit and under the exact posterior, for the figure of `vae-jax fit`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from vae_jax import distributions
from vae_jax.cli.ascent_results import elbo_ascent
from vae_jax.cli.fit.problem_fit import LATENTS, ProblemFit
from vae_jax.plotting.fit import PairDensity, fitted_pair
from vae_jax.problems.poisson_gamma.poisson_gamma_posterior import exact_marginals

NUM_SMOOTHED = 50_000
"""Draws that a marginal without a closed form is smoothed from."""

NUM_POINTS = 201
"""Points of a latent at which densities are drawn."""

REACH = 3.5
"""Standard deviations of the posterior that are drawn on each side of its mean."""


def problem_figure(result: ProblemFit) -> Figure:
    """The ELBO by step, and the joint and marginal densities of u and v against the exact posterior's."""
    exact, q = result.exact, result.fitted.posterior
    grids = (_reach(exact.mean_u, exact.std_u), _reach(exact.mean_v, exact.std_v))
    marginals = exact_marginals(result.problem)
    posterior = PairDensity(
        joint=_joint_density(result.problem.log_joint, grids),
        marginals=(marginals["u"], marginals["v"]),
        means=(exact.mean_u, exact.mean_v),
    )
    fitted = PairDensity(
        joint=_joint_density(lambda sample: distributions.log_prob(q, sample), grids),
        marginals=(
            (grids[0], _marginal_density(q, "u", grids[0])),
            (grids[1], _marginal_density(q, "v", grids[1])),
        ),
        means=(float(result.moments.mean[0]), float(result.moments.mean[1])),
    )
    ascent = elbo_ascent(result.fitted, bound=exact.log_evidence)
    return fitted_pair(ascent, grids, posterior=posterior, fitted=fitted, names=LATENTS)


def _reach(mean: float, std: float) -> Float[np.ndarray, " G"]:
    return np.linspace(max(mean - REACH * std, 0.01 * mean), mean + REACH * std, NUM_POINTS)


def _joint_density(
    log_density: Callable[[dict[str, Any]], Any], grids: tuple[Float[np.ndarray, " G"], Float[np.ndarray, " G"]]
) -> Float[np.ndarray, "G G"]:
    """The density of u (columns) and v (rows), 1 at its highest point."""
    latents = {name: jnp.asarray(grid) for name, grid in zip(LATENTS, np.meshgrid(*grids), strict=True)}
    logs = np.asarray(jax.vmap(jax.vmap(log_density))(latents), float)
    return np.exp(logs - logs.max())


def _marginal_density(q: Any, name: str, grid: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
    if isinstance(q, dict):
        return np.exp(np.asarray(distributions.log_probs(q[name], jnp.asarray(grid)), float))
    draws = np.asarray(distributions.sample(q, jax.random.key(0), NUM_SMOOTHED)[name], float)
    # The logarithm is smoothed, so that no density leaks below zero.
    return gaussian_kde(np.log(draws))(np.log(grid)) / grid
