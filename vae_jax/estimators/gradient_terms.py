"""Gradients of an estimator's own: what they are made of, and what becomes of them in derivatives of a higher order.

A gradient estimate is a function of the parameters too. Where its mean is the gradient at every value of the parameters
near those that were sampled from, the estimate's own derivatives are unbiased estimates of higher order.

- Under a score function the samples stay where they are. So what is averaged is multiplied by `density_ratio`, which is
  one, and whose derivatives account for the samples' density.
- Where the gradient leaves out a part of mean zero, such as the score in sticking the landing, that part is left out
  of the first derivative alone: `held_at_first`.
- Where paths are slowed, they are so in the first derivative alone: `slowed_at_first`.
- A gradient that is computed apart from the value is handed on with derivatives of its own: `gradient_term`.
- An estimate that is made of coupled or relaxed discrete samples is right at the sampled parameters alone. Its
  derivative is refused: `with_first_derivative`.

Reference: Foerster, Farquhar, Al-Shedivat, Rocktaeschel, Xing & Whiteson (2018), section 3, for the density ratio.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from vae_jax.estimators.objective_values import times_each

Tree = TypeVar("Tree")


def derivative_of(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Zero in value, with the derivative of `x`."""
    return x - lax.stop_gradient(x)


@jax.custom_jvp
def density_ratio(log_density: Float[Array, "..."]) -> Float[Array, "..."]:
    """exp(x - stop_gradient(x)) of a log density x (nats): one in value, with derivatives of every order."""
    # A constant, which costs nothing in a first derivative.
    return jnp.ones_like(log_density)


@density_ratio.defjvp
def _density_ratio_jvp(primals: Any, tangents: Any) -> Any:
    ratio = density_ratio(primals[0])
    return ratio, ratio * tangents[0]


@jax.custom_jvp
def scored(
    values: Float[Array, " S"], baselines: Float[Array, " S"], log_densities: Float[Array, " S"]
) -> Float[Array, " S"]:
    """The values at samples, whose derivatives of every order account for the samples' density.

    They are those of values + (values - baselines) (r - 1), where r is the density ratio.

    Args:
        values: differentiable in everything but the samples.
        baselines: held fixed, each independent of its sample.
        log_densities: of the samples (nats). An infinite one, of a sample that q cannot have drawn, surfaces as NaN.
    """
    return values + (values - baselines) * (log_densities - log_densities)


@scored.defjvp
def _scored_jvp(primals: Any, tangents: Any) -> Any:
    values, baselines, log_densities = primals
    by_density = ((values - baselines) * tangents[2]).astype(values.dtype)
    ratios = density_ratio(log_densities).astype(values.dtype)
    return scored(*primals), ratios * (tangents[0] + by_density)


def held_at_first(tree: Tree, *, until: Any = ()) -> Tree:
    """The same arrays, which get no gradient in the first derivative and their own in every later one.

    Args:
        tree: the arrays. Whichever of them is differentiated first, all are differentiable from then on.
        until: arrays that are no part of the result and whose derivative counts as the first one too.
    """
    leaves, structure = jax.tree.flatten(tree)
    floating = [number for number, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    held = _held_at_first([jnp.asarray(leaves[number]) for number in floating], until)
    for number, array in zip(floating, held, strict=True):
        leaves[number] = array
    return jax.tree.unflatten(structure, leaves)


@jax.custom_jvp
def _held_at_first(arrays: list[Array], until: Any) -> list[Array]:
    return arrays


@partial(_held_at_first.defjvp, symbolic_zeros=True)
def _held_at_first_jvp(primals: Any, tangents: Any) -> Any:
    del tangents
    # No array of zeros: the derivative of what follows is not computed.
    return primals[0], [SymbolicZero(jax.typeof(array).to_tangent_aval()) for array in primals[0]]


@jax.custom_jvp
def slowed_at_first(factors: Float[Array, " S"], samples: Tree, until: Any) -> Tree:
    """The same samples [S, ...], each one's first derivative multiplied by its factor and every later one its own.

    Args:
        factors: they count from the second derivative on.
        samples: whichever array is differentiated first, all are differentiable as they are from then on.
        until: arrays that are no part of the result and whose derivative counts as the first one too.
    """
    return samples


@partial(slowed_at_first.defjvp, symbolic_zeros=True)
def _slowed_at_first_jvp(primals: Any, tangents: Any) -> Any:
    factors, samples, _ = primals

    def slowed(tangent: Any) -> Any:
        return tangent if isinstance(tangent, SymbolicZero) else times_each(factors, tangent)

    return samples, jax.tree.map(slowed, tangents[1], is_leaf=lambda tangent: isinstance(tangent, SymbolicZero))


@jax.custom_jvp
def gradient_term(coefficient: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Zero in value; its derivative is `coefficient` times that of `x`, element by element.

    The coefficient's own derivative counts from the second derivative on, so that it must be the gradient as a function
    of the parameters.
    """
    # Broadcasting would multiply sums together that belong apart.
    chex.assert_equal_shape([coefficient, x])
    return jnp.zeros_like(x)


@gradient_term.defjvp
def _gradient_term_jvp(primals: Any, tangents: Any) -> Any:
    coefficient, x = primals
    return gradient_term(coefficient, x), (coefficient * tangents[1]).astype(x.dtype)


def finite_parameter(parameter: Float[Array, "..."]) -> Float[Array, "..."]:
    """A parameter that gets no gradient where it is infinite, as the logit of an impossible outcome is.

    An infinite log q(z), of a sample that q cannot have drawn, must go on to surface as NaN.
    """
    return jnp.where(jnp.isinf(parameter), 0, parameter)


def with_first_derivative(
    value: Float[Array, ""],
    coefficients: Sequence[Float[Array, "..."]],
    parameters: Sequence[Float[Array, "..."]],
) -> Float[Array, ""]:
    """`value`, with coefficients times the derivatives of parameters added to its derivative, at first order only.

    A second derivative raises TypeError if one of its two is by the parameters. Twice in anything else the value is
    differentiable.

    Args:
        value: a scalar.
        coefficients: held fixed, each of its parameter's shape.
        parameters: differentiable functions of q's parameters. Infinite ones get no gradient.
    """
    for coefficient, parameter in zip(coefficients, parameters, strict=True):
        chex.assert_equal_shape([coefficient, parameter])
    finite = [finite_parameter(parameter) for parameter in parameters]
    return _with_first_derivative(value, lax.stop_gradient(list(coefficients)), finite)


@jax.custom_jvp
def _with_first_derivative(value: Array, coefficients: list[Array], parameters: list[Array]) -> Array:
    return value


@partial(_with_first_derivative.defjvp, symbolic_zeros=True)
def _with_first_derivative_jvp(primals: Any, tangents: Any) -> Any:
    value, coefficients, parameters = primals
    value_tangent, _, parameter_tangents = tangents
    tangent = jnp.zeros_like(value)
    if not isinstance(value_tangent, SymbolicZero):
        tangent = value_tangent * differentiable_once(value.dtype, parameters)
    for coefficient, parameter_tangent in zip(coefficients, parameter_tangents, strict=True):
        if not isinstance(parameter_tangent, SymbolicZero):
            term = (coefficient * parameter_tangent).sum().astype(value.dtype)
            tangent += term * differentiable_once(value.dtype, [value, *parameters])
    return value, tangent


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def differentiable_once(dtype: Any, arrays: Any) -> Float[Array, ""]:
    """One, as a factor of a first derivative. To differentiate it by the arrays again raises TypeError."""
    return jnp.ones((), dtype)


@differentiable_once.defjvp
def _refuse_derivative(dtype: Any, primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "this gradient estimator must be differentiated once, got a second derivative, for which it has no estimate: "
        "use pathwise, score_function or enumeration"
    )
