"""The way to the mode of a density: Newton's method on all parameters as one vector."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from vae_jax.typing import Matrix, Scalar, Vector

SUFFICIENT = 1e-4
"""Share of the gain that a gradient promises which a step has to make."""

SHORTEST_FRACTION = 2.0**-60
"""The smallest fraction of a Newton step that is tried."""

NUM_PROBES = 4
"""Positions a few units in the last place away, at which rounding is measured."""

LARGEST_ROUNDING = 0.1
"""Standard deviations of the posterior by which rounding may move the mode."""

MANY_BLOCKED = 10
"""Steps in a row that were cut short where the density is not finite: a way to the boundary rather than a detour."""


class NewtonPoint(NamedTuple):
    """A point on the way, and the Newton step from it."""

    position: Vector
    value: Scalar
    gradient: Vector
    hessian: Matrix
    step: Vector
    decrement: Scalar
    """Length of the step in standard deviations of the local Gaussian: Boyd & Vandenberghe (2004), section 9.5.1."""
    value_rounding: Scalar
    """Rounding error of the value (nats)."""
    decrement_rounding: Scalar
    """Length of the step that rounding alone causes, in the units of the decrement."""


class _Trial(NamedTuple):
    """A fraction of a Newton step."""

    fraction: Scalar
    value: Scalar
    is_accepted: Bool[Array, ""]
    is_blocked: Bool[Array, ""]
    """The density was not finite there, or at a larger fraction."""


class NewtonPath(NamedTuple):
    """The way to the mode so far."""

    point: NewtonPoint
    num_steps: Int[Array, ""]
    num_blocked: Int[Array, ""]
    """Blocked steps in a row, up to the last."""
    has_stalled: Bool[Array, ""]
    """The last step was cut short and gained nothing."""


def newton_ascent(
    density: Callable[[Vector], Scalar], first: NewtonPoint, max_steps: Any, tolerance: Any
) -> NewtonPath:
    """Newton steps until one is shorter than the tolerance, or no longer than rounding makes it."""

    def goes_on(climb: NewtonPath) -> Bool[Array, ""]:
        # Without a known curvature the decrement is NaN, and the way ends too.
        is_short = ~(climb.point.decrement > tolerance) | _is_harmless_rounding(climb.point)
        return ~is_short & ~climb.has_stalled & (climb.num_steps < max_steps)

    def advance(climb: NewtonPath) -> NewtonPath:
        point = climb.point
        trial = _search(density, point)
        moved = point.position + trial.fraction * point.step
        gains_nothing = (trial.fraction < 1) & (trial.value <= point.value)
        return NewtonPath(
            point=point_at(density, jnp.where(trial.is_accepted, moved, point.position)),
            num_steps=climb.num_steps + 1,
            num_blocked=jnp.where(trial.is_blocked, climb.num_blocked + 1, 0),
            has_stalled=~trial.is_accepted | gains_nothing,
        )

    zero = jnp.zeros((), int)
    return lax.while_loop(goes_on, advance, NewtonPath(first, zero, zero, jnp.zeros((), bool)))


def has_converged(climb: NewtonPath, tolerance: Any) -> Bool[Array, ""]:
    """Whether the way ends at the mode, as closely as the tolerance or the rounding of the density allows."""
    # A short step that gains nothing can only be one whose gain is below the rounding of the density.
    gains_nothing = climb.has_stalled & (climb.point.decrement <= LARGEST_ROUNDING)
    return (climb.point.decrement <= tolerance) | _is_harmless_rounding(climb.point) | gains_nothing


def _is_harmless_rounding(point: NewtonPoint) -> Bool[Array, ""]:
    """Whether rounding alone may have caused the step, and is small compared with the posterior."""
    return _is_rounding(point) & (point.decrement_rounding <= LARGEST_ROUNDING)


def _is_rounding(point: NewtonPoint) -> Bool[Array, ""]:
    """Whether rounding alone may have caused the step."""
    return point.decrement <= 2 * point.decrement_rounding


def _search(density: Callable[[Vector], Scalar], point: NewtonPoint) -> _Trial:
    """The first of the step, its half, its quarter and so on that rises enough."""
    # Close to the mode a gain is smaller than the rounding of the values that it is the difference of.
    of_size = 8 * jnp.finfo(point.position.dtype).eps * jnp.maximum(jnp.abs(point.value), 1)
    rounding = jnp.maximum(of_size, 4 * point.value_rounding)

    def attempt(fraction: Scalar, was_blocked: Bool[Array, ""]) -> _Trial:
        value = density(point.position + fraction * point.step)
        is_finite = jnp.isfinite(value)
        enough = point.value + SUFFICIENT * fraction * point.decrement**2 - rounding
        return _Trial(fraction, value, is_finite & (value >= enough), was_blocked | ~is_finite)

    return lax.while_loop(
        lambda trial: ~trial.is_accepted & (trial.fraction > SHORTEST_FRACTION),
        lambda trial: attempt(trial.fraction / 2, trial.is_blocked),
        attempt(jnp.ones((), point.position.dtype), jnp.zeros((), bool)),
    )


def point_at(density: Callable[[Vector], Scalar], position: Vector) -> NewtonPoint:
    """The density, its derivatives and the Newton step at a position, with the rounding of both."""
    value, gradient = jax.value_and_grad(density)(position)
    hessian = jax.hessian(density)(position)
    curvature = _local_curvature(position, gradient, hessian)
    value_rounding, decrement_rounding = _measured_rounding(density, position, value, gradient, hessian, curvature)
    return NewtonPoint(
        position=position,
        value=value,
        gradient=gradient,
        hessian=hessian,
        step=curvature.step(gradient),
        decrement=curvature.decrement(gradient),
        value_rounding=value_rounding,
        decrement_rounding=decrement_rounding,
    )


class _Curvature(NamedTuple):
    """A Hessian with the signs of its eigenvalues removed, so that a step along a gradient leads uphill."""

    unit: Vector
    """In these units every parameter's own curvature is one, whatever its unit was."""
    vectors: Matrix
    eigenvalues: Vector
    is_known: Bool[Array, ""]
    """An infinite curvature would otherwise pass for a step of no length."""

    def step(self, gradient: Vector) -> Vector:
        """The step to the mode of a Gaussian with this curvature and gradient."""
        return self.unit * (self.vectors @ ((self.unit * gradient) @ self.vectors / self.eigenvalues))

    def decrement(self, gradient: Vector) -> Scalar:
        """The length of that step in standard deviations."""
        length = jnp.sqrt(jnp.sum(((self.unit * gradient) @ self.vectors) ** 2 / self.eigenvalues))
        return jnp.where(self.is_known, length, jnp.nan)


def _local_curvature(position: Vector, gradient: Vector, hessian: Matrix) -> _Curvature:
    diagonal = jnp.abs(jnp.diagonal(hessian))
    unit = jnp.where(diagonal > 0, lax.rsqrt(diagonal), 1)
    eigenvalues, vectors = jnp.linalg.eigh(hessian * jnp.outer(unit, unit))
    curvature = jnp.abs(eigenvalues)
    smallest = gradient.size * jnp.finfo(gradient.dtype).eps * curvature.max()
    # On a plane the step goes as far as the origin is away, and one further.
    length = jnp.linalg.norm(gradient)
    on_a_plane = jnp.where(length > 0, length / (1 + jnp.linalg.norm(position)), 1)
    curvature = jnp.where(smallest > 0, jnp.maximum(curvature, smallest), on_a_plane)
    return _Curvature(unit, vectors, curvature, is_known=jnp.isfinite(hessian).all())


def _measured_rounding(
    density: Callable[[Vector], Scalar],
    position: Vector,
    value: Scalar,
    gradient: Vector,
    hessian: Matrix,
    curvature: _Curvature,
) -> tuple[Scalar, Scalar]:
    """The rounding of the value (nats), and of the decrement.

    At positions a few units in the last place away a smooth density differs by what its derivatives say. The rest is
    rounding. To it the position's own rounding is added: the mode seldom is a number of the working precision.
    """
    resolution = jnp.finfo(position.dtype).eps
    spacing = resolution * jnp.abs(position)
    signs = np.random.default_rng(0).choice([-2.0, 2.0], (NUM_PROBES, position.size))

    def unexplained(signs: Vector) -> tuple[Scalar, Scalar]:
        probe = position + signs * (spacing + resolution * curvature.unit)
        moved = probe - position
        probed_value, probed_gradient = jax.value_and_grad(density)(probe)
        change = probed_gradient - gradient - hessian @ moved
        return jnp.abs(probed_value - value - moved @ gradient), curvature.decrement(change)

    rests = jax.vmap(unexplained)(jnp.asarray(signs, position.dtype))
    of_value, of_decrement = (jnp.max(each, where=jnp.isfinite(each), initial=0) for each in rests)
    of_position = jnp.linalg.norm(spacing / 2 / curvature.unit)
    return of_value, of_decrement + of_position


def check_start(first: NewtonPoint) -> None:
    """Refuses a start from which there is no way."""
    for name, value in (("start", first.position), ("log_density at the start", first.value)):
        if not np.isfinite(value).all():
            wrong = np.ravel(value)[~np.isfinite(np.ravel(value))][0]
            raise ValueError(f"{name} must be finite, got {wrong}: start where the density is positive")
    if not np.isfinite(first.decrement):
        raise ValueError(
            "the derivatives of log_density must be finite at the start, got one that is not: start elsewhere, or see "
            "that a branch not taken by jnp.where has none that is infinite"
        )


def refuse_arrival(climb: NewtonPath, first: NewtonPoint) -> None:
    """Refuses a way that led to no mode, given that it has not converged."""
    point = climb.point
    slope, start, end = (np.asarray(each, float) for each in (point.gradient, first.position, point.position))
    steepness = math.hypot(*slope)
    has_run_away = math.hypot(*end) > (1 + math.hypot(*start)) / jnp.finfo(point.position.dtype).eps
    at_edge = climb.num_blocked >= MANY_BLOCKED or (climb.has_stalled and climb.num_blocked)
    if at_edge and not has_run_away:
        raise ValueError(
            f"the mode must be inside of the support, got a density that still rises at its boundary, with a gradient "
            f"of norm {steepness:.3g}: transform the parameter to one without bounds, such as its logarithm"
        )
    if has_run_away:
        advice = "the density seems to have no mode"
    elif _is_rounding(point):
        advice = (
            f"the rounding of {point.position.dtype} alone moves it by {float(point.decrement_rounding):.2g} standard "
            "deviations; use float64, or subtract what is large and constant in the density"
        )
    elif climb.has_stalled:
        advice = "use float64, a larger tolerance, or a density that is smooth"
    else:
        advice = "raise max_steps, or start closer to the mode"
    raise RuntimeError(
        f"laplace must reach a mode, got a gradient of norm {steepness:.3g} after {int(climb.num_steps)} steps, at a "
        f"distance of {math.dist(end, start):.3g} from the start: {advice}"
    )
