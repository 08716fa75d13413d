"""Coordinate ascent on an exact evidence lower bound: what a model provides, and the compiled loop over it."""

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vae_jax.typing import PRNGKey, Scalar


class StepInfo(NamedTuple):
    """What one sweep over the factors reports."""

    elbo: Scalar
    """The exact bound (nats) of all factors as the sweep leaves them."""


@runtime_checkable
class ConjugateModel(Protocol):
    """A model whose mean-field factors each have their optimum in closed form: a pytree of its hyperparameters.

    A state is a pytree of the factors' parameters, of one structure, shape and dtype throughout.
    """

    def init(self, key: PRNGKey, data: Any, /) -> Any:
        """Factors to start from; different keys may lead to different optima."""
        ...

    def step(self, state: Any, data: Any, /) -> tuple[Any, StepInfo]:
        """Every factor once to its optimum given the others."""
        ...

    def canonical(self, state: Any, /) -> Any:
        """The same factors under the one order of labels that is reported."""
        ...


class Ascent(NamedTuple):
    """The best of some restarts."""

    state: Any
    """Its factors, under their canonical labels."""
    elbo: Scalar
    """Its bound (nats)."""
    elbo_history: Float[Array, " T"]
    """The bound after each of at most T sweeps, and NaN after the last."""
    num_steps: Int[Array, ""]
    """How many sweeps it took."""
    converged: Bool[Array, ""]
    """Whether it stopped by the tolerance, at a finite bound."""
    restart_elbos: Float[Array, " R"]
    """The bound that each restart ended at."""


def run(
    model: Any,
    data: Any,
    key: PRNGKey,
    *,
    num_restarts: int = 1,
    max_steps: int = 1000,
    tolerance: float = 1e-8,
) -> Ascent:
    """Ascends from several starts at once, in one compiled loop, and keeps the start that ends highest.

    A start stops once a sweep raises its bound by no more than `tolerance` times the larger of 1 and the bound's size.
    Compiled once for a model's type, the shapes, `num_restarts` and `max_steps`.

    Args:
        model: a `ConjugateModel`.
        data: what the model's `init` and `step` take.
        key: consumed; each start has its own split of it.
        num_restarts: R, how many starts.
        max_steps: T, the most sweeps of a start.
        tolerance: relative, not negative. At 0 the bound rises until rounding stops it, as it does in single precision
            by default. The bound is flat at its top: factors are known to about the square root of its tolerance.

    Raises:
        TypeError: the model lacks a method.
        ValueError: no starts, no sweeps, or a tolerance that is negative or NaN.

    Reference: Bishop (2006), section 10.1.1; Blei, Kucukelbir & McAuliffe (2017), algorithm 1.
    """
    if not isinstance(model, ConjugateModel):
        raise TypeError(f"model must have init, step and canonical, got {type(model).__name__}: see ConjugateModel")
    for name, number in (("num_restarts", num_restarts), ("max_steps", max_steps)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}: raise it")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance}: at 0 the bound rises as far as it can")
    return _best_of(model, data, key, tolerance, num_restarts, max_steps)


@partial(jax.jit, static_argnames=("num_restarts", "max_steps"))
def _best_of(model: Any, data: Any, key: PRNGKey, tolerance: Any, num_restarts: int, max_steps: int) -> Ascent:
    keys = jax.random.split(key, num_restarts)
    ends = jax.vmap(lambda start: _ascend(model, data, start, tolerance, max_steps))(keys)
    best = jnp.argmax(jnp.where(jnp.isnan(ends.elbo), -jnp.inf, ends.elbo))
    kept = jax.tree.map(lambda leaf: leaf[best], ends)
    converged = kept.settled & jnp.isfinite(kept.elbo)
    return Ascent(model.canonical(kept.state), kept.elbo, kept.history, kept.num_steps, converged, ends.elbo)


class _Progress(NamedTuple):
    state: Any
    elbo: Scalar
    history: Float[Array, " T"]
    num_steps: Int[Array, ""]
    settled: Bool[Array, ""]


def _ascend(model: Any, data: Any, key: PRNGKey, tolerance: Any, max_steps: int) -> _Progress:
    def unsettled(now: _Progress) -> Bool[Array, ""]:
        return ~now.settled & (now.num_steps < max_steps)

    def sweep(now: _Progress) -> _Progress:
        state, info = model.step(now.state, data)
        least = tolerance * jnp.maximum(1, jnp.abs(info.elbo))
        # A bound that is NaN settles too.
        settled = ~(info.elbo - now.elbo > least)
        history = now.history.at[now.num_steps].set(info.elbo)
        return _Progress(state, info.elbo, history, now.num_steps + 1, settled)

    state = model.init(key, data)
    dtype = jax.eval_shape(model.step, state, data)[1].elbo.dtype
    history = jnp.full(max_steps, jnp.nan, dtype)
    start = _Progress(state, jnp.array(-jnp.inf, dtype), history, jnp.zeros((), int), jnp.zeros((), bool))
    end = lax.while_loop(unsettled, sweep, start)
    # The compiler may sum the bound twice, in different orders: the one in the history is reported.
    return end._replace(elbo=end.history[end.num_steps - 1])
