"""Many models at once: along a leading axis of their keys and states, sharded over devices."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from vae_jax.typing import PRNGKey

AXIS = "seeds"

SeedKeys: TypeAlias = Key[Array, "*S"]
"""The key of a run, or of each of several."""


def seed_mesh(num_seeds: int) -> Mesh:
    """As many devices as share the seeds evenly."""
    return jax.make_mesh((math.gcd(num_seeds, len(jax.devices())),), (AXIS,))


def seed_keys(key: PRNGKey, num_seeds: int) -> SeedKeys:
    """The key of each seed's run [S], or that of the first alone if there is one."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_seeds))
    return keys if num_seeds > 1 else keys[0]


def over_seeds(function: Callable[..., Any], num_seeds: int, mesh: Mesh | None) -> Callable[..., Any]:
    """A function of shared data, a key, a state and more that is shared, over the seeds of the key and the state.

    One seed has no axis, and its function is left as it is: an axis of length 1 would cost time.
    """
    if num_seeds == 1:
        return function

    def of_all(shared: Any, keys: SeedKeys, states: Any, *more: Any) -> Any:
        def of_one(key: PRNGKey, state: Any) -> Any:
            return function(shared, key, state, *more)

        if jax.default_backend() == "cpu":
            # One after another on each device: the state of one stays in cache, that of several does not.
            return jax.lax.map(lambda arguments: of_one(*arguments), (keys, states))
        return jax.vmap(of_one)(keys, states)

    if mesh is None:
        return of_all
    by_seed, whole = PartitionSpec(AXIS), PartitionSpec()

    def sharded(shared: Any, keys: SeedKeys, states: Any, *more: Any) -> Any:
        in_specs = (whole, by_seed, by_seed, *(whole for _ in more))
        return jax.shard_map(of_all, mesh=mesh, in_specs=in_specs, out_specs=by_seed, check_vma=False)(
            shared, keys, states, *more
        )

    return sharded


def place_by_seed(tree: Any, mesh: Mesh | None) -> Any:
    """Keys or states with an axis of seeds on the devices of the mesh that have them."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def to_devices(array: Any, mesh: Mesh | None) -> Array:
    """An array on every device of the mesh, or on the default one."""
    return jax.device_put(array, None if mesh is None else NamedSharding(mesh, PartitionSpec()))
