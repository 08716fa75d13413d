"""Scores of parameters that a support moves with are refused, and no others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyAffine,
    PowerTransform,
    SigmoidTransform,
)

from vae_jax import bounds, distributions
from vae_jax.estimators import in_blocks, optimal_score, pathwise, score_function, sticking_the_landing


def transformed(base, *parts):
    return dist.TransformedDistribution(base, list(parts))


MOVING = {
    "Delta": lambda x: dist.Delta(x),
    "Uniform": lambda x: dist.Uniform(0.0, x),
    "a vector": lambda x: dist.Uniform(jnp.zeros(2), x).to_event(1),
    "Pareto's scale": lambda x: dist.Pareto(x, 3.0),
    "a truncation from below": lambda x: dist.TruncatedNormal(0.0, 1.0, low=x),
    "a truncation from above": lambda x: dist.TruncatedNormal(0.0, 1.0, high=x),
    "a truncation on both sides": lambda x: dist.TruncatedNormal(0.0, 1.0, low=0.0, high=x),
    "a shifted half-line": lambda x: dist.TransformedDistribution(dist.Exponential(1.0), AffineTransform(x, 1.0)),
    "a stretched interval": lambda x: dist.TransformedDistribution(dist.Beta(2.0, 2.0), AffineTransform(0.0, x)),
    "a stretched Uniform": lambda x: transformed(dist.Uniform(0.0, 1.0), AffineTransform(0.0, x)),
    "a power of an interval": lambda x: transformed(dist.Uniform(1.0, 2.0), PowerTransform(x)),
    "a stretched Pareto": lambda x: transformed(dist.Pareto(1.0, 3.0), AffineTransform(0.0, x)),
    "a composed shift": lambda x: transformed(dist.Exponential(1.0), ComposeTransform([AffineTransform(x, 1.0)])),
    "an inverse shift": lambda x: transformed(dist.Exponential(1.0), AffineTransform(x, 1.0).inv),
    "a stretched shift": lambda x: transformed(
        dist.Exponential(1.0), AffineTransform(1.0, 1.0), AffineTransform(0.0, x)
    ),
    "a shifted log-logistic": lambda x: transformed(dist.Logistic(0.0, 1.0), ExpTransform(), AffineTransform(x, 1.0)),
    "an exponential of a shift": lambda x: transformed(dist.Exponential(1.0), AffineTransform(x, 1.0), ExpTransform()),
    "a shifted vector": lambda x: transformed(
        dist.Exponential(jnp.ones(2)).to_event(1), IndependentTransform(AffineTransform(x * jnp.ones(2), 1.0), 1)
    ),
    "a sheared vector": lambda x: transformed(
        dist.Exponential(jnp.ones(2)).to_event(1), LowerCholeskyAffine(x * jnp.ones(2), jnp.eye(2))
    ),
    "a component of a mixture": lambda x: dist.MixtureGeneral(
        dist.Categorical(probs=jnp.array([0.4, 0.6])), [dist.Uniform(0.0, x), dist.Normal(0.0, 1.0)],
        support=constraints.real,
    ),
}  # fmt: skip
FIXED = {
    "Pareto's index": lambda x: dist.Pareto(0.3, x + 4.0),
    "the loc of a truncation": lambda x: dist.TruncatedNormal(x, 1.0, low=0.0),
    "a scaled half-line": lambda x: dist.TransformedDistribution(dist.Exponential(1.0), AffineTransform(0.0, x)),
    "a shifted line": lambda x: dist.TransformedDistribution(dist.Normal(0.0, 1.0), AffineTransform(x, 1.0)),
    "a scaled logistic share": lambda x: transformed(
        dist.Logistic(0.0, 1.0), AffineTransform(0.1, x), SigmoidTransform()
    ),
    "a shifted log-normal": lambda x: transformed(dist.Normal(0.0, 0.4), ExpTransform(), AffineTransform(x, 1.0)),
    "a power of a share": lambda x: transformed(dist.Beta(2.0, 2.0), PowerTransform(x)),
    "Kumaraswamy": lambda x: dist.Kumaraswamy(1.6, x + 1.0),
    "InverseGamma": lambda x: dist.InverseGamma(2.5, x),
    "a folded normal": lambda x: dist.FoldedDistribution(dist.Normal(x, 1.0)),
    "PositiveNormal": lambda x: distributions.PositiveNormal(x, 1.0),
}
SCORES = {"score_function": score_function, "blocks": in_blocks(score_function, 2)}


def mean_of_cosine(x, build_q, estimator, num_samples=4):
    return estimator(lambda z, q: jnp.cos(z).sum(), build_q(x), jax.random.key(0), num_samples)


@pytest.mark.parametrize("estimator", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("build_q", MOVING.values(), ids=MOVING)
def test_the_score_of_an_end_of_the_support_is_refused(build_q, estimator):
    cost = partial(mean_of_cosine, build_q=build_q, estimator=estimator)
    assert jnp.isfinite(cost(0.7))
    for transform in (jax.grad, lambda f: jax.jit(jax.grad(f)), jax.jacfwd):
        with pytest.raises(TypeError, match="a support that its parameters do not move"):
            jax.eval_shape(transform(cost), 0.7)


@pytest.mark.parametrize("build_q", FIXED.values(), ids=FIXED)
def test_parameters_that_leave_the_support_alone_keep_their_score(build_q):
    by_score = jax.jit(
        jax.grad(partial(mean_of_cosine, build_q=build_q, estimator=score_function, num_samples=200_000))
    )
    by_path = jax.jit(jax.grad(partial(mean_of_cosine, build_q=build_q, estimator=pathwise, num_samples=200_000)))
    np.testing.assert_allclose(by_score(0.7), by_path(0.7), atol=0.02)


def test_the_optimal_score_refuses_it_too():
    cost = partial(mean_of_cosine, build_q=MOVING["Uniform"], estimator=optimal_score)
    with pytest.raises(TypeError, match="a support that its parameters do not move"):
        jax.grad(cost)(0.7)


def test_an_end_that_stays_where_it_is_is_taken():
    def cost(model):
        return score_function(lambda z, q: jnp.cos(model * z), dist.Uniform(0.0, 1.0), jax.random.key(0), 100)

    assert jnp.isfinite(jax.grad(cost)(0.7))


@pytest.mark.parametrize("bound", [bounds.vimco, bounds.multi_sample_score_function, bounds.doubly_reparameterized])
def test_bounds_that_use_the_score_s_mean_refuse_it_too(bound):
    def loss(x):
        return bound(lambda z: -z, dist.Uniform(0.0, x), jax.random.key(0), 4)

    with pytest.raises(TypeError, match="a support that its parameters do not move"):
        jax.grad(loss)(0.7)


def test_sticking_the_landing_drops_no_score_whose_mean_is_not_zero():
    cost = partial(mean_of_cosine, build_q=MOVING["Uniform"], estimator=sticking_the_landing)
    with pytest.raises(TypeError, match="a support that its parameters do not move"):
        jax.grad(cost)(0.7)
