import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from scipy import stats

from vae_jax import distributions
from vae_jax.inference import MeanFieldNormal, fit
from vae_jax.inference.fit.numpyro_models import numpyro_log_joint


def test_a_numpyro_model_is_its_log_joint(float64):
    x, y = jnp.array([0.5, -1.0, 2.0]), jnp.array([1.0, 0.0, 4.0])

    def model(x, y, scale):
        weight = numpyro.sample("weight", dist.Normal(0, scale).expand([2]).to_event(1))
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        with numpyro.plate("data", len(y)):
            local = numpyro.sample("local", dist.Uniform(0.0, 2.0))
            numpyro.sample("y", dist.Normal(weight[0] + weight[1] * x + local, noise), obs=y)

    def by_hand(z):
        value = dist.Normal(0, 2.0).log_prob(z["weight"]).sum() + dist.HalfNormal(1.0).log_prob(z["noise"])
        value += dist.Uniform(0.0, 2.0).log_prob(z["local"]).sum()
        return value + dist.Normal(z["weight"][0] + z["weight"][1] * x + z["local"], z["noise"]).log_prob(y).sum()

    log_joint, supports = numpyro_log_joint(model, x, y, scale=2.0)
    assert {name: support.shape for name, support in supports.items()} == {"weight": (2,), "noise": (), "local": (3,)}
    family = MeanFieldNormal(supports)
    draws = jax.jit(lambda key: distributions.sample(family.distribution(family.init(key)), key, 5))(jax.random.key(0))
    (ours, our_slopes), (theirs, their_slopes) = (
        jax.jit(jax.vmap(jax.value_and_grad(each)))(draws) for each in (log_joint, by_hand)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    chex.assert_trees_all_close(our_slopes, their_slopes, rtol=1e-10)


def test_a_model_with_other_data_compiles_nothing_anew():
    num_traces = 0

    def model(y, kind):
        nonlocal num_traces
        num_traces += 1
        loc = numpyro.sample("loc", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(loc, 1.0 if kind == "narrow" else 2.0), obs=y)

    def fitted(y, kind):
        """The posterior's mean, and how often fitting traced the model."""
        log_joint = numpyro_log_joint(model, y, kind).log_joint
        before = num_traces
        return float(fit(log_joint, family, jax.random.key(0), **options).mean()["loc"]), num_traces - before

    family = MeanFieldNormal({"loc": constraints.real})
    options = {"optimizer": optax.adam(0.05), "num_steps": 1000, "window": 500, "num_final_samples": 100}
    first, traced = fitted(jnp.array(1.0), "narrow")
    second, traced_again = fitted(jnp.array(2.0), "narrow")
    assert traced > 0 == traced_again
    assert second - first == pytest.approx(0.99, abs=0.3)
    assert fitted(jnp.array(2.0), "wide")[1] > 0


def test_a_model_whose_settings_cannot_be_compared_is_taken_too():
    def model(box):
        numpyro.sample("z", dist.Normal(box.value, 1.0))

    log_joint, _ = numpyro_log_joint(model, Box(3.0))
    assert float(log_joint({"z": jnp.array(3.0)})) == pytest.approx(-0.5 * math.log(2 * math.pi))


class Box:
    """Equal to others, and so without a hash."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Box)


def discrete_model():
    numpyro.sample("switch", dist.Bernoulli(0.5))


def dependent_model():
    top = numpyro.sample("top", dist.HalfNormal(1.0))
    numpyro.sample("below", dist.Uniform(0.0, top))


def subsampling_model():
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("data", 10, subsample_size=3) as rows:
        numpyro.sample("y", dist.Normal(loc, 1), obs=jnp.zeros(10)[rows])


def learning_model():
    numpyro.sample("z", dist.Normal(numpyro.param("center", 0.0), 1))


def improper_model():
    numpyro.sample("z", dist.ImproperUniform(constraints.real, (), ()))


def masked_model():
    numpyro.sample("z", dist.Normal(0, 1).mask(False))


def masked_vector_model():
    with numpyro.plate("entries", 3), numpyro.handlers.mask(mask=jnp.array([True, False, True])):
        numpyro.sample("z", dist.Normal(0, 1))


def half_discrete_model():
    x = numpyro.sample("x", dist.Poisson(jnp.ones(2)), obs=jnp.zeros(2, int), obs_mask=jnp.array([True, False]))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=jnp.zeros(2))


def observed_model():
    numpyro.sample("y", dist.Normal(0, 1), obs=jnp.array(0.0))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (discrete_model, TypeError, "latent switch must be continuous, got Bernoulli"),
        (dependent_model, ValueError, "latent below must have a fixed support"),
        (subsampling_model, ValueError, "plate data must hold all of its 10 elements, got a subsample of 3"),
        (learning_model, ValueError, "model must have no numpyro.param, got center"),
        (improper_model, TypeError, "latent z must have a proper prior, got ImproperUniform"),
        (masked_model, TypeError, "latent z must have a proper prior, got a density that is masked away"),
        (masked_vector_model, TypeError, "latent z must have a proper prior, got a density that is masked away"),
        (half_discrete_model, TypeError, "latent x_unobserved must be continuous, got Poisson"),
        (observed_model, ValueError, "model must have a latent, got none"),
    ],
)
def test_models_that_are_refused(model, error, message):
    with pytest.raises(error, match=message) as caught:
        numpyro_log_joint(model)
    assert "\n" not in str(caught.value)


Y, SEEN = jnp.array([1.0, 2.0, 0.0, 0.5]), jnp.array([True, True, False, True])


@pytest.mark.parametrize("family", [dist.Normal, lambda loc, scale: dist.Poisson(jnp.exp(loc) * scale)])
def test_entries_that_nothing_depends_on_are_left_out(family, float64):
    """Discrete ones too."""

    def model(y, seen):
        a = numpyro.sample("a", dist.Normal(0, 1))
        numpyro.sample("y", family(a * jnp.ones(4), 1.0), obs=y, obs_mask=seen)

    y = jnp.floor(Y)
    log_joint, supports = numpyro_log_joint(model, y, SEEN)
    assert list(supports) == ["a"]
    a = jnp.array(0.4)
    seen = np.asarray(SEEN)
    expected = stats.norm.logpdf(0.4) + family(a, 1.0).log_prob(y[seen]).sum()
    assert float(log_joint({"a": a})) == pytest.approx(float(expected), rel=1e-6)


def test_entries_that_another_site_depends_on_are_latents(float64):
    def model(x, seen, y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        x = numpyro.sample("x", dist.LogNormal(m, jnp.ones(4)), obs=x, obs_mask=seen)
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)

    x, y = jnp.array([1.0, 2.0, 7.0, 0.5]), jnp.array([1.1, 1.9, 0.7, 0.4])
    log_joint, supports = numpyro_log_joint(model, x, SEEN, y)
    assert {name: support.shape for name, support in supports.items()} == {"m": (), "x_unobserved": (1,)}
    imputed = 0.8
    whole = np.where(np.asarray(SEEN), np.asarray(x), imputed)
    expected = stats.norm.logpdf(0.3) + stats.lognorm(1.0, scale=np.exp(0.3)).logpdf(whole).sum()
    expected += stats.norm(whole, 0.5).logpdf(np.asarray(y)).sum()
    sample = {"m": jnp.array(0.3), "x_unobserved": jnp.array([imputed])}
    value, slopes = jax.jit(jax.value_and_grad(lambda z: log_joint(z)))(sample)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    draws = distributions.sample(MeanFieldNormal(supports).distribution(_start(supports)), jax.random.key(0), 5)
    assert (draws["x_unobserved"] > 0).all()


def _start(supports):
    return MeanFieldNormal(supports).init(jax.random.key(0))


def test_a_missing_link_of_a_chain_is_kept_and_its_missing_end_is_not():
    def model(seen):
        first = numpyro.sample("first", dist.Normal(0, 1), obs=jnp.array(0.3), obs_mask=seen[0])
        second = numpyro.sample("second", dist.Normal(first, 1), obs=jnp.array(0.5), obs_mask=seen[1])
        numpyro.sample("third", dist.Normal(second, 1), obs=jnp.array(0.7), obs_mask=seen[2])

    kept = numpyro_log_joint(model, jnp.array([True, False, True])).supports
    assert {name: support.shape for name, support in kept.items()} == {"second_unobserved": (1,)}
    with pytest.raises(ValueError, match="model must have a latent, got none"):
        numpyro_log_joint(model, jnp.array([True, True, False]))


def test_the_evidence_of_a_partly_observed_model_is_reached():
    def model(y, seen):
        a = numpyro.sample("a", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(a * jnp.ones(4), 1.0), obs=y, obs_mask=seen)

    target = numpyro_log_joint(model, Y, SEEN)
    options = {"optimizer": optax.adam(0.05), "num_steps": 1000, "num_final_samples": 1000}
    fitted = fit(target.log_joint, MeanFieldNormal(target.supports), jax.random.key(0), **options)
    exact = stats.multivariate_normal(np.zeros(3), np.eye(3) + 1).logpdf(np.asarray(Y)[np.asarray(SEEN)])
    assert fitted.elbo == pytest.approx(exact, abs=0.01)


def grouped(y, group):
    with numpyro.plate("groups", int(group.max()) + 1):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean[group], 1.0), obs=y)


def counted(counts):
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("counts", dist.Multinomial(probs=shares, total_count=int(counts.sum())), obs=counts)


def branching(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean, 1.0 if y.sum() > 0 else 2.0), obs=y)


@pytest.mark.parametrize("made", [np.array, jnp.array])
@pytest.mark.parametrize(
    ("model", "args"),
    [(grouped, ([1.0, 2.0, 0.5], [0, 1, 1])), (counted, ([3, 0, 1],)), (branching, ([1.0, 2.0],))],
)
def test_arrays_that_a_model_reads_in_python(model, args, made):
    args = [made(each) for each in args]
    log_joint, supports = numpyro_log_joint(model, *args)
    sample = jax.tree.map(lambda support: jnp.full(support.shape, 1 / 3), supports)
    expected = numpyro.infer.util.log_density(model, tuple(args), {}, sample)[0]
    assert float(jax.jit(lambda log_joint, z: log_joint(z))(log_joint, sample)) == pytest.approx(float(expected))


def test_what_the_model_does_not_read_in_python_stays_an_argument():
    """A NumPy array that counts the groups, and a JAX array of data."""
    y, group = jnp.array([1.0, 2.0, 0.5]), np.array([0, 1, 1])
    log_joint, _ = numpyro_log_joint(grouped, y, group)
    assert [leaf.tolist() for leaf in jax.tree.leaves(log_joint)] == [y.tolist()]
