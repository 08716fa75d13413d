"""Passes of vae_jax over the work: gradients, and the loss alone."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from benchmarks.variance.variance_work import LEAST_LATENT, GradientWork
from vae_jax import elbo
from vae_jax.estimators import ESTIMATORS, in_blocks
from vae_jax.problems.poisson_gamma.poisson_gamma import PUBLISHED_COUNTS
from vae_jax.replicates import fold_replicates
from vae_jax.statistics import GradientStatistics, gradient_statistics
from vae_jax.typing import Latents, LogDensity, Parameters, PRNGKey, Scalar, StochasticLoss

BLOCKED_CHUNK_ELEMENTS = 2**18


def written_log_joint(latents: Latents) -> Scalar:
    """The log joint of the published problem, written with NumPyro's distributions."""
    u, v = latents["u"], latents["v"]
    counts = jnp.asarray(PUBLISHED_COUNTS)
    return (
        jnp.sum(dist.Poisson(u * v).log_prob(counts))
        + dist.Gamma(5.0, 1.0).log_prob(u)
        + dist.Gamma(4.0, 4.0).log_prob(v)
    )


def elbo_loss(
    work: GradientWork, estimator: str, *, log_joint: LogDensity | None = None, block_size: int | None = None
) -> StochasticLoss:
    """The evidence lower bound of the work's problem. The object must be kept: a pass is compiled once for each."""
    chosen = ESTIMATORS[estimator]
    if block_size is not None:
        chosen = in_blocks(chosen, block_size)

    def loss(params: Parameters, key: PRNGKey) -> Scalar:
        density = log_joint or work.problem.log_joint
        return elbo(density, work.problem.q(params), key, work.num_samples, estimator=chosen)

    return loss


def cut_normal_loss(work: GradientWork, estimator: str) -> StochasticLoss:
    """The bound under plain normals whose draws are cut off above zero, for the peers without our family."""

    def cut_log_joint(latents: Latents) -> Scalar:
        return work.problem.log_joint({name: jnp.maximum(value, LEAST_LATENT) for name, value in latents.items()})

    def loss(params: Parameters, key: PRNGKey) -> Scalar:
        q = {latent: dist.Normal(params[f"loc_{latent}"], params[f"scale_{latent}"]) for latent in ("u", "v")}
        return elbo(cut_log_joint, q, key, work.num_samples, estimator=ESTIMATORS[estimator])

    return loss


def gradient_pass(
    loss: StochasticLoss, work: GradientWork, *, chunk_size: int | None = None
) -> Callable[[], GradientStatistics]:
    """Statistics of the loss and its gradient over the work's replicates, on every device."""
    arguments = (loss, dict(work.params), work.key, work.num_replicates)
    return partial(gradient_statistics, *arguments, chunk_size=chunk_size, mesh=work.mesh)


def blocked_pass(work: GradientWork, estimator: str, block_size: int | None) -> Callable[[], GradientStatistics]:
    """The same with the samples in blocks, or as one array where the size is None."""
    # Larger chunks of blocks mean fewer steps of the loop over them, whose bookkeeping takes memory on a CPU.
    chunk_size = None if block_size is None else max(1, BLOCKED_CHUNK_ELEMENTS // block_size)
    return gradient_pass(elbo_loss(work, estimator, block_size=block_size), work, chunk_size=chunk_size)


def forward_pass(loss: StochasticLoss, work: GradientWork) -> Callable[[], Array]:
    """The loss alone, in the same chunks of replicates, and summed."""

    def total(losses: Float[Array, " c"], counted: Bool[Array, " c"]) -> Scalar:
        return jnp.where(counted, losses, 0).sum()

    @jax.jit
    def run(params: Parameters, key: PRNGKey) -> Scalar:
        draw = partial(loss, params)
        return fold_replicates(draw, key, work.num_replicates, summarize=total, merge=jnp.add, mesh=work.mesh)

    return partial(run, dict(work.params), work.key)
