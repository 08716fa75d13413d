"""ARM, DisARM and DisARM on the sticks of categoricals: the objective at pairs of antithetic discrete samples."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vae_jax import distributions
from vae_jax.estimators.discrete_latents import (
    BernoulliLatent,
    DiscreteLatent,
    bernoulli_latents,
    discrete_latents,
    with_logit_gradients,
)
from vae_jax.estimators.objective_values import times_each, values_at
from vae_jax.typing import Distributions, Objective, PRNGKey, Scalar


def arm(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """ARM (augment, reinforce, merge): gradients in Bernoulli logits from antithetic pairs.

    Approximates: d/dlogits E_q[f(b)] by the mean over pairs of (f(b) - f(b')) (u - 1/2), with u uniform,
        b = 1[u > sigmoid(-logits)] and b' = 1[u < sigmoid(logits)].
    Needs: Bernoulli latents. The objective need not be differentiable.
    Biased: no. First derivatives only: a second one in q's parameters is refused.

    Args:
        objective: a function of one sample and `q` that returns a scalar; it sees `q` with no gradient attached.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: evaluations of the objective: an even number, two to a pair.

    Returns:
        The mean of the objective over both samples of every pair, whose gradient is the estimate.

    Raises:
        TypeError: a latent is not Bernoulli.
        ValueError: an odd number of samples, or none, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # E[(2 b)^2] = 4 sigmoid(logit)
        ...     q = dist.Bernoulli(logits=logit)
        ...     return vj.arm(lambda b, q: (2.0 * b) ** 2, q, jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.0, gradient 1.0

    Reference: Yin & Zhou (2019), theorem 1.
    """
    return _over_bernoulli_pairs(objective, q, key, num_samples, _arm_coefficient)


def disarm(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """DisARM (unbiased uniform gradient): ARM with its uniform noise averaged out, given the pair.

    Approximates: d/dlogits E_q[f(b)] by the mean over pairs of (f(b) - f(b')) (b - b') sigmoid(|logits|) / 2.
    Needs: Bernoulli latents. The objective need not be differentiable.
    Biased: no. Its variance is never larger than ARM's. First derivatives only: a second one in q's parameters is
        refused.

    Arguments, result and errors as for `arm`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # E[(2 b)^2] = 4 sigmoid(logit)
        ...     q = dist.Bernoulli(logits=logit)
        ...     return vj.disarm(lambda b, q: (2.0 * b) ** 2, q, jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.0, gradient 1.0

    Reference: Dong, Mnih & Tucker (2020), section 3; Yin, Ho, Yan, Qian & Zhou (2020).
    """
    return _over_bernoulli_pairs(objective, q, key, num_samples, _disarm_coefficient)


def categorical_disarm(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """DisARM on the sticks of a stick-breaking construction of each categorical latent (DisARM-SB).

    A categorical with probabilities p is the number of the first success among K - 1 independent Bernoulli sticks with
    logits log p_k - log sum_{j > k} p_j, or the last category if there is none. The objective is then a function of
    Bernoullis, for which DisARM is unbiased, and the sticks' logits are differentiable in q's. A stick behind the first
    success of both samples of the pair reaches neither; its term has mean zero and is left out. A Bernoulli is its own
    only stick.

    Approximates: as `disarm`, in the logits of the sticks.
    Needs: Bernoulli, Categorical or OneHotCategorical latents. The objective need not be differentiable.
    Biased: no. The variance depends on the order of the categories. First derivatives only: a second one in q's
        parameters is refused.

    Arguments and result as for `arm`.

    Raises:
        TypeError: a latent is continuous.
        ValueError: as for `arm`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> def estimate(logits):  # the expected cost of three categories
        ...     q, costs = vj.OneHotCategorical(logits), jnp.array([1.0, 2.0, 6.0])
        ...     return vj.categorical_disarm(lambda k, q: (costs * k).sum(), q, jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(jnp.zeros(3))
        >>> print(f"{value:.1f}, gradient", [f"{g:.1f}" for g in gradient])  # exactly (cost - 3) / 3
        3.0, gradient ['-0.7', '-0.3', '1.0']

    Reference: Dong, Mnih & Tucker (2021), section 3.
    """
    latents = discrete_latents(q, num_samples)
    num_pairs = _num_pairs(num_samples)
    sticks = [_Sticks(_stick_logits(latent)) for latent in latents]
    pairs = _pairs(sticks, key, num_pairs)
    first = [_first_success(pair.bits) for pair in pairs]
    antithetic_first = [_first_success(pair.antithetic) for pair in pairs]
    samples = [
        latent.outcome(_outcome_number(latent, jnp.concatenate(both)))
        for latent, *both in zip(latents, first, antithetic_first, strict=True)
    ]
    coefficients = [
        _disarm_coefficient(stick.logits, pair) * _reached(pair, jnp.maximum(one, other))
        for stick, pair, one, other in zip(sticks, pairs, first, antithetic_first, strict=True)
    ]
    return _paired(objective, q, samples, sticks, coefficients)


class _Sticks(NamedTuple):
    """Independent Bernoulli variables that a categorical is made of."""

    logits: Float[Array, "... sticks"]


class _Pair(NamedTuple):
    """P pairs of antithetic samples of Bernoulli variables, and the uniform noise of both."""

    uniform: Float[Array, "P ..."]
    bits: Bool[Array, "P ..."]
    antithetic: Bool[Array, "P ..."]


def _arm_coefficient(logits: Float[Array, "..."], pair: _Pair) -> Float[Array, "P ..."]:
    return pair.uniform - 0.5


def _disarm_coefficient(logits: Float[Array, "..."], pair: _Pair) -> Float[Array, "P ..."]:
    sign = pair.bits.astype(logits.dtype) - pair.antithetic.astype(logits.dtype)
    return 0.5 * sign * jax.nn.sigmoid(jnp.abs(logits))[None]


def _over_bernoulli_pairs(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    coefficient: Callable[[Float[Array, "..."], _Pair], Float[Array, "P ..."]],
) -> Scalar:
    latents = bernoulli_latents(q, num_samples)
    num_pairs = _num_pairs(num_samples)
    pairs = _pairs(latents, key, num_pairs)
    samples = [
        latent.outcome(jnp.concatenate([pair.bits, pair.antithetic]).astype(int))
        for latent, pair in zip(latents, pairs, strict=True)
    ]
    coefficients = [coefficient(latent.logits, pair) for latent, pair in zip(latents, pairs, strict=True)]
    return _paired(objective, q, samples, latents, coefficients)


def _num_pairs(num_samples: int) -> int:
    if isinstance(num_samples, int) and (num_samples < 2 or num_samples % 2):
        raise ValueError(f"num_samples must be even and at least 2, for antithetic pairs, got {num_samples}: change it")
    return num_samples // 2


def _pairs(variables: Sequence[Any], key: PRNGKey, num_pairs: int) -> list[_Pair]:
    keys = jax.random.split(key, len(variables))
    return [_pair(variable.logits, one, num_pairs) for variable, one in zip(variables, keys, strict=True)]


def _pair(logits: Float[Array, "..."], key: PRNGKey, num_pairs: int) -> _Pair:
    uniform = jax.random.uniform(key, (num_pairs, *logits.shape), logits.dtype)
    return _Pair(uniform, uniform > jax.nn.sigmoid(-logits)[None], uniform < jax.nn.sigmoid(logits)[None])


def _paired(
    objective: Objective,
    q: Distributions,
    samples: list[Array],
    variables: Sequence[Any],
    coefficients: list[Float[Array, "P ..."]],
) -> Scalar:
    """The mean over all samples, the pairs' first halves before their second, with the gradients in the logits."""
    values = values_at(objective, distributions.unflatten(q, samples), distributions.without_gradient(q))
    one, other = jnp.split(lax.stop_gradient(values), 2)
    gradients = [times_each(one - other, coefficient).mean(axis=0) for coefficient in coefficients]
    return with_logit_gradients(values.mean(), list(variables), gradients)


def _stick_logits(latent: DiscreteLatent) -> Float[Array, "... sticks"]:
    if isinstance(latent, BernoulliLatent):
        return latent.logits[..., None]
    tail = lax.cumlogsumexp(latent.logits, axis=latent.logits.ndim - 1, reverse=True)
    return latent.logits[..., :-1] - tail[..., 1:]


def _first_success(bits: Bool[Array, "P ... sticks"]) -> Int[Array, "P ..."]:
    """The number of the first stick that is true, or the number of sticks."""
    return jnp.concatenate([bits, jnp.ones_like(bits[..., :1])], axis=-1).argmax(axis=-1)


def _outcome_number(latent: DiscreteLatent, first: Int[Array, "S ..."]) -> Int[Array, "S ..."]:
    return 1 - first if isinstance(latent, BernoulliLatent) else first


def _reached(pair: _Pair, last: Int[Array, "P ..."]) -> Bool[Array, "P ... sticks"]:
    return lax.broadcasted_iota(last.dtype, pair.bits.shape, pair.bits.ndim - 1) <= last[..., None]
