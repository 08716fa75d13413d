"""The score-function estimator (REINFORCE) with a baseline, optimal for each parameter, or a moving average."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.estimators.baselines import MovingAverage, moving_average, no_baseline, update_moving_average
from vae_jax.estimators.gradient_terms import density_ratio, finite_parameter, gradient_term, held_at_first, scored
from vae_jax.estimators.moving_supports import fixed_support
from vae_jax.estimators.objective_values import times_each, values_at
from vae_jax.typing import Baseline, Distributions, Latents, Objective, PRNGKey, Scalar


def score_function(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    baseline: Baseline = no_baseline,
) -> Scalar:
    """The score-function estimator (REINFORCE, likelihood ratio).

    Approximates: d/dtheta E_q[f(z)] by the mean of (f(z) - baseline) d log q(z; theta)/dtheta, plus the mean of df for
        whatever else the objective closes over.
    Needs: a density differentiable in its parameters, which do not move its support. The objective need not be
        differentiable.
    Biased: no, as long as no sample's baseline depends on that sample. Derivatives of any order are correct.

    Args:
        objective: a function of one sample and `q` that returns a scalar; it sees both with no gradient attached.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, the number of samples that are averaged.
        baseline: a function of the values [S] that returns the baseline of each, [S] or a scalar: `no_baseline`,
            `leave_one_out`, or a function of yours, such as one that ignores its argument and returns a prediction from
            the input.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Raises:
        TypeError: a leaf of `q` is not a distribution; or, when it is differentiated, a parameter that the support
            moves with.
        ValueError: no samples, a batch shape, an objective that is not scalar, or one that the baseline refuses.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def probability(loc):  # P(z > 0), whose gradient is the density of z at zero
        ...     def is_positive(z, q):  # a step, which no pathwise estimator can differentiate
        ...         return jnp.where(z > 0, 1.0, 0.0)
        ...     q, key = dist.Normal(loc, 1.0), jax.random.key(0)
        ...     return vj.score_function(is_positive, q, key, 10_000, baseline=vj.leave_one_out)
        >>> value, gradient = jax.jit(jax.value_and_grad(probability))(0.0)
        >>> print(f"{value:.2f}, gradient {gradient:.2f}")
        0.50, gradient 0.40

    Reference: Williams (1992), section 4; Mohamed, Rosca, Figurnov & Mnih (2020), section 4.
    """
    samples = distributions.sample(q, key, num_samples)
    values = values_at(objective, samples, held_at_first(q))
    log_densities = distributions.log_probs(q, samples) + fixed_support(q)
    baselines = lax.stop_gradient(jnp.asarray(baseline(lax.stop_gradient(values))))
    if baselines.shape not in ((), values.shape):
        raise ValueError(f"baseline must return a scalar or shape {values.shape}, got shape {baselines.shape}")
    return scored(values, jnp.broadcast_to(baselines, values.shape), log_densities).mean()


MOST_FOLDS = 16
"""Folds of samples: more would cost as many sums again for a coefficient that is hardly better."""


def optimal_score(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The score-function estimator with the optimal coefficient of the score for each parameter.

    That multiple of the score is subtracted whose coefficient is the regression of f s on s, c = E[f s^2] / E[s^2].
    The parameters of a distribution that are not free, such as probabilities, which sum to one, share a coefficient.
    The samples are in 16 folds, or in S of one each, and the samples of the other folds estimate a fold's coefficient.
    The variance tends to that of the best constant baseline as S grows. A coefficient from few samples is noisy, more
    so where the score has heavy tails: at S = 4 the variance may exceed that of no baseline. Compare with
    `leave_one_out`.

    Approximates: d/dtheta E_q[f(z)] by the mean of (f(z_i) - c_i) s_i for each element theta of q's own parameters,
        with c_i the sum of f_j s_j^2 over that of s_j^2, both over the folds without i; plus the mean of df for
        whatever else the objective closes over.
    Needs: a density differentiable in its parameters, which do not move its support; at least 2 samples; memory for S
        scores. The objective need not be differentiable.
    Biased: no. Derivatives of any order are correct.

    Args:
        objective: a function of one sample and `q` that returns a scalar; it sees both with no gradient attached.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, the number of samples that are averaged, drawn independently.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Raises:
        TypeError: a leaf of `q` is not a distribution; or, when it is differentiated, a parameter that the support
            moves with.
        ValueError: fewer than 2 samples, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(loc):  # E[z^2] = loc^2 + 1
        ...     return vj.optimal_score(lambda z, q: z**2, dist.Normal(loc, 1.0), jax.random.key(0), 100_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.3)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.7, gradient 2.6

    Reference: Paisley, Blei & Jordan (2012); Ranganath, Gerrish & Blei (2014), section 3.2, where the samples
        share one coefficient, which biases it.
    """
    if num_samples == 1:
        raise ValueError("optimal_score needs at least 2 samples, got 1: raise num_samples, or use score_function")
    samples = distributions.sample(q, key, num_samples)
    values = values_at(objective, samples, held_at_first(q))
    # The gradient is computed from the scores here, so that the densities themselves count from the second on.
    held = held_at_first(q, until=values)
    ratios = density_ratio(distributions.log_probs(held, samples) + fixed_support(q))
    scores = [times_each(ratios, score) for score in _scores(held, samples)]
    weights = _weights(q, lax.stop_gradient(scores))
    parameters = [finite_parameter(jnp.asarray(leaf)) for leaf in _floating(jax.tree.leaves(q))]
    terms = [
        gradient_term(_controlled(values, score, weight), parameter).sum()
        for parameter, score, weight in zip(parameters, scores, weights, strict=True)
    ]
    return (ratios * values).mean() + sum(terms)


def moving_average_score(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    state: MovingAverage,
    decay: float = 0.9,
) -> tuple[Scalar, MovingAverage]:
    """The score-function estimator with a moving average of earlier batches as its baseline.

    A training step differentiates it with `has_aux=True` and carries the state on.

    Approximates, Needs, Biased: as for `score_function`; the state must come from earlier keys.

    Args:
        objective, q, key, num_samples: as for `score_function`.
        state: the moving average before this batch, from `init_moving_average` or from the step before.
        decay: the share of the past that is kept, as for `update_moving_average`.

    Returns:
        The mean of the objective, whose gradient is the estimate, and the new state.

    Raises:
        TypeError, ValueError: as `score_function` and `update_moving_average`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> from vae_jax.estimators import init_moving_average
        >>> def estimate(loc, state, key):
        ...     return vj.moving_average_score(lambda z, q: z**2, dist.Normal(loc, 1.0), key, 5000, state=state)
        >>> step, state = jax.jit(jax.grad(estimate, has_aux=True)), init_moving_average()
        >>> for key in jax.random.split(jax.random.key(0), 2):
        ...     gradient, state = step(1.2, state, key)  # the second gradient has a baseline of about E[z^2]
        >>> print(f"{gradient:.1f}, baseline {vj.moving_average(state)(None):.1f}")
        2.4, baseline 2.4

    Reference: Williams (1992).
    """
    estimate = score_function(objective, q, key, num_samples, baseline=moving_average(state))
    return estimate, update_moving_average(state, estimate, decay=decay)


def _scores(q: Distributions, samples: Latents) -> list[Array]:
    """The density's derivatives by each floating-point parameter of q at the samples, [S, *parameter]."""
    leaves, structure = jax.tree.flatten(q)
    places = [place for place, leaf in enumerate(leaves) if _is_floating(leaf)]

    def log_density(held: list[Array], sample: Latents) -> Scalar:
        rebuilt = list(leaves)
        for place, parameter in zip(places, held, strict=True):
            rebuilt[place] = parameter
        return distributions.log_prob(jax.tree.unflatten(structure, rebuilt), sample)

    parameters = [jnp.asarray(leaves[place]) for place in places]
    return jax.vmap(jax.grad(log_density), in_axes=(None, 0))(parameters, samples)


def _floating(leaves: list[Any]) -> list[Any]:
    return [leaf for leaf in leaves if _is_floating(leaf)]


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _weights(q: Distributions, scores: list[Array]) -> list[Array]:
    """The weights of the regression at the samples, [S, *parameter], or [S, 1, ...] where one coefficient serves all.

    The score of a parameter that is not free has another mean than zero. What its multiples sum to, along the ways that
    the parameters can move together, is zero if all have the same coefficient.
    """
    weights: list[Array] = []
    for leaf in jax.tree.leaves(q, is_leaf=distributions.is_distribution):
        own = scores[len(weights) : len(weights) + len(_floating(jax.tree.leaves(leaf)))]
        squares = [score**2 for score in own]
        if not distributions.has_free_parameters(leaf):
            total = sum(square.reshape(len(square), -1).sum(1) for square in squares)
            squares = [jnp.reshape(total, (-1, *[1] * (score.ndim - 1))) for score in own]
        weights += squares
    return weights


def _controlled(
    values: Float[Array, " S"], scores: Float[Array, "S ..."], weights: Float[Array, "S ..."]
) -> Float[Array, "..."]:
    """The mean of (f_i - c_i) s_i, the coefficient of a fold of samples regressed on those of the other folds."""
    chex.assert_equal_shape_prefix([values, scores, weights], 1)
    num_folds = min(len(values), MOST_FOLDS)
    scores_by_fold = _in_folds(scores, num_folds)
    values_by_fold = _in_folds(values, num_folds).reshape(*scores_by_fold.shape[:2], *[1] * (scores.ndim - 1))
    squares = _in_folds(weights, num_folds)
    weights = _sum_of_others(squares.sum(axis=1))
    # A parameter that the density does not depend on has no score, and any coefficient will do.
    products = _sum_of_others((lax.stop_gradient(values_by_fold) * squares).sum(axis=1))
    coefficients = products / jnp.where(weights > 0, weights, 1)
    return ((values_by_fold - coefficients[:, None]) * scores_by_fold).sum(axis=(0, 1)) / len(values)


def _in_folds(terms: Float[Array, "S ..."], num_folds: int) -> Float[Array, "F n ..."]:
    """The terms in folds of one size, zeros after the last."""
    padding = [(0, -len(terms) % num_folds), *[(0, 0)] * (terms.ndim - 1)]
    return jnp.pad(terms, padding).reshape(num_folds, -1, *terms.shape[1:])


def _sum_of_others(sums: Float[Array, "F ..."]) -> Float[Array, "F ..."]:
    # Not the total less a fold's own sum, whose rounding would let a large term into its own coefficient.
    own = jnp.eye(len(sums), dtype=bool).reshape(len(sums), len(sums), *[1] * (sums.ndim - 1))
    return jnp.where(own, 0, sums[None]).sum(axis=1)
