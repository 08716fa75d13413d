"""The Gaussian that a density has at its mode, and the integral that it gives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Bool

from vae_jax import distributions
from vae_jax.inference.laplace.newton import (
    NewtonPath,
    NewtonPoint,
    check_start,
    has_converged,
    newton_ascent,
    point_at,
    refuse_arrival,
)
from vae_jax.typing import LogDensity, Matrix, Parameters, PRNGKey, Scalar, Vector

PROBE = 0.01
"""Posterior standard deviations about the mode in which the density has to be finite."""

LARGEST_CHANGE = 0.1
"""The precision's largest relative change over the last step: at a maximum the steps are too small to change it."""


class LaplaceApproximation(NamedTuple):
    """Laplace's approximation of a density of D numbers: the Gaussian at its mode, and the integral it implies."""

    mode: Parameters
    """The mode, with the structure of the parameters."""
    posterior: dist.MultivariateNormal
    """Over the parameters as one vector [D], in the order of `jax.flatten_util.ravel_pytree`."""
    precision: Matrix
    """Minus the Hessian of the log density at the mode [D, D]."""
    covariance: Matrix
    """The inverse of the precision [D, D]."""
    log_evidence: Scalar
    """Logarithm of the density's integral (nats). For a log joint it is the log marginal likelihood."""
    num_steps: int
    """The number of steps to the mode."""
    mode_error: float
    """Distance from the exact mode that the last step and rounding leave, in standard deviations of the posterior."""

    @property
    def marginal_scale(self) -> Parameters:
        """Standard deviations of the parameters, with their structure."""
        return self._unravel(jnp.sqrt(jnp.diagonal(self.covariance)))

    def sample(self, key: PRNGKey, num_samples: int) -> Parameters:
        """Draws `num_samples` = S samples of the posterior; each leaf is [S, ...]."""
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
    magnitudes of the Hessian's eigenvalues are used, so that every step leads uphill. A step is halved until the
    density is finite and rises enough. The steps do not depend on the units of the parameters. The Hessian takes D
    times the time and the memory of a gradient: use this for thousands of parameters, not for millions.

    Its checks depend on values, so call it outside `jax.jit`, `jax.vmap` and `jax.grad`; it compiles its own program. A
    plain function is compiled in every call, since the data that it closes over may have changed. A
    `jax.tree_util.Partial` is compiled once for all values of its arguments, such as data.

    Args:
        log_density: maps parameters to the log of a density, normalised or not (nats, scalar), twice differentiable.
            For a posterior it is the log joint. Transform a parameter with bounds to one without, and add the logarithm
            of the derivative.
        start: pytree of floating-point arrays at which the density is positive. The search climbs from there.
        max_steps: largest number of Newton steps.
        tolerance: distance from the mode at which the search ends, in standard deviations of the posterior. One more
            step follows. By default it is the square root of the machine precision. Where the rounding of the density
            allows no such accuracy, the search ends at what it allows: see `LaplaceApproximation.mode_error`.

    Returns:
        The mode, the Gaussian and the log of its integral (nats).

    Raises:
        TypeError: `start` holds anything but float32 and float64, or the call is inside a transformation of JAX.
        ValueError: the density or its derivatives are not finite at the start, the mode lies at the boundary of the
            support, the point found is no maximum or has a flat direction, or an argument is out of range.
        RuntimeError: no mode was reached, or rounding hides it by more than a tenth of a standard deviation.

    Example:
        The approximation of a Gaussian is exact. This one has mode 3, standard deviation 0.5 and the integral e^5:

        >>> import jax.numpy as jnp
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference import laplace
        >>> found = laplace(lambda z: Normal(3.0, 0.5).log_prob(z) + 5, jnp.zeros(()))
        >>> f"mode {found.mode:.2f}, std {found.marginal_scale:.2f}, {found.log_evidence:.2f} nats"
        'mode 3.00, std 0.50, 5.00 nats'

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
    check_start(outcome.first)
    if not outcome.has_converged:
        refuse_arrival(outcome.climb, outcome.first)
    _check_maximum(outcome)
    return LaplaceApproximation(
        mode=outcome.mode,
        posterior=outcome.posterior,
        precision=outcome.precision,
        covariance=outcome.covariance,
        log_evidence=outcome.log_evidence,
        mode_error=float(outcome.mode_error),
        num_steps=int(outcome.climb.num_steps) + 1,
    )


class _Outcome(NamedTuple):
    """All that is known at the end, whether good or bad."""

    first: NewtonPoint
    climb: NewtonPath
    has_converged: Bool[Array, ""]
    is_surrounded: Bool[Array, ""]
    """Whether the density is finite at the probes around the mode."""
    mode: Parameters
    mode_error: Scalar
    posterior: dist.MultivariateNormal
    precision: Matrix
    covariance: Matrix
    log_evidence: Scalar


def _compiled(log_density: LogDensity) -> Callable[[Parameters, int, float], _Outcome]:
    # A program of its own sees what a plain function reads now, and goes with it: `as_partial` would keep both.
    if isinstance(log_density, Partial):
        return lambda *arguments: _approximate_once(log_density, *arguments)
    return jax.jit(lambda *arguments: _approximate(log_density, *arguments))


def _approximate(log_density: LogDensity, start: Parameters, max_steps: Any, tolerance: Any) -> _Outcome:
    vector, unravel = ravel_pytree(start)

    def density(position: Vector) -> Scalar:
        return jnp.asarray(log_density(unravel(position)))

    first = point_at(density, vector)
    climb = newton_ascent(density, first, max_steps, tolerance)
    found = climb.point
    polished = point_at(density, found.position + found.step)
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
        has_converged=has_converged(climb, tolerance),
        is_surrounded=jnp.isfinite(jax.vmap(density)(probes)).all(),
        mode=unravel(best.position),
        mode_error=best.decrement + best.decrement_rounding,
        posterior=posterior,
        precision=precision,
        covariance=root @ root.T,
        log_evidence=best.value + half_log_volume,
    )


_approximate_once = jax.jit(_approximate)


def _precision(point: NewtonPoint) -> Matrix:
    return -(point.hessian + point.hessian.T) / 2


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
