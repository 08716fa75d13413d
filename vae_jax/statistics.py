"""How good a stochastic gradient is: the statistics of any random scalar loss and of its gradient."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from vae_jax.replicates import check_replicates, fold_replicates, stack_replicates
from vae_jax.typing import Parameters, PRNGKey, StochasticLoss

MAX_TAIL_SIZE = 32
"""Most extreme replicates that a tail index is estimated from, however many there are."""


class Statistics(NamedTuple):
    """Statistics of a random pytree over its replicates. Every field but `num_replicates` has the structure of one.

    A replicate that is not finite makes every moment so too: none is left out.
    """

    num_replicates: Int[Array, ""]
    """How many replicates there were."""
    num_nonfinite: PyTree[Int[Array, "..."]]
    """How many of them were NaN or infinite."""
    mean: PyTree[Float[Array, "..."]]
    mean_se: PyTree[Float[Array, "..."]]
    """Standard error of `mean`."""
    variance: PyTree[Float[Array, "..."]]
    """Of one replicate, with Bessel's correction."""
    variance_se: PyTree[Float[Array, "..."]]
    """Standard error of `variance`, from the fourth central moment."""
    std: PyTree[Float[Array, "..."]]
    std_se: PyTree[Float[Array, "..."]]
    """Standard error of `std`, by the delta method."""
    signal_to_noise: PyTree[Float[Array, "..."]]
    """|mean| / std of one replicate."""
    z_score: PyTree[Float[Array, "..."]]
    """(mean - reference) / mean_se; NaN without a reference."""
    tail_index: PyTree[Float[Array, "..."]]
    """Hill's estimate of alpha in P(|x - mean| > t) ~ t^-alpha. At 2 or below the variance is infinite.

    It sees nothing of events rarer than the replicates are many, so a large value does not prove a finite variance.
    """


class GradientStatistics(NamedTuple):
    """Statistics of a loss and of its gradient over the same replicates."""

    value: Statistics
    """Of the loss: scalars."""
    gradient: Statistics
    """Of its gradient: pytrees with the structure of the parameters."""


def gradient_statistics(
    loss: StochasticLoss,
    params: Parameters,
    key: PRNGKey,
    num_replicates: int,
    *,
    reference: Parameters | None = None,
    tail_size: int | None = None,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> GradientStatistics:
    """Statistics of `loss(params, key)` and of its gradient over independent keys, in one compiled pass.

    Memory does not grow with the number of replicates. Replicate r draws from `fold_in(key, r)` whatever the chunk size
    and the devices, so that two losses given the same key are compared under common random numbers. The pass is
    compiled once for a loss: hand in the same function object again, not a new lambda.

    Args:
        loss: parameters and a key to a random scalar; hashable.
        params: a pytree of floating-point arrays.
        key: consumed.
        num_replicates: R, at least 2.
        reference: the gradient that the mean is compared with, such as a problem's exact one.
        tail_size: how many extreme replicates the tail index is estimated from, by default sqrt(R) and at most 32. It
            takes 2 (tail_size + 1) copies of the gradient; 0 leaves the tail index out (NaN).
        chunk_size: replicates at once on a device, by default as many as its cache or memory holds well.
        mesh: the devices that replicates are sharded over, by default the current one alone. See `replicate_mesh`.

    Raises:
        ValueError: fewer than 2 replicates, an empty chunk, or a tail of more than half of the replicates.

    Reference: Chan, Golub & LeVeque (1983), eq. 1.5, and Pebay (2008), eqs. 2.1 and 3.1, for the merging of moments;
        Hill (1975) for the tail index.
    """
    check_replicates(num_replicates, chunk_size, least=2)
    tail_size = _checked_tail_size(tail_size, num_replicates)
    value, gradient = _moments(loss, params, key, num_replicates, tail_size, chunk_size, mesh)
    return GradientStatistics(_finish(value, None), _finish(gradient, reference))


def gradient_replicates(
    loss: StochasticLoss,
    params: Parameters,
    key: PRNGKey,
    num_replicates: int,
    *,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, " R"], PyTree[Float[Array, "R ..."]]]:
    """The replicates that `gradient_statistics` is made of: the losses [R] and their gradients [R, ...].

    Arguments as for `gradient_statistics`.

    Raises:
        ValueError: no replicates, or an empty chunk.
    """
    check_replicates(num_replicates, chunk_size, least=1)
    return _stacked(loss, params, key, num_replicates, chunk_size, mesh)


def summarize(
    replicates: PyTree[Float[Array, "R ..."]],
    *,
    reference: PyTree[Float[Array, "..."]] | None = None,
    tail_size: int | None = None,
) -> Statistics:
    """Statistics of replicates that are already at hand, stacked along their first axes.

    Args:
        replicates: R, at least 2, along the first axis of each leaf.
        reference: what the mean is compared with.
        tail_size: as for `gradient_statistics`.

    Raises:
        ValueError: fewer than 2 replicates, or a tail of more than half of them.
    """
    num_replicates = jax.tree.leaves(replicates)[0].shape[0]
    check_replicates(num_replicates, None, least=2)
    tail_size = _checked_tail_size(tail_size, num_replicates)
    counted = jnp.ones(num_replicates, bool)
    return _finish(jax.tree.map(lambda x: _chunk_moments(x, counted, tail_size), replicates), reference)


@partial(jax.jit, static_argnames=("loss", "num_replicates", "chunk_size", "mesh"))
def _stacked(
    loss: StochasticLoss,
    params: Parameters,
    key: PRNGKey,
    num_replicates: int,
    chunk_size: int | None,
    mesh: Mesh | None,
) -> Any:
    draw = partial(jax.value_and_grad(loss), params)
    return stack_replicates(draw, key, num_replicates, chunk_size=chunk_size, mesh=mesh)


@partial(jax.jit, static_argnames=("loss", "num_replicates", "tail_size", "chunk_size", "mesh"))
def _moments(
    loss: StochasticLoss,
    params: Parameters,
    key: PRNGKey,
    num_replicates: int,
    tail_size: int,
    chunk_size: int | None,
    mesh: Mesh | None,
) -> Any:
    return fold_replicates(
        partial(jax.value_and_grad(loss), params),
        key,
        num_replicates,
        summarize=lambda draws, counted: jax.tree.map(lambda x: _chunk_moments(x, counted, tail_size), draws),
        merge=_merge_trees,
        chunk_size=chunk_size,
        mesh=mesh,
    )


def _checked_tail_size(tail_size: int | None, num_replicates: int) -> int:
    # Beyond half of the replicates one could be both among the largest and among the smallest.
    largest_tail = num_replicates // 2 - 1
    if tail_size is None:
        return min(MAX_TAIL_SIZE, math.isqrt(num_replicates), largest_tail)
    if not 0 <= tail_size <= largest_tail:
        raise ValueError(f"tail_size must be from 0 to num_replicates / 2 - 1 = {largest_tail}, got {tail_size}")
    return tail_size


class _Moments(NamedTuple):
    """The number, mean, sums of powers of deviations from it, and extremes of one leaf's replicates."""

    number: Float[Array, ""]
    num_nonfinite: Int[Array, "..."]
    mean: Float[Array, "..."]
    square: Float[Array, "..."]
    cube: Float[Array, "..."]
    fourth: Float[Array, "..."]
    largest: Float[Array, "... k"]
    smallest: Float[Array, "... k"]


def _chunk_moments(draws: Float[Array, "c ..."], counted: Bool[Array, " c"], tail_size: int) -> _Moments:
    counts = counted.reshape(-1, *(1,) * (draws.ndim - 1))
    number = counted.sum().astype(draws.dtype)
    mean = jnp.where(counts, draws, 0).sum(axis=0) / jnp.maximum(number, 1)
    deviations = jnp.where(counts, draws - mean[None], 0)
    num_extremes = tail_size + 1 if tail_size else 0
    return _Moments(
        number,
        (counts & ~jnp.isfinite(draws)).sum(axis=0),
        mean,
        *((deviations**power).sum(axis=0) for power in (2, 3, 4)),
        largest=_largest(jnp.where(counts, draws, -jnp.inf), num_extremes),
        smallest=-_largest(jnp.where(counts, -draws, -jnp.inf), num_extremes),
    )


def _largest(draws: Float[Array, "c ..."], num_extremes: int) -> Float[Array, "... k"]:
    last = jnp.moveaxis(draws, 0, -1)
    padding = jnp.full((*last.shape[:-1], num_extremes), -jnp.inf, last.dtype)
    return lax.top_k(jnp.concatenate([last, padding], axis=-1), num_extremes)[0]


def _is_moments(node: object) -> bool:
    return isinstance(node, _Moments)


def _merge_trees(a: Any, b: Any) -> Any:
    return jax.tree.map(_merge, a, b, is_leaf=_is_moments)


def _merge(a: _Moments, b: _Moments) -> _Moments:
    """Moments of both sets together (Pebay 2008, eqs. 2.1 and 3.1)."""
    number = a.number + b.number
    share_a, share_b = (part.number / jnp.maximum(number, 1) for part in (a, b))
    shift = b.mean - a.mean
    spread = shift**2 * a.number * share_b
    num_extremes = a.largest.shape[-1]
    return _Moments(
        number,
        a.num_nonfinite + b.num_nonfinite,
        a.mean + shift * share_b,
        a.square + b.square + spread,
        a.cube + b.cube + shift * (spread * (share_a - share_b) + 3 * (share_a * b.square - share_b * a.square)),
        a.fourth
        + b.fourth
        + shift**2 * spread * (share_a**2 - share_a * share_b + share_b**2)
        + 6 * shift**2 * (share_a**2 * b.square + share_b**2 * a.square)
        + 4 * shift * (share_a * b.cube - share_b * a.cube),
        largest=lax.top_k(jnp.concatenate([a.largest, b.largest], axis=-1), num_extremes)[0],
        smallest=-lax.top_k(-jnp.concatenate([a.smallest, b.smallest], axis=-1), num_extremes)[0],
    )


def _finish(moments: Any, reference: Any) -> Statistics:
    def over_leaves(function: Callable[..., Array], *trees: Any) -> Any:
        return jax.tree.map(function, moments, *trees, is_leaf=_is_moments)

    mean = over_leaves(lambda m: m.mean)
    variance = over_leaves(lambda m: m.square / (m.number - 1))
    variance_se = over_leaves(_variance_se)
    std = jax.tree.map(jnp.sqrt, variance)
    mean_se = over_leaves(lambda m, s: s / jnp.sqrt(m.number), std)
    if reference is None:
        reference = jax.tree.map(lambda m: jnp.full_like(m, jnp.nan), mean)
    return Statistics(
        num_replicates=jax.tree.leaves(moments, is_leaf=_is_moments)[0].number.astype(int),
        num_nonfinite=over_leaves(lambda m: m.num_nonfinite),
        mean=mean,
        mean_se=mean_se,
        variance=variance,
        variance_se=variance_se,
        std=std,
        std_se=jax.tree.map(lambda v_se, s: v_se / (2 * s), variance_se, std),
        signal_to_noise=jax.tree.map(lambda m, s: jnp.abs(m) / s, mean, std),
        z_score=jax.tree.map(lambda m, r, se: (m - r) / se, mean, reference, mean_se),
        tail_index=over_leaves(_hill),
    )


def _variance_se(m: _Moments) -> Float[Array, "..."]:
    """sqrt{[mu_4 - sigma^4 (R - 3)/(R - 1)] / R}."""
    variance = m.square / (m.number - 1)
    of_variance = (m.fourth / m.number - variance**2 * (m.number - 3) / (m.number - 1)) / m.number
    return jnp.sqrt(jnp.maximum(of_variance, 0))


def _hill(m: _Moments) -> Float[Array, "..."]:
    """k / sum_i log(d_i / d_{k+1}) over the k + 1 largest deviations from the mean, which are among the extremes."""
    num_extremes = m.largest.shape[-1]
    if num_extremes == 0:
        return jnp.full_like(m.mean, jnp.nan)
    extremes = jnp.concatenate([m.largest, m.smallest], axis=-1) - m.mean[..., None]
    deviations, _ = lax.top_k(jnp.where(jnp.isfinite(extremes), jnp.abs(extremes), 0), num_extremes)
    excess = jnp.log(deviations[..., :-1]) - jnp.log(deviations[..., -1:])
    return jnp.where(m.num_nonfinite == 0, (num_extremes - 1) / excess.sum(axis=-1), jnp.nan)
