"""Laplace's approximation: the Gaussian that a density has at its mode, and the integral that it gives."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from vae_jax import distributions
from vae_jax.typing import LogDensity, Parameters, PRNGKey, Scalar

Vector = Float[Array, " D"]
Matrix = Float[Array, "D D"]

SUFFICIENT = 1e-4
"""Share of the gain that a gradient promises which a step has to make."""

SHORTEST_FRACTION = 2.0**-60
"""Of a Newton step."""

MANY_BLOCKED = 10
"""Steps in a row that were cut short where the density is not finite: a way to the boundary rather than a detour."""

PROBE = 0.01
"""Posterior standard deviations about the mode in which the density has to be finite."""

LARGEST_CHANGE = 0.1
"""Of the precision, relative, over the last step: at a maximum the steps have become too small to change it."""


class LaplaceApproximation(NamedTuple):
    """The Gaussian at the mode of a density of D numbers, and the density's integral if it were that Gaussian."""

    mode: Parameters
    """With the structure of the parameters."""
    posterior: dist.MultivariateNormal
    """Over the parameters as one vector [D], in the order of `jax.flatten_util.ravel_pytree`."""
    precision: Matrix
    """Minus the Hessian of the log density at the mode."""
    covariance: Matrix
    """Its inverse."""
    log_evidence: Scalar
    """Logarithm of the density's integral (nats): of the marginal likelihood, if the density is a joint one."""
    num_steps: int
    """That led to the mode."""

    @property
    def marginal_scale(self) -> Parameters:
        """Standard deviation of every parameter, with the structure of the parameters."""
        return self._unravel(jnp.sqrt(jnp.diagonal(self.covariance)))

    def sample(self, key: PRNGKey, num_samples: int) -> Parameters:
        """Draws from the posterior: the structure of the parameters, each leaf [S, ...]."""
        draws = distributions.sample(self.posterior, key, num_samples)
        return jax.vmap(self._unravel)(draws.astype(self.posterior.loc.dtype))

    def _unravel(self, vector: Vector) -> Parameters:
        return ravel_pytree(self.mode)[1](vector)


def laplace(
    log_density: LogDensity, start: Parameters, *, max_steps: int = 100, tolerance: float | None = None
) -> LaplaceApproximation:
    """Approximates a density by the Gaussian with its mode and its curvature there.

    log p(z) ~ log p(mode) - (z - mode)' precision (z - mode) / 2, whose integral has the logarithm
    log p(mode) + D/2 log(2 pi) - log|precision| / 2. The relative error of that integral falls as one over the number
    of observations. It changes with the parameters that the density is written in, and so does the Gaussian.

    The mode is found by Newton's method on all parameters as one vector. Where the density is not log-concave the
    eigenvalues of the Hessian are taken by their magnitude, so that every step leads uphill; a step is halved until the
    density is finite and rises enough. The steps are the same in whatever units the parameters are. The Hessian takes D
    times the time and the memory of a gradient: this is for thousands of parameters, not for millions.

    What can go wrong depends on values, so this is a function to call outside of `jax.jit`, `jax.vmap` and `jax.grad`;
    it compiles what it runs. A function is compiled in every call, since what it reads may have changed. A
    `jax.tree_util.Partial` is compiled once for all values of its arguments, such as data.

    Args:
        log_density: parameters to the log of a density, normalised or not (nats, scalar), twice differentiable. For a
            posterior it is the log joint. A parameter with bounds has to be transformed first, with the logarithm of
            the derivative added.
        start: pytree of floating-point arrays where the density is positive. The mode that is uphill from it is found.
        max_steps: at most so many Newton steps.
        tolerance: how far from the mode the search may end, in standard deviations of the posterior; one more step is
            made from there. By default the square root of the arithmetic's precision.

    Raises:
        TypeError: `start` holds anything but float32 and float64, or the call is inside of a transformation of JAX.
        ValueError: the density or its derivatives are not finite at the start, the mode lies at the boundary of the
            support, the point found is no maximum or has a flat direction, or an argument is out of range.
        RuntimeError: no mode was reached.

    Reference: Laplace (1774); Tierney & Kadane (1986), eq. 2.2; MacKay (2003), eqs. 27.6 to 27.8. Nocedal & Wright
    (2006), section 3.4, for the modified Newton method.
    """
    start = _checked_start(start)
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}: raise it")
    if tolerance is None:
        tolerance = math.sqrt(jnp.finfo(jnp.result_type(*jax.tree.leaves(start))).eps)
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite, got {tolerance}: change it")
    shape = getattr(jax.eval_shape(log_density, start), "shape", "a pytree")
    if shape != ():
        raise ValueError(f"log_density must return a scalar, got {shape}: sum over the data")
    outcome = _compiled(log_density)(start, max_steps, tolerance)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(outcome)):
        raise TypeError("laplace must be called outside of jit, vmap and grad, got a traced value: call it before them")
    _check_first(outcome.first)
    _check_converged(outcome)
    _check_maximum(outcome)
    return LaplaceApproximation(
        mode=outcome.mode,
        posterior=outcome.posterior,
        precision=outcome.precision,
        covariance=outcome.covariance,
        log_evidence=outcome.log_evidence,
        num_steps=int(outcome.climb.num_steps) + 1,
    )


class _Point(NamedTuple):
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


class _Climb(NamedTuple):
    """The way to the mode so far."""

    point: _Point
    num_steps: Int[Array, ""]
    num_blocked: Int[Array, ""]
    """Blocked steps in a row, up to the last."""
    has_stalled: Bool[Array, ""]
    """The last step was cut short and gained nothing."""


class _Outcome(NamedTuple):
    """All that is known at the end, whether good or bad."""

    first: _Point
    climb: _Climb
    best: _Point
    has_converged: Bool[Array, ""]
    is_surrounded: Bool[Array, ""]
    """By points with a finite density."""
    mode: Parameters
    posterior: dist.MultivariateNormal
    precision: Matrix
    covariance: Matrix
    log_evidence: Scalar


def _compiled(log_density: LogDensity) -> Callable[[Parameters, int, float], _Outcome]:
    if isinstance(log_density, Partial):
        return lambda *arguments: _approximate_once(log_density, *arguments)
    return jax.jit(lambda *arguments: _approximate(log_density, *arguments))


def _approximate(log_density: LogDensity, start: Parameters, max_steps: Any, tolerance: Any) -> _Outcome:
    vector, unravel = ravel_pytree(start)

    def density(position: Vector) -> Scalar:
        return jnp.asarray(log_density(unravel(position)))

    first = _look(density, vector)
    climb = _climb(density, first, max_steps, tolerance)
    found = climb.point
    polished = _look(density, found.position + found.step)
    is_better = jnp.isfinite(polished.value) & (polished.decrement <= found.decrement)
    best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), polished, found)
    precision = _precision(best)
    posterior = dist.MultivariateNormal(best.position, precision_matrix=precision)
    root = posterior.scale_tril
    half_log_volume = jnp.log(jnp.diagonal(root)).sum() + 0.5 * vector.size * math.log(2 * math.pi)
    center = best.position[None]
    probes = jnp.concatenate([center + PROBE * root.T, center - PROBE * root.T])
    return _Outcome(
        first=first,
        climb=climb,
        best=best,
        has_converged=found.decrement <= tolerance,
        is_surrounded=jnp.isfinite(jax.vmap(density)(probes)).all(),
        mode=unravel(best.position),
        posterior=posterior,
        precision=precision,
        covariance=root @ root.T,
        log_evidence=best.value + half_log_volume,
    )


_approximate_once = jax.jit(_approximate)


def _precision(point: _Point) -> Matrix:
    return -(point.hessian + point.hessian.T) / 2


def _climb(density: Callable[[Vector], Scalar], first: _Point, max_steps: Any, tolerance: Any) -> _Climb:
    """Newton steps until one is shorter than the tolerance."""

    def goes_on(climb: _Climb) -> Bool[Array, ""]:
        return (climb.point.decrement > tolerance) & ~climb.has_stalled & (climb.num_steps < max_steps)

    def advance(climb: _Climb) -> _Climb:
        point = climb.point
        trial = _search(density, point)
        moved = point.position + trial.fraction * point.step
        gains_nothing = (trial.fraction < 1) & (trial.value <= point.value)
        return _Climb(
            point=_look(density, jnp.where(trial.is_accepted, moved, point.position)),
            num_steps=climb.num_steps + 1,
            num_blocked=jnp.where(trial.is_blocked, climb.num_blocked + 1, 0),
            has_stalled=~trial.is_accepted | gains_nothing,
        )

    zero = jnp.zeros((), int)
    return lax.while_loop(goes_on, advance, _Climb(first, zero, zero, jnp.zeros((), bool)))


def _search(density: Callable[[Vector], Scalar], point: _Point) -> _Trial:
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


def _look(density: Callable[[Vector], Scalar], position: Vector) -> _Point:
    value, gradient = jax.value_and_grad(density)(position)
    hessian = jax.hessian(density)(position)
    step, decrement = _newton_step(position, gradient, hessian)
    return _Point(position, value, gradient, hessian, step, decrement)


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


def _checked_start(start: Parameters) -> Parameters:
    """The start as arrays of a definite type."""
    leaves = jax.tree_util.tree_leaves_with_path(start)
    if sum(jnp.size(leaf) for _, leaf in leaves) == 0:
        raise ValueError("start must hold at least one number, got none: give the parameters a first value")
    for path, leaf in leaves:
        kind = jnp.result_type(leaf)
        if kind not in (jnp.float32, jnp.float64):
            raise TypeError(
                f"start{jax.tree_util.keystr(path)} must be float32 or float64, got {kind}: convert it, and leave out "
                "what is no parameter"
            )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), start)


def _check_first(first: _Point) -> None:
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


def _check_converged(outcome: _Outcome) -> None:
    """Refuses a way that led to no mode."""
    if outcome.has_converged:
        return
    climb, point = outcome.climb, outcome.climb.point
    slope, start, end = (np.asarray(each, float) for each in (point.gradient, outcome.first.position, point.position))
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


def _check_maximum(outcome: _Outcome) -> None:
    """Refuses a point at which the density is not shaped like a Gaussian's peak."""
    precision = np.asarray(outcome.precision, np.float64)
    # Relative to the diagonal, the smallest eigenvalue has the same sign and does not depend on the units.
    diagonal = np.diagonal(precision)
    unit = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    rounding = 10 * len(precision) * jnp.finfo(outcome.precision.dtype).eps
    if not np.linalg.eigvalsh(precision * np.outer(unit, unit))[0] > rounding:
        raise ValueError(
            "minus the Hessian must be positive definite at the point found, got "
            f"{np.linalg.eigvalsh(precision)[0]:.3g} as its smallest eigenvalue: it is no maximum or has a flat "
            "direction; start elsewhere, or add a prior"
        )
    change = np.linalg.solve(precision, precision - np.asarray(_precision(outcome.climb.point), np.float64))
    if not np.abs(np.linalg.eigvals(change)).max() < LARGEST_CHANGE:
        raise ValueError(
            "the density must have a maximum, got a point from which it rises ever more slowly but does not end to, "
            f"after {int(outcome.climb.num_steps)} steps: add a prior, as for data that a line separates"
        )
    if not outcome.is_surrounded:
        raise ValueError(
            f"the mode must be inside of the support, got a density that is not finite {PROBE:g} standard deviations "
            "from it: transform the parameter to one without bounds, such as its logarithm"
        )


@dataclass(frozen=True)
class FactorialApproximation:
    """Laplace's approximation of N!, which is Stirling's, beside the exact value."""

    number: int
    """N."""
    mode: float
    """Of exp(N log t - t), which is N."""
    scale: float
    """Of the Gaussian at the mode, which is sqrt(N)."""
    log_approximation: float
    """Of N!, in nats."""
    log_factorial: float
    error: float
    """Of the logarithm: 1 / (12 N) - 1 / (360 N^3) + ..."""
    scaled_error: float
    """The error times 12 N, which is 1 but for 1 / (30 N^2)."""
    resolution: float
    """What rounding may make of the error."""
    reliable: bool
    """Rounding is under 5% of the error."""
    num_steps: int


def approximate_factorial(number: int) -> FactorialApproximation:
    """N! as the integral of exp(N log t - t) over positive t, by Laplace's approximation.

    It is sqrt(2 pi N) (N / e)^N. The error is soon below the rounding of float32: use float64.

    Args:
        number: N.

    Raises:
        ValueError: N is not at least 1. The integrand of 0! has its mode at the boundary.

    Reference: Stirling (1730); MacKay (2003), eqs. 1.12 and 27.1; Abramowitz & Stegun (1964), eq. 6.1.41.
    """
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}: 0! and what is below has no mode to approximate at")
    approximation = laplace(Partial(_log_integrand, jnp.asarray(float(number))), jnp.ones(()))
    exact = math.lgamma(number + 1)
    log_approximation = float(approximation.log_evidence)
    error = exact - log_approximation
    resolution = 2 * float(jnp.finfo(approximation.covariance.dtype).eps) * number * (math.log(number) + 1)
    return FactorialApproximation(
        number=number,
        mode=float(approximation.mode),
        scale=float(approximation.marginal_scale),
        log_approximation=log_approximation,
        log_factorial=exact,
        error=error,
        scaled_error=12 * number * error,
        resolution=resolution,
        reliable=resolution < 0.05 * error,
        num_steps=approximation.num_steps,
    )


def _log_integrand(number: Scalar, t: Scalar) -> Scalar:
    return number * jnp.log(t) - t
