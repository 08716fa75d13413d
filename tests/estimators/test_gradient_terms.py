"""Terms that are zero in value: their first derivatives, and which estimators' second derivatives are right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monte_carlo import assert_unbiased, is_biased
from vae_jax import bounds, estimators
from vae_jax.estimators import ESTIMATORS
from vae_jax.estimators.gradient_terms import derivative_of, gradient_term
from vae_jax.problems import LinearGaussian
from vae_jax.studies import admitted


def test_a_term_is_zero_and_has_the_derivative_that_it_is_given():
    x, coefficient = jnp.array([0.3, -2.0]), jnp.array([5.0, 7.0])

    def total(x, coefficient):
        return gradient_term(coefficient * x, x).sum() + derivative_of(x).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(x, coefficient)
    assert value == 0
    np.testing.assert_array_equal(gradients[0], coefficient * x + 1)
    np.testing.assert_array_equal(gradients[1], 0)
    np.testing.assert_array_equal(jax.hessian(total)(x, coefficient), 0)


def test_a_term_is_not_broadcast():
    with pytest.raises(AssertionError):
        gradient_term(jnp.ones(3), jnp.ones((3, 1)))


PROBLEM = LinearGaussian()
PARAMS = PROBLEM.default_params
NUM_REPLICATES = 20_000
ANY_ORDER = {
    "pathwise", "closed_form_entropy", "inverse_cdf", "pathwise+antithetic_pairs", "pathwise+sobol",
}  # fmt: skip


def exact_second_derivatives():
    """d2 ELBO / d loc2 and / d scale2 of minus KL(q || posterior)."""
    precision = PROBLEM.posterior.scale**-2
    return np.array([-precision, -precision - PARAMS["scale"] ** -2])


@pytest.mark.parametrize("name", admitted(PROBLEM, PARAMS))
def test_second_derivatives_are_right_where_they_should_be_and_nowhere_else(name):
    @jax.jit
    @jax.vmap
    def second_derivatives(key):
        loss = partial(PROBLEM.estimate, key=key, num_samples=4, estimator=ESTIMATORS[name])
        hessian = jax.hessian(loss)({key: jnp.float32(value) for key, value in PARAMS.items()})
        return jnp.stack([hessian[each][each] for each in PARAMS])

    found = np.asarray(second_derivatives(jax.random.split(jax.random.key(1), NUM_REPLICATES)), float)
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(NUM_REPLICATES)
    if name in ANY_ORDER:
        assert_unbiased(mean, np.maximum(error, 1e-6), exact_second_derivatives(), resolution=0.3)
    else:
        assert is_biased(mean, np.maximum(error, 1e-6), exact_second_derivatives())


FIRST_ORDER = [
    *(getattr(estimators, name) for name in (
        "sticking_the_landing", "score_function", "optimal_score", "delta_method_pathwise", "delta_method_score",
        "measure_valued", "straight_through", "rebar", "relax", "arm", "disarm", "categorical_disarm",
    )),
    bounds.doubly_reparameterized, bounds.vimco, bounds.multi_sample_score_function, bounds.wake_inference_loss,
]  # fmt: skip


@pytest.mark.parametrize("function", FIRST_ORDER, ids=lambda function: function.__name__)
def test_estimators_say_that_their_second_derivatives_are_wrong(function):
    assert "First derivatives only" in " ".join(function.__doc__.split())
