"""Every bound in float16 and bfloat16: finite, and near the float32 answer as far as the type resolves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vae_jax import bounds, elbo, estimators

BOUNDS = {
    "elbo": elbo,
    "elbo by the score": partial(elbo, estimator=estimators.score_function),
    "importance-weighted": bounds.importance_weighted,
    "doubly reparameterized": bounds.doubly_reparameterized,
    "vimco": bounds.vimco,
    "multi-sample score function": bounds.multi_sample_score_function,
    "jackknife": bounds.jackknife,
    "renyi, 1/2": partial(bounds.renyi, alpha=0.5),
    "renyi, near 1": partial(bounds.renyi, alpha=0.9985),
    "renyi, -2": partial(bounds.renyi, alpha=-2.0),
    "chi": bounds.chi,
    "wake, model": bounds.wake_model_loss,
    "wake, inference": bounds.wake_inference_loss,
    "terms": lambda *args: bounds.elbo_terms(*args, log_prior=dist.Normal(0.0, 1.0).log_prob).reconstruction,
}
QUICK = ("elbo", "vimco", "renyi, near 1")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BOUNDS]
)
def test_values_and_gradients(name, dtype):
    """Over keys: half precision draws other noise than float32."""

    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.value_and_grad)
    def bound(params, key):
        loc, scale = params

        def log_joint(z):
            return dist.Normal(jnp.zeros_like(z), jnp.ones_like(z)).log_prob(z) - (z - 1) ** 2

        return BOUNDS[name](log_joint, dist.Normal(loc, scale), key, 8)

    keys = jax.random.split(jax.random.key(0), 500)
    half, full = (
        jax.tree.map(
            partial(np.asarray, dtype=float), jax.jit(bound)((jnp.asarray(0.3, kind), jnp.asarray(0.8, kind)), keys)
        )
        for kind in (dtype, "float32")
    )
    resolution = 30 * float(jnp.finfo(dtype).eps)
    for ours, theirs in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert np.isfinite(ours).all()
        error = np.hypot(ours.std(), theirs.std()) / np.sqrt(len(keys))
        assert ours.mean() == pytest.approx(theirs.mean(), abs=6 * error + resolution)
