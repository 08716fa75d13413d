"""The effect of truncating q at zero on the Poisson-Gamma ELBO and its gradient."""

from collections.abc import Mapping

from vae_jax.problems import quadrature
from vae_jax.problems.poisson_gamma.poisson_gamma import PoissonGamma
from vae_jax.problems.poisson_gamma.poisson_gamma_moments import LatentGrid


def truncation_effect(problem: PoissonGamma, params: Mapping[str, float]) -> dict[str, float]:
    """The change of the exact ELBO and its gradient when the normal family is truncated at zero.

    Measured from the untreated integrals: those over the positive part of the plain normals, with their own log density
    and score.
    """
    truncated, untreated = (
        LatentGrid(problem.density, params, nodes)
        for nodes in (quadrature.positive_normal, quadrature.untreated_normal)
    )

    def integrals(grid: LatentGrid) -> dict[str, float]:
        return {"elbo": grid.mean(grid.log_weight)} | {
            name: grid.mean(grid.log_weight * grid.score(name)) for name in params
        }

    before, after = integrals(untreated), integrals(truncated)
    return {name: after[name] - before[name] for name in after}
