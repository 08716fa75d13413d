"""Weak derivatives of distributions: pairs of densities whose difference is a density's derivative."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int, Num

from vae_jax import distributions
from vae_jax.distributions import OneHotCategorical
from vae_jax.typing import Distributions, PRNGKey


class WeakDerivative(NamedTuple):
    """The derivative of independent coordinates' distributions by the P elements of one parameter."""

    parameter: Float[Array, " P"]
    constant: Float[Array, " P"]
    positive: Num[Array, "S P ..."]
    """Draws of the coordinate that each element belongs to."""
    negative: Num[Array, "S P ..."]
    coordinate: Int[np.ndarray, " P"]
    """The number of that coordinate."""


class SideDraws(NamedTuple):
    """Draws under which the two sides of a derivative are independent, or those that couple them."""

    normal: Callable[[PRNGKey, tuple[int, ...]], tuple[Array, Array, Array, Array]]
    """Distances from loc, in scales: upwards and downwards for loc; double-sided Maxwell and normal for scale."""
    gammas: Callable[[PRNGKey, Array], tuple[Array, Array]]
    """Gamma(a, 1) and Gamma(a + 1, 1), of concentrations [S, D]."""
    poisson: Callable[[PRNGKey, Array], tuple[Array, Array]]
    """Two Poisson counts, of rates [S, D]."""


def _independent_normal(key: PRNGKey, shape: tuple[int, ...]) -> tuple[Array, Array, Array, Array]:
    up_key, down_key, sided_key, normal_key = jax.random.split(key, 4)
    normal = jax.random.normal(normal_key, shape)
    return _rayleigh(up_key, shape), _rayleigh(down_key, shape), _double_sided_maxwell(sided_key, shape), normal


def _coupled_normal(key: PRNGKey, shape: tuple[int, ...]) -> tuple[Array, Array, Array, Array]:
    distance_key, sided_key, share_key = jax.random.split(key, 3)
    distance = _rayleigh(distance_key, shape)
    sided = _double_sided_maxwell(sided_key, shape)
    # A double-sided Maxwell variable times a uniform one is normal.
    return distance, distance, sided, sided * jax.random.uniform(share_key, shape)


def _independent_gammas(key: PRNGKey, concentration: Array) -> tuple[Array, Array]:
    one_key, other_key = jax.random.split(key)
    return jax.random.gamma(one_key, concentration), jax.random.gamma(other_key, concentration + 1)


def _coupled_gammas(key: PRNGKey, concentration: Array) -> tuple[Array, Array]:
    gamma_key, step_key = jax.random.split(key)
    gamma = jax.random.gamma(gamma_key, concentration)
    return gamma, gamma + jax.random.exponential(step_key, concentration.shape)


def _independent_counts(key: PRNGKey, rate: Array) -> tuple[Array, Array]:
    one_key, other_key = jax.random.split(key)
    return jax.random.poisson(one_key, rate), jax.random.poisson(other_key, rate)


def _coupled_counts(key: PRNGKey, rate: Array) -> tuple[Array, Array]:
    count = jax.random.poisson(key, rate)
    return count, count


INDEPENDENT = SideDraws(_independent_normal, _independent_gammas, _independent_counts)


COUPLED = SideDraws(_coupled_normal, _coupled_gammas, _coupled_counts)


def weak_derivatives(
    draws: SideDraws, q: Distributions, key: PRNGKey, num_samples: int
) -> Iterator[tuple[int, WeakDerivative]]:
    """The derivatives by every parameter of every leaf, with the number of the leaf."""
    leaves = distributions.named_leaves(q)
    for number, ((name, leaf), leaf_key) in enumerate(zip(leaves, jax.random.split(key, len(leaves)), strict=True)):
        family, batch_shape = _family(leaf)
        if type(family) not in DECOMPOSITIONS:
            raise TypeError(
                f"{name} must be Normal, Gamma, Exponential, Poisson, Bernoulli or categorical to have a known "
                f"measure-valued derivative, got {type(family).__name__}: use score_function instead"
            )
        decompose = DECOMPOSITIONS[type(family)]
        for derivative in decompose(name, family, batch_shape, draws, leaf_key, num_samples):
            yield number, derivative


def _family(leaf: Any) -> tuple[Any, tuple[int, ...]]:
    """The distribution of one coordinate and the shape of the coordinates, of a vector of independent ones."""
    # A joint distribution of a pytree has no event shape, and is refused by name later.
    shape = getattr(leaf, "event_shape", ())
    family = distributions.base_distribution(leaf)
    return family, shape[: len(shape) - len(getattr(family, "event_shape", ()))]


def _flat(parameter: Any, batch_shape: tuple[int, ...]) -> Float[Array, " D"]:
    return jnp.broadcast_to(parameter, batch_shape).reshape(-1)


def _floats(parameter: Any) -> Array:
    return jnp.asarray(parameter, jnp.result_type(parameter, float))


def _of_normal(
    name: str, family: Any, batch_shape: tuple[int, ...], draws: SideDraws, key: PRNGKey, num_samples: int
) -> list[WeakDerivative]:
    """Loc: Rayleigh steps up and down. Scale: a double-sided Maxwell step, and the normal one itself."""
    loc, scale = _flat(family.loc, batch_shape), _flat(family.scale, batch_shape)
    up, down, sided, normal = (scale[None] * step for step in draws.normal(key, (num_samples, loc.size)))
    coordinate, centre = np.arange(loc.size), loc[None]
    return [
        WeakDerivative(loc, 1 / (scale * math.sqrt(2 * math.pi)), centre + up, centre - down, coordinate),
        WeakDerivative(scale, 1 / scale, centre + sided, centre + normal, coordinate),
    ]


def _of_gamma(
    name: str, family: Any, batch_shape: tuple[int, ...], draws: SideDraws, key: PRNGKey, num_samples: int
) -> list[WeakDerivative]:
    """Rate: the Gamma itself, and the one whose concentration is greater by one."""
    concentration, rate = _flat(family.concentration, batch_shape), _flat(family.rate, batch_shape)
    # Zero, for a derivative by the concentration to meet the refusal: the rate is all of it that is differentiated.
    rate = rate + 0 * _without_derivative(name, concentration)
    concentration = lax.stop_gradient(concentration)
    positive, negative = draws.gammas(key, jnp.broadcast_to(concentration, (num_samples, concentration.size)))
    return [_by_rate(rate, concentration / rate, positive, negative)]


def _of_exponential(
    name: str, family: Any, batch_shape: tuple[int, ...], draws: SideDraws, key: PRNGKey, num_samples: int
) -> list[WeakDerivative]:
    """Rate: the exponential itself, and the sum of two, as of a Gamma with a concentration of one."""
    rate = _flat(family.rate, batch_shape)
    positive, negative = draws.gammas(key, jnp.ones((num_samples, rate.size), rate.dtype))
    return [_by_rate(rate, 1 / rate, positive, negative)]


def _by_rate(rate: Array, constant: Array, positive: Array, negative: Array) -> WeakDerivative:
    return WeakDerivative(rate, constant, positive / rate[None], negative / rate[None], np.arange(rate.size))


def _of_poisson(
    name: str, family: Any, batch_shape: tuple[int, ...], draws: SideDraws, key: PRNGKey, num_samples: int
) -> list[WeakDerivative]:
    """Rate: one more than the count, and the count."""
    rate = _flat(family.rate, batch_shape)
    more, count = draws.poisson(key, jnp.broadcast_to(rate, (num_samples, rate.size)))
    return [WeakDerivative(rate, jnp.ones_like(rate), more + 1, count, np.arange(rate.size))]


def _of_bernoulli(
    name: str, family: Any, batch_shape: tuple[int, ...], draws: SideDraws, key: PRNGKey, num_samples: int
) -> list[WeakDerivative]:
    """Logit or probability: the outcome 1, and the outcome 0. Neither is random."""
    del draws, key
    if isinstance(family, dist.BernoulliProbs):
        parameter = _flat(_floats(family.probs), batch_shape)
        # A logit would have no derivative at a probability of 0 or 1.
        constant = jnp.ones_like(parameter)
    else:
        parameter = _flat(family.logits, batch_shape)
        probability = jax.nn.sigmoid(parameter)
        constant = probability * (1 - probability)
    ones = jnp.ones((num_samples, parameter.size), jnp.int32)
    return [WeakDerivative(parameter, constant, ones, 0 * ones, np.arange(parameter.size))]


def _of_categorical(
    name: str, family: Any, batch_shape: tuple[int, ...], draws: SideDraws, key: PRNGKey, num_samples: int
) -> list[WeakDerivative]:
    """Each logit or probability: its outcome, and a draw of the distribution itself."""
    del draws
    logits = jnp.broadcast_to(family.logits, (*batch_shape, family.logits.shape[-1]))
    num_outcomes = logits.shape[-1]
    logits = logits.reshape(-1, num_outcomes)
    outcomes = jnp.tile(jnp.arange(num_outcomes), len(logits))
    coordinate = np.repeat(np.arange(len(logits)), num_outcomes)
    positive = jnp.broadcast_to(outcomes, (num_samples, outcomes.size))
    negative = jax.random.categorical(key, logits, shape=(num_samples, len(logits)))[:, coordinate]
    if isinstance(family, OneHotCategorical):
        positive, negative = (jax.nn.one_hot(side, num_outcomes) for side in (positive, negative))
    parameter, constant = logits, jax.nn.softmax(logits)
    if isinstance(family, dist.CategoricalProbs):
        parameter = jnp.broadcast_to(_floats(family.probs), (*batch_shape, num_outcomes)).reshape(-1, num_outcomes)
        constant = jnp.broadcast_to(1 / parameter.sum(axis=1, keepdims=True), parameter.shape)
    return [WeakDerivative(parameter.reshape(-1), constant.reshape(-1), positive, negative, coordinate)]


DECOMPOSITIONS: dict[type, Callable[..., list[WeakDerivative]]] = {
    dist.Normal: _of_normal,
    dist.Gamma: _of_gamma,
    dist.Exponential: _of_exponential,
    dist.Poisson: _of_poisson,
    dist.BernoulliLogits: _of_bernoulli,
    dist.BernoulliProbs: _of_bernoulli,
    dist.CategoricalLogits: _of_categorical,
    dist.CategoricalProbs: _of_categorical,
    OneHotCategorical: _of_categorical,
}
"""The derivatives by every parameter of a family, from the distribution of one coordinate."""


def _rayleigh(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Density r exp(-r^2 / 2) for r > 0."""
    return jnp.sqrt(2 * jax.random.exponential(key, shape))


def _double_sided_maxwell(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Density z^2 exp(-z^2 / 2) / sqrt(2 pi)."""
    length_key, sign_key = jax.random.split(key)
    # The length of a normal vector in three dimensions.
    length = jnp.sqrt(2 * jax.random.gamma(length_key, 1.5, shape))
    return length * jax.random.rademacher(sign_key, shape, length.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _without_derivative(name: str, concentration: Array) -> Array:
    """The identity, whose derivative is refused: a silent zero would be wrong."""
    return concentration


@partial(_without_derivative.defjvp, symbolic_zeros=True)
def _refuse_derivative(name: str, primals: Any, tangents: Any) -> Any:
    if not isinstance(tangents[0], SymbolicZero):
        raise TypeError(
            f"the concentration of {name}, a Gamma, has no known measure-valued derivative, got a gradient by it: use "
            "pathwise or score_function"
        )
    return primals[0], jnp.zeros_like(primals[0])
