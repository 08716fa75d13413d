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
    """Newton steps until one is shorter than the tolerance."""

    def goes_on(climb: NewtonPath) -> Bool[Array, ""]:
        return (climb.point.decrement > tolerance) & ~climb.has_stalled & (climb.num_steps < max_steps)

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


def _search(density: Callable[[Vector], Scalar], point: NewtonPoint) -> _Trial:
    """The first of the step, its half, its quarter and so on that rises enough."""
    resolution = jnp.finfo(point.position.dtype).eps
    # Close to the mode a gain is smaller than the rounding of the values that it is the difference of.
    rounding = 8 * resolution * jnp.maximum(jnp.abs(point.value), 1)

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
    """The density, its derivatives and the Newton step at a position."""
    value, gradient = jax.value_and_grad(density)(position)
    hessian = jax.hessian(density)(position)
    step, decrement = _newton_step(position, gradient, hessian)
    return NewtonPoint(position, value, gradient, hessian, step, decrement)


def _newton_step(position: Vector, gradient: Vector, hessian: Matrix) -> tuple[Vector, Scalar]:
    """The step that a Hessian with eigenvalues of one sign would ask for, and its length in standard deviations."""
    diagonal = jnp.abs(jnp.diagonal(hessian))
    # In these units every parameter's own curvature is one, whatever its unit was.
    unit = jnp.where(diagonal > 0, lax.rsqrt(diagonal), 1)
    eigenvalues, vectors = jnp.linalg.eigh(hessian * jnp.outer(unit, unit))
    curvature = jnp.abs(eigenvalues)
    smallest = gradient.size * jnp.finfo(gradient.dtype).eps * curvature.max()
    # On a plane the step goes as far as the origin is away, and one further.
    length = jnp.linalg.norm(gradient)
    on_a_plane = jnp.where(length > 0, length / (1 + jnp.linalg.norm(position)), 1)
    curvature = jnp.where(smallest > 0, jnp.maximum(curvature, smallest), on_a_plane)
    coordinates = (unit * gradient) @ vectors
    step = unit * (vectors @ (coordinates / curvature))
    # An infinite curvature would otherwise pass for a step of no length.
    is_known = jnp.isfinite(hessian).all()
    return step, jnp.where(is_known, jnp.sqrt(jnp.sum(coordinates**2 / curvature)), jnp.nan)


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


def check_arrival(climb: NewtonPath, first: NewtonPoint, has_converged: Bool[Array, ""]) -> None:
    """Refuses a way that led to no mode."""
    if has_converged:
        return
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
    elif climb.has_stalled:
        advice = "use float64, a larger tolerance, or a density that is smooth"
    else:
        advice = "raise max_steps, or start closer to the mode"
    raise RuntimeError(
        f"laplace must reach a mode, got a gradient of norm {steepness:.3g} after {int(climb.num_steps)} steps, at a "
        f"distance of {math.dist(end, start):.3g} from the start: {advice}"
    )
