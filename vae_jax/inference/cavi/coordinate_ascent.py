"""Coordinate ascent on an exact evidence lower bound: what a model provides, and the compiled loop over it."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from vae_jax.runtime import wide_vectors
from vae_jax.typing import PRNGKey, Scalar

ON_EVERY_DEVICE = PartitionSpec()
"""On every device."""

ELEMENTS_OF_STARTS = 2**22
"""Elements of data that starts are made from at once. A start takes memory for every event and component."""


class StepInfo(NamedTuple):
    """Report of one sweep over the factors."""

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
        """Moves every factor once to its optimum given the others."""
        ...

    def canonical(self, state: Any, /) -> Any:
        """The same factors under the one order of labels that is reported."""
        ...


@runtime_checkable
class Whitenable(Protocol):
    """A conjugate model that single precision fits best in coordinates in which the data have a covariance of one."""

    def in_whitened_units(self, data: Any, /) -> tuple[Any, Any]:
        """The same model of the same data in these coordinates, with the same bounds."""
        ...

    def in_original_units(self, state: Any, white: Any, /) -> Any:
        """The factors that a state of that model stands for, given the whitened data."""
        ...


class Ascent(NamedTuple):
    """Result of `ascend`: the best of several restarts."""

    state: Any
    """Factors of the best restart, under their canonical labels."""
    elbo: Scalar
    """Bound of the best restart (nats)."""
    elbo_history: Float[Array, " T"]
    """The bound after each of at most T sweeps (nats), and minus infinity after the last."""
    num_steps: Int[Array, ""]
    """The number of sweeps."""
    converged: Bool[Array, ""]
    """Whether the best restart stopped by the tolerance, at a finite bound."""
    restart_elbos: Float[Array, " R"]
    """The last bound of each restart (nats)."""
    restart_histories: Float[Array, "R T"]
    """The bound of each restart after each sweep (nats), and minus infinity after its last."""


def ascend(
    model: Any,
    data: Any,
    key: PRNGKey,
    *,
    num_restarts: int = 1,
    max_steps: int = 1000,
    tolerance: float = 1e-8,
    mesh: Mesh | None = None,
) -> Ascent:
    """Fits a conjugate model by coordinate ascent from several starts at once, and keeps the start that ends highest.

    A start stops once a sweep raises its bound by no more than `tolerance` times the larger of 1 and the bound's size.
    The loop over sweeps is compiled once for a model's type, the shapes, `num_restarts` and `max_steps`.

    Args:
        model: a `ConjugateModel`.
        data: data as the model's `init` and `step` take them.
        key: consumed; each start has its own split of it.
        num_restarts: R, the number of starts.
        max_steps: T, the largest number of sweeps of a start.
        tolerance: relative rise of the bound at which a start stops, not negative. At 0 the bound rises until rounding
            stops it. In single precision the default does the same. The bound is flat at its top: factors are known to
            about the square root of its tolerance.
        mesh: devices that a mixture's events are sharded over, in one dimension. By default the current device alone.
            The starts are made on one device.

    Returns:
        The factors and the bound of the best start, and the bounds of all.

    Raises:
        TypeError: the model lacks a method, or there is a mesh and the data have no events.
        ValueError: there are no starts or no sweeps, the tolerance is negative or NaN, or the mesh has several
            dimensions.

    Example:
        The fitted mean of the precision is the exact posterior's, (alpha + N / 2) / (beta + R / 2), here with R = 4:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import NormalModel, ascend
        >>> model = NormalModel(prior_loc=0.0, prior_count=1.0, concentration=1.0, rate=1.0)
        >>> found = ascend(model, jnp.array([-1.0, 1.0, -1.0, 1.0]), jax.random.key(0))
        >>> bool(found.converged), bool((jnp.diff(found.elbo_history[: found.num_steps]) > -1e-5).all())
        (True, True)
        >>> f"{found.state.concentration / found.state.rate:.3f}"  # (1 + 4 / 2) / (1 + 4 / 2)
        '1.000'

    Reference: Bishop (2006), section 10.1.1; Blei, Kucukelbir & McAuliffe (2017), algorithm 1.
    """
    if not isinstance(model, ConjugateModel):
        raise TypeError(f"model must have init, step and canonical, got {type(model).__name__}: see ConjugateModel")
    for name, number in (("num_restarts", num_restarts), ("max_steps", max_steps)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}: raise it")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance}: at 0 the bound rises as far as it can")
    if mesh is not None and len(mesh.axis_names) != 1:
        raise ValueError(f"mesh must have one dimension, got {mesh.axis_names}: make one with replicate_mesh()")
    if mesh is not None and not hasattr(data, "features"):
        raise TypeError(f"mesh must be left out with {type(data).__name__} for data, got one: only events are sharded")
    if isinstance(model, Whitenable) and not is_traced((model, data)):
        white_model, white = model.in_whitened_units(data)
        found = _ascend_from_starts(white_model, white, key, num_restarts, max_steps, tolerance, mesh)
        return found._replace(state=model.in_original_units(found.state, white))
    return _ascend_from_starts(model, data, key, num_restarts, max_steps, tolerance, mesh)


def is_traced(tree: Any) -> bool:
    """Whether a leaf has no value yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _ascend_from_starts(
    model: Any, data: Any, key: PRNGKey, num_restarts: int, max_steps: int, tolerance: float, mesh: Mesh | None
) -> Ascent:
    starts = _starts(model, data, key, num_restarts)
    if mesh is not None:
        data, model, starts = (
            _over_devices(data, mesh),
            *jax.device_put((model, starts), NamedSharding(mesh, ON_EVERY_DEVICE)),
        )
    return _best_of(max_steps, mesh)(model, data, starts, tolerance)


@partial(jax.jit, static_argnames="num_restarts")
def _starts(model: Any, data: Any, key: PRNGKey, num_restarts: int) -> Any:
    keys = jax.random.split(key, num_restarts)
    at_once = max(1, ELEMENTS_OF_STARTS // max(leaf.size for leaf in jax.tree.leaves(data)))
    if at_once >= num_restarts:
        return jax.vmap(lambda key: model.init(key, data))(keys)
    return lax.map(lambda key: model.init(key, data), keys, batch_size=at_once)


def _over_devices(data: Any, mesh: Mesh) -> Any:
    """The data with their events shared out. Events of zeros, which weigh nothing, make the shares equal."""
    missing = -data.features.shape[1] % mesh.size
    filled = data._replace(features=jnp.pad(data.features, ((0, 0), (0, missing))))
    return jax.device_put(filled, jax.tree.map(partial(NamedSharding, mesh), _specs_of(data, mesh)))


def _specs_of(data: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda _: ON_EVERY_DEVICE, data)._replace(features=PartitionSpec(None, *mesh.axis_names))


@cache
def _best_of(max_steps: int, mesh: Mesh | None) -> Callable[..., Ascent]:
    """The program that ascends from all starts and keeps the best end."""

    def best_of(model: Any, data: Any, starts: Any, tolerance: Any) -> Ascent:
        ascend_all = partial(_ascend_all, max_steps=max_steps)
        if mesh is not None:
            # Starts are made before and elsewhere: parallel loops of theirs, which wait for the threads that other
            # devices wait in, would end in deadlock.
            in_specs = (ON_EVERY_DEVICE, _specs_of(data, mesh), ON_EVERY_DEVICE, ON_EVERY_DEVICE)
            ascend_all = jax.shard_map(ascend_all, mesh=mesh, in_specs=in_specs, out_specs=ON_EVERY_DEVICE)
        ends = ascend_all(model, data, starts, tolerance)
        best = jnp.argmax(jnp.where(jnp.isnan(ends.elbo), -jnp.inf, ends.elbo))
        kept = jax.tree.map(lambda leaf: leaf[best], ends)
        converged = kept.settled & jnp.isfinite(kept.elbo)
        state = model.canonical(kept.state)
        return Ascent(state, kept.elbo, kept.history, kept.num_steps, converged, ends.elbo, ends.history)

    return jax.jit(best_of, compiler_options=wide_vectors())


class _Progress(NamedTuple):
    state: Any
    elbo: Scalar
    history: Float[Array, " T"]
    num_steps: Int[Array, ""]
    settled: Bool[Array, ""]


def _ascend_all(model: Any, data: Any, starts: Any, tolerance: Any, *, max_steps: int) -> _Progress:
    def ascend(start: Any) -> _Progress:
        return _ascend(model, data, start, tolerance, max_steps)

    if len(jax.tree.leaves(starts)[0]) > 1:
        return jax.vmap(ascend)(starts)
    # The products of a batch of one would take a fifth longer.
    end = ascend(jax.tree.map(lambda leaf: leaf[0], starts))
    return jax.tree.map(lambda leaf: leaf[None], end)


def _ascend(model: Any, data: Any, state: Any, tolerance: Any, max_steps: int) -> _Progress:
    def unsettled(now: _Progress) -> Bool[Array, ""]:
        return ~now.settled & (now.num_steps < max_steps)

    def sweep(now: _Progress) -> _Progress:
        state, info = model.step(now.state, data)
        least = tolerance * jnp.maximum(1, jnp.abs(info.elbo))
        # A bound that is NaN settles too.
        settled = ~(info.elbo - now.elbo > least)
        history = now.history.at[now.num_steps].set(info.elbo)
        return _Progress(state, info.elbo, history, now.num_steps + 1, settled)

    dtype = jax.eval_shape(model.step, state, data)[1].elbo.dtype
    history = jnp.full(max_steps, -jnp.inf, dtype)
    start = _Progress(state, jnp.array(-jnp.inf, dtype), history, jnp.zeros((), int), jnp.zeros((), bool))
    end = lax.while_loop(unsettled, sweep, start)
    # The compiler may sum the bound twice, in different orders: the one in the history is reported.
    return end._replace(elbo=end.history[end.num_steps - 1])
