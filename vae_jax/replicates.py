"""Running a random function many times: in chunks that stay in cache, over many devices, with the same draws on any.

Replicate r always draws from `fold_in(key, r)`, whatever the chunk size and the number of devices.
"""

import math
from collections.abc import Callable, Iterator
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
"""A key to random arrays."""

ChunkOfKeys: TypeAlias = Callable[[Int[Array, " c"]], Array]

CHUNK_ELEMENTS = {"cpu": 2**18, "gpu": 2**24, "tpu": 2**22}
"""Elements of the largest array a chunk holds: on a CPU about what the caches do, elsewhere what fills the chip."""


def replicate_mesh() -> Mesh:
    """A mesh of every device, along which replicates are sharded."""
    return Mesh(np.asarray(jax.devices()), ("replicates",))


def check_replicates(num_replicates: int, chunk_size: int | None, *, least: int) -> None:
    """Raises ValueError for fewer than `least` replicates or an empty chunk."""
    if num_replicates < least:
        raise ValueError(f"num_replicates must be at least {least}, got {num_replicates}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def stack_replicates(
    draw: Draw,
    key: PRNGKey,
    num_replicates: int,
    *,
    first: int | Int[Array, ""] = 0,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> PyTree[Array]:
    """Every replicate's draw, stacked along a new first axis [R].

    Args:
        draw: a key to arrays.
        key: replicate r draws from `fold_in(key, first + r)`.
        num_replicates: R.
        first: the number of the first replicate, to continue an earlier pass.
        chunk_size: replicates at once on a device, by default as many as its cache or memory holds well.
        mesh: the devices that replicates are sharded over, by default the current one alone.
    """

    def stack(keys: ChunkOfKeys, chunks: Int[Array, "n c"]) -> PyTree[Array]:
        stacked = lax.map(lambda chunk: jax.vmap(draw)(keys(first + chunk)), chunks)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stacked)

    stacked = _over_chunks(stack, draw, key, num_replicates, chunk_size, mesh)
    return jax.tree.map(lambda x: x[:num_replicates], stacked)


def fold_replicates(
    draw: Draw,
    key: PRNGKey,
    num_replicates: int,
    *,
    summarize: Callable[[PyTree[Array], Bool[Array, " c"]], Any],
    merge: Callable[[Any, Any], Any],
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any:
    """What `merge` makes of every chunk's `summarize`, in memory that does not grow with the number of replicates.

    Args:
        draw, key, num_replicates, chunk_size, mesh: as for `stack_replicates`.
        summarize: a chunk's draws [c, ...] and which of them count [c] to a pytree.
        merge: two of those to one. The summary of no replicates leaves the other as it is.
    """

    def fold(keys: ChunkOfKeys, chunks: Int[Array, "n c"]) -> Any:
        def step(total: Any, chunk: Int[Array, " c"]) -> tuple[Any, None]:
            draws = jax.vmap(draw)(keys(chunk))
            return merge(total, summarize(draws, chunk < num_replicates)), None

        total, _ = lax.scan(step, nothing(chunks.shape[1]), chunks)
        return jax.tree.map(lambda x: x[None], total)

    def nothing(chunk: int) -> Any:
        draws = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), jax.eval_shape(draw, key))
        return summarize(draws, jnp.zeros(chunk, bool))

    by_device = _over_chunks(fold, draw, key, num_replicates, chunk_size, mesh)
    first, others = (jax.tree.map(lambda x, part=part: x[part], by_device) for part in (0, slice(1, None)))
    total, _ = lax.scan(lambda total, other: (merge(total, other), None), first, others)
    return total


def _over_chunks(
    body: Callable[[ChunkOfKeys, Int[Array, "n c"]], PyTree[Array]],
    draw: Draw,
    key: PRNGKey,
    num_replicates: int,
    chunk_size: int | None,
    mesh: Mesh | None,
) -> PyTree[Array]:
    """`body` of every device's chunks of replicate numbers, its results laid along their first axes."""
    per_device = math.ceil(num_replicates / (mesh.size if mesh else 1))
    num_chunks = math.ceil(per_device / (chunk_size or _fitting_chunk(draw, key)))
    even_chunk = math.ceil(per_device / num_chunks)
    num_rows = num_chunks * (mesh.size if mesh else 1)
    chunks = jnp.arange(num_rows * even_chunk).reshape(num_rows, even_chunk)

    def on_device(key: PRNGKey, chunks: Int[Array, "n c"]) -> PyTree[Array]:
        return body(lambda chunk: jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, chunk), chunks)

    if mesh is None:
        return on_device(key, chunks)
    shards = PartitionSpec(mesh.axis_names)
    # The check of which values vary over the mesh would refuse a loss that scans from a constant.
    sharded = jax.shard_map(on_device, mesh=mesh, in_specs=(PartitionSpec(), shards), out_specs=shards, check_vma=False)
    return sharded(key, chunks)


def _fitting_chunk(draw: Draw, key: PRNGKey) -> int:
    """How many replicates to run at once, by the largest array that one of them makes."""
    jaxpr = jax.make_jaxpr(draw)(key)
    return max(1, CHUNK_ELEMENTS.get(jax.default_backend(), 2**22) // max(_sizes(jaxpr.jaxpr), default=1))


def _sizes(jaxpr: Jaxpr) -> Iterator[int]:
    for equation in jaxpr.eqns:
        yield from (math.prod(getattr(out.aval, "shape", ())) for out in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)):
            if isinstance(inner, ClosedJaxpr):
                yield from _sizes(inner.jaxpr)
            elif isinstance(inner, Jaxpr):
                yield from _sizes(inner)
