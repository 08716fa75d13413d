"""Running a random function many times: in chunks that stay in cache, over many devices, with the same draws on any.

Replicate r always draws from `fold_in(key, r)`, whatever the chunk size and the number of devices.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Int, PyTree

from vae_jax.typing import PRNGKey

Draw: TypeAlias = Callable[[PRNGKey], PyTree[Array]]
"""A function of a key that returns random arrays."""

CHUNK_ELEMENTS = {"cpu": 2**18, "gpu": 2**24, "tpu": 2**22}
"""Elements of the largest array of a chunk, by platform: enough to keep all cores of a CPU busy or to fill the chip."""

CORE_CHUNK_ELEMENTS = 2**16
"""Elements of that array where every core of a CPU is a device of its own: about the cache of one core."""

GROUP_ELEMENTS = 2**16
"""Elements of the draws that are summarized together: a summary of hundreds of replicates costs little more than one
of a few."""

MAX_REPLICATES = 2**31 - 1
"""Replicates are numbered in 32 bits."""


def replicate_mesh() -> Mesh:
    """Returns a mesh of all devices, along which replicates are sharded.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> mesh = vj.replicate_mesh()
        >>> mesh.axis_names, mesh.size == jax.device_count()
        (('replicates',), True)
    """
    return Mesh(np.asarray(jax.devices()), ("replicates",))


def check_replicates(num_replicates: int, chunk_size: int | None, *, least: int) -> None:
    """Raises ValueError for fewer than `least` replicates, more than can be numbered, or an empty chunk.

    Example:
        >>> import vae_jax as vj
        >>> vj.replicates.check_replicates(100, None, least=2)
        >>> vj.replicates.check_replicates(1, None, least=2)
        Traceback (most recent call last):
        ValueError: num_replicates must be at least 2, got 1: raise it
    """
    if num_replicates < least:
        raise ValueError(f"num_replicates must be at least {least}, got {num_replicates}: raise it")
    if num_replicates > MAX_REPLICATES:
        raise ValueError(f"num_replicates must be at most {MAX_REPLICATES:,}, got {num_replicates:,}: lower it")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}: raise it, or leave it out")


def stack_replicates(
    draw: Draw,
    key: PRNGKey,
    num_replicates: int,
    *,
    first: int | Int[Array, ""] = 0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> PyTree[Array]:
    """Runs a random function R times and stacks its results along a new first axis.

    Args:
        draw: the random function, of a key, that returns a pytree of arrays.
        key: replicate r draws from `fold_in(key, first + r)`.
        num_replicates: R.
        first: the number of the first replicate, to continue an earlier pass.
        chunk_size: the number of replicates at once on a device, by default as many as its cache or memory holds well.
        mesh: the devices that replicates are sharded over, by default the current one alone.

    Returns:
        The results [R, ...].

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import vae_jax as vj
        >>> draws = vj.replicates.stack_replicates(jax.random.normal, jax.random.key(0), 10)
        >>> more = vj.replicates.stack_replicates(jax.random.normal, jax.random.key(0), 6, first=4)
        >>> draws.shape, np.allclose(draws[4:], more)
        ((10,), True)
    """
    chunks = _Chunks.of(draw, key, num_replicates, chunk_size, mesh)

    def on_device(key: PRNGKey, device: Int[Array, " 1"]) -> PyTree[Array]:
        return chunks.stack(draw, key, first + device[0] * chunks.per_device, chunks.number)

    stacked = _on_every_device(on_device, key, mesh)
    return jax.tree.map(lambda x: x[:num_replicates], stacked)


def fold_replicates(
    draw: Draw,
    key: PRNGKey,
    num_replicates: int,
    *,
    summarize: Callable[[PyTree[Array], Bool[Array, " g"]], Any],
    merge: Callable[[Any, Any], Any],
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """Runs a random function many times and merges summaries, in memory that does not grow with their number.

    Args:
        draw, key, num_replicates, chunk_size, mesh: as for `stack_replicates`.
        summarize: a function of the draws of a group of replicates [g, ...], and of which of them count [g], that
            returns a pytree.
        merge: a function of two such summaries that returns one. The summary of no replicates must leave the other as
            it is.

    Returns:
        The summary of all replicates.

    Example:
        >>> import operator
        >>> import jax
        >>> import vae_jax as vj
        >>> def num_positive(draws, counted):
        ...     return (counted & (draws > 0)).sum()
        >>> fold, key = vj.replicates.fold_replicates, jax.random.key(0)
        >>> number = fold(jax.random.normal, key, 10_000, summarize=num_positive, merge=operator.add)
        >>> print(f"{number / 10_000:.1f}")
        0.5
    """
    one = jax.eval_shape(draw, key)
    chunks = _Chunks.of(draw, key, num_replicates, chunk_size, mesh)
    group, num_groups = chunks.grouped(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(one)))

    def on_device(key: PRNGKey, device: Int[Array, " 1"]) -> Any:
        def step(total: Any, number: Int[Array, ""]) -> tuple[Any, None]:
            offset = number * group * chunks.size
            start = device[0] * chunks.per_device + offset
            within = offset + jnp.arange(group * chunks.size)
            counted = (within < chunks.per_device) & (device[0] * chunks.per_device + within < num_replicates)
            return merge(total, summarize(chunks.stack(draw, key, start, group), counted)), None

        total, _ = lax.scan(step, nothing, jnp.arange(num_groups))
        return jax.tree.map(lambda x: x[None], total)

    blank = jax.tree.map(lambda leaf: jnp.zeros((group * chunks.size, *leaf.shape), leaf.dtype), one)
    nothing = summarize(blank, jnp.zeros(group * chunks.size, bool))
    by_device = _on_every_device(on_device, key, mesh)
    total, _ = lax.scan(lambda total, other: (merge(total, other), None), nothing, by_device)
    return total


@dataclass(frozen=True)
class _Chunks:
    """One device's way through its replicates: `number` chunks of `size`, the last perhaps not full."""

    size: int
    number: int
    per_device: int

    @classmethod
    def of(cls, draw: Draw, key: PRNGKey, num_replicates: int, chunk_size: int | None, mesh: Mesh | None) -> "_Chunks":
        per_device = math.ceil(num_replicates / _num_devices(mesh))
        number = math.ceil(per_device / (chunk_size or _fitting_chunk(draw, key, mesh)))
        # Chunks of one size, as full as can be.
        size = math.ceil(per_device / number)
        return cls(size, math.ceil(per_device / size), size * math.ceil(per_device / size))

    def grouped(self, elements: int) -> tuple[int, int]:
        """Chunks of a group, and groups, for draws of that many elements."""
        group = min(self.number, max(1, GROUP_ELEMENTS // max(1, elements * self.size)))
        return group, math.ceil(self.number / group)

    def stack(self, draw: Draw, key: PRNGKey, start: Int[Array, ""], number: int) -> PyTree[Array]:
        """The draws of `number` chunks from replicate `start` on, along their first axes."""

        def chunk(index: Int[Array, ""]) -> PyTree[Array]:
            replicates = start + index * self.size + jnp.arange(self.size)
            return jax.vmap(draw)(jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, replicates))

        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lax.map(chunk, jnp.arange(number)))


def _num_devices(mesh: Mesh | None) -> int:
    return mesh.size if mesh else 1


def _on_every_device(
    body: Callable[[PRNGKey, Int[Array, " 1"]], PyTree[Array]], key: PRNGKey, mesh: Mesh | None
) -> PyTree[Array]:
    """`body` of every device's number, the results laid along their first axes."""
    devices = jnp.arange(_num_devices(mesh))
    if mesh is None:
        return body(key, devices)
    shards = PartitionSpec(mesh.axis_names)
    # The check of which values vary over the mesh would refuse a loss that scans from a constant.
    sharded = jax.shard_map(body, mesh=mesh, in_specs=(PartitionSpec(), shards), out_specs=shards, check_vma=False)
    return sharded(key, devices)


def _fitting_chunk(draw: Draw, key: PRNGKey, mesh: Mesh | None) -> int:
    """Replicates to run at once, by the largest array that one of them makes."""
    backend = jax.default_backend()
    alone = backend != "cpu" or _num_devices(mesh) == 1
    elements = CHUNK_ELEMENTS.get(backend, 2**22) if alone else CORE_CHUNK_ELEMENTS
    largest = max(_sizes(jax.make_jaxpr(draw)(key).jaxpr), default=1)
    # XLA makes slow code for a CPU of an axis of one, which matters less than memory where one replicate is large.
    least = 2 if backend == "cpu" and largest <= CHUNK_ELEMENTS["cpu"] else 1
    return max(least, elements // largest)


def _sizes(jaxpr: Jaxpr) -> Iterator[int]:
    for equation in jaxpr.eqns:
        yield from (math.prod(getattr(out.aval, "shape", ())) for out in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)):
            if isinstance(inner, ClosedJaxpr):
                yield from _sizes(inner.jaxpr)
            elif isinstance(inner, Jaxpr):
                yield from _sizes(inner)
