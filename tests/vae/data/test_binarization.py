import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.vae.data.binarization import stochastically_binarized


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_come_out_for_certain(level):
    """Over two million pixels: a chance of one in 2^16, the least that 16 bits can give, would show but for e^-32."""
    images = jnp.full((1, 2**21), level, jnp.uint8)
    drawn = np.asarray(stochastically_binarized(images, jax.random.key(0)))
    np.testing.assert_array_equal(np.unique(drawn), [level / 255])
