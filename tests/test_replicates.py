import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh

from vae_jax.replicates import _fitting_chunk, fold_replicates, replicate_mesh, stack_replicates

KEY = jax.random.key(0)


def mesh_of(num_devices):
    return None if num_devices is None else Mesh(np.asarray(jax.devices()[:num_devices]), ("replicates",))


NUM_DEVICES = pytest.mark.parametrize(
    "num_devices", [None, 4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))]
)


def draw(key):
    return {"x": jax.random.normal(key, (3,)), "y": jax.random.uniform(key)}


@NUM_DEVICES
@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
def test_replicate_r_draws_from_the_key_folded_with_r(chunk_size, num_devices):
    stacked = stack_replicates(draw, KEY, 11, chunk_size=chunk_size, mesh=mesh_of(num_devices))
    one_by_one = [draw(jax.random.fold_in(KEY, number)) for number in range(11)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    chex.assert_trees_all_close(stacked, expected, rtol=1e-6)


def test_a_later_pass_continues_an_earlier_one():
    whole = stack_replicates(draw, KEY, 10)
    rest = stack_replicates(draw, KEY, 6, first=4)
    np.testing.assert_allclose(rest["x"], whole["x"][4:], rtol=1e-6)


@NUM_DEVICES
@pytest.mark.parametrize("num_replicates", [1, 3, 10])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_a_fold_counts_every_replicate_once(num_replicates, chunk_size, num_devices):
    total = fold_replicates(
        lambda key: jax.random.normal(key),
        KEY,
        num_replicates,
        summarize=lambda x, counted: {"sum": jnp.where(counted, x, 0).sum(), "number": counted.sum()},
        merge=lambda a, b: jax.tree.map(jnp.add, a, b),
        chunk_size=chunk_size,
        mesh=mesh_of(num_devices),
    )
    assert total["number"] == num_replicates
    expected = sum(jax.random.normal(jax.random.fold_in(KEY, number)) for number in range(num_replicates))
    assert total["sum"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("num_devices", [None, 2, 4])
def test_a_last_group_that_is_not_full_is_counted_once(num_devices, monkeypatch):
    """Two chunks make a group, and a device has five: what fills its last group is another device's to count."""
    monkeypatch.setattr("vae_jax.replicates.GROUP_ELEMENTS", 2)
    num_replicates = 5 * (num_devices or 1)
    counts = fold_replicates(
        lambda key: jax.random.bits(key) * 0.0,
        KEY,
        num_replicates,
        summarize=lambda draws, counted: counted.sum(),
        merge=jnp.add,
        chunk_size=1,
        mesh=mesh_of(num_devices),
    )
    assert counts == num_replicates


def test_a_draw_may_scan_from_a_constant_on_a_mesh():
    def scanning(key):
        return lax.scan(lambda total, x: (total + x, None), 0.0, jax.random.normal(key, (4,)))[0]

    stacked = stack_replicates(scanning, KEY, 8, mesh=replicate_mesh())
    assert stacked.shape == (8,)
    assert np.isfinite(stacked).all()


def test_chunks_shrink_as_samples_grow():
    def of_size(size):
        # Inside a scan, where a look at the outermost operations alone would miss it.
        return lambda key: lax.scan(lambda c, k: (c, jax.random.normal(k, (size,)).sum()), 0.0, key[None])[1].sum()

    small, large = (_fitting_chunk(of_size(size), KEY, None) for size in (1_000, 100_000))
    assert small >= 50 * large
    assert _fitting_chunk(of_size(200_000), KEY, None) == 2
    assert _fitting_chunk(of_size(10_000_000), KEY, None) == 1


def test_memory_does_not_grow_with_the_number_of_replicates():
    def total(key, num_replicates):
        return fold_replicates(
            lambda key: jax.random.normal(key),
            key,
            num_replicates,
            summarize=lambda x, counted: jnp.where(counted, x, 0).sum(),
            merge=jnp.add,
            mesh=replicate_mesh(),
        )

    def temporary_bytes(num_replicates):
        compiled = jax.jit(total, static_argnums=1).lower(KEY, num_replicates).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(100_000_000) <= 1.1 * temporary_bytes(1_000_000)
