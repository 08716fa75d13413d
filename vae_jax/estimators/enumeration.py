"""Enumeration and Rao-Blackwellization: sums over the outcomes of discrete latents instead of samples."""

import math
import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vae_jax import distributions
from vae_jax.distributions import is_distribution
from vae_jax.estimators.discrete_latents import DiscreteLatent, discrete_latents, is_discrete_latent
from vae_jax.estimators.objective_values import values_at
from vae_jax.estimators.score_function import score_function
from vae_jax.typing import Distributions, Estimator, Latents, Objective, PRNGKey, Scalar

MAX_OUTCOMES = 2**16
"""Joint outcomes that are enumerated at most: the objective is evaluated at all of them at once."""


def enumeration(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The exact expectation: the sum over all joint outcomes of discrete latents.

    Approximates: nothing. Value and gradient are exact, with no variance.
    Needs: Bernoulli, Categorical or OneHotCategorical latents with at most 2^16 joint outcomes.
    Biased: no. Derivatives of any order are correct.

    Args:
        objective: a function of one sample and `q` that returns a scalar. It sees `q` itself and may use it in any way:
            the whole sum is differentiated.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key, num_samples: not used.

    Returns:
        The expectation.

    Raises:
        TypeError: a latent is continuous.
        ValueError: too many outcomes, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def cost(logits):  # of 3 fair coins: (their sum)^2
        ...     q = dist.Bernoulli(logits=logits).to_event(1)
        ...     return vj.enumeration(lambda b, q: b.sum() ** 2.0, q, jax.random.key(0), 1)
        >>> value, gradient = jax.jit(jax.value_and_grad(cost))(jnp.zeros(3))
        >>> print(f"{value:.2f}, gradient", [f"{g:.2f}" for g in gradient])  # variance 3/4, and mean 3/2 squared
        3.00, gradient ['0.75', '0.75', '0.75']
    """
    return _expectation(objective, q, num_samples)


def rao_blackwellized(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    over: Sequence[str] | None = None,
    estimator: Estimator = score_function,
) -> Scalar:
    """Enumerates some discrete latents and leaves the others to another estimator.

    Approximates: the gradient of E_rest[sum_z q(z) f(z, rest)], exact in the inner sum, as `estimator` does in the
        outer expectation.
    Needs: enumerated latents that are Bernoulli, Categorical or OneHotCategorical; the others as `estimator` needs.
    Biased: if `estimator` is.

    Args:
        objective: a function of one sample and `q` that returns a scalar. It sees the enumerated part of `q` itself and
            the rest as `estimator` hands it on.
        q: a dict of independent distributions; with `over=None` any pytree of them.
        key: consumed by `estimator`.
        num_samples: samples of the latents that are not enumerated.
        over: the keys of the latents that are enumerated. By default this is the first discrete one of several latents.
            Where there is a single latent, it is the first entry along its first axis.
        estimator: the estimator for the other latents. It is not used where all are enumerated.

    Returns:
        The mean of the conditional expectation, whose gradient is the estimate.

    Raises:
        TypeError: an enumerated latent is continuous, or no latent is discrete.
        ValueError: `over` is empty or names what q does not hold, or as `enumeration` and `estimator`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # E[4 b z^2] = 4 sigmoid(logit)
        ...     q = {"b": dist.Bernoulli(logits=logit), "z": dist.Normal(0.0, 1.0)}
        ...     def objective(sample, q):
        ...         return 4.0 * sample["b"] * sample["z"] ** 2
        ...     return vj.rao_blackwellized(objective, q, jax.random.key(0), 10_000, over=["b"])
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.0, gradient 1.0

    Reference: Casella & Robert (1996); Liu, Regier, Tripuraneni, Jordan & McAuliffe (2019), section 3.
    """
    if over is None:
        objective, q, over = _first_apart(objective, q, num_samples)
    else:
        _check_keys(q, over)
    enumerated = {name: q[name] for name in over}
    rest = {name: leaf for name, leaf in q.items() if name not in enumerated}
    if not rest:
        return _expectation(objective, q, num_samples)

    def conditional_expectation(rest_sample: Latents, rest_q: Distributions) -> Scalar:
        return _expectation(lambda z, part: objective(rest_sample | z, rest_q | part), enumerated, num_samples)

    return estimator(conditional_expectation, rest, key, num_samples)


def _expectation(objective: Objective, q: Distributions, num_samples: int) -> Scalar:
    latents = discrete_latents(q, num_samples)
    numbers = _joint_numbers(latents)
    outcomes = [latent.outcome(number) for latent, number in zip(latents, numbers, strict=True)]
    probs = reduce(operator.mul, (latent.prob(number) for latent, number in zip(latents, numbers, strict=True)))
    values = values_at(objective, distributions.unflatten(q, outcomes), q)
    # An outcome without mass adds nothing, though log q there is infinite. Where the objective is finite it counts: the
    # probability of the outcome may have a derivative.
    return (probs * jnp.where((probs > 0) | jnp.isfinite(values), values, 0)).sum()


def _joint_numbers(latents: list[DiscreteLatent]) -> list[Int[Array, "N ..."]]:
    """The outcomes' numbers at every joint outcome, along the first axis of one array for each latent."""
    number = math.prod(latent.num_joint_outcomes for latent in latents)
    if number > MAX_OUTCOMES:
        raise ValueError(
            f"q must have at most {MAX_OUTCOMES:,} joint outcomes to enumerate, got {_count(number)}: use "
            "rao_blackwellized over some latents, or score_function with leave_one_out"
        )
    sizes = [latent.num_outcomes for latent in latents for _ in range(math.prod(latent.shape))]
    digits = np.stack(np.unravel_index(np.arange(number), sizes), axis=1) if sizes else np.zeros((1, 0), int)
    ends = np.cumsum([math.prod(latent.shape) for latent in latents])
    return [
        jnp.asarray(part.reshape(number, *latent.shape))
        for latent, part in zip(latents, np.split(digits, ends[:-1], axis=1), strict=True)
    ]


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"about 2^{number.bit_length() - 1}"


def _check_keys(q: Distributions, over: Sequence[str]) -> None:
    if not isinstance(q, Mapping) or is_distribution(q):
        raise ValueError(f"q must be a dict to enumerate over {list(over)}, got {type(q).__name__}: leave out over")
    missing = [name for name in over if name not in q]
    if missing or not over:
        raise ValueError(f"over must name latents of q, got {missing or 'none'}: choose from {list(q)}")


def _first_apart(
    objective: Objective, q: Distributions, num_samples: int
) -> tuple[Objective, dict[str, Any], Sequence[str]]:
    """The same expectation over a flat dict, with the keys of what is enumerated."""
    leaves = jax.tree.leaves(q, is_leaf=is_distribution)
    first = next((number for number, leaf in enumerate(leaves) if is_discrete_latent(leaf)), None)
    if len(leaves) == 1 or first is None:
        # Refuses what is not discrete, by its name.
        latents = discrete_latents(q, num_samples)
        return _first_entry_apart(objective, q, latents[0])
    names = [str(number) for number in range(len(leaves))]

    def flat_objective(sample: Latents, parts: Distributions) -> Any:
        return objective(
            distributions.unflatten(q, [sample[n] for n in names]),
            distributions.unflatten(q, [parts[n] for n in names]),
        )

    return flat_objective, dict(zip(names, leaves, strict=True)), [names[first]]


def _first_entry_apart(
    objective: Objective, q: Distributions, latent: DiscreteLatent
) -> tuple[Objective, dict[str, Any], Sequence[str]]:
    if math.prod(latent.shape[:1]) == 1:
        return lambda sample, part: objective(sample["first"], part["first"]), {"first": q}, ["first"]
    parts = {"first": latent.first_entry(), "rest": latent.distribution(latent.logits[1:])}

    def entries_objective(sample: Latents, parts: Distributions) -> Any:
        logits = [discrete_latents(parts[name])[0].logits for name in ("first", "rest")]
        whole = latent.distribution(jnp.concatenate(logits))
        value = jnp.concatenate([sample["first"], sample["rest"]])
        return objective(distributions.unflatten(q, [value]), distributions.unflatten(q, [whole]))

    return entries_objective, parts, ["first"]
