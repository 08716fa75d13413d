import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from vae_jax import distributions
from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import GammaPrior, PoissonGamma
from vae_jax.problems.poisson_gamma.poisson_gamma_moments import NODES, LatentGrid
from vae_jax.problems.poisson_gamma.poisson_gamma_truncation import truncation_effect
from vae_jax.problems.quadrature import untreated_normal

PROBLEM = PoissonGamma()
PARAMS = PROBLEM.default_params


def scipy_log_joint(u, v, problem):
    prior_u, prior_v = (stats.gamma(p.concentration, scale=1 / p.rate) for p in (problem.prior_u, problem.prior_v))
    likelihood = sum(stats.poisson(u * v).logpmf(count) for count in problem.counts)
    return likelihood + prior_u.logpdf(u) + prior_v.logpdf(v)


@pytest.mark.parametrize(
    "problem", [PROBLEM, PoissonGamma(counts=(0, 7), prior_u=GammaPrior(0.5, 2.0), prior_v=GammaPrior(3.0, 0.1))]
)
def test_log_joint_is_the_model_s(problem, float64):
    for u, v in ((5.0, 1.0), (0.2, 3.0)):
        got = problem.log_joint({"u": jnp.asarray(u), "v": jnp.asarray(v)})
        assert got == pytest.approx(scipy_log_joint(u, v, problem), rel=1e-12)


def independent_elbo(problem, params):
    """Adaptive quadrature of q (log p - log q) over u and v, from SciPy's own distributions."""
    q_u, q_v = (scipy_factor(problem.family, params[f"loc_{n}"], params[f"scale_{n}"]) for n in ("u", "v"))

    def integrand(points):
        v, u = points.T
        weight = scipy_log_joint(u, v, problem) - q_u.logpdf(u) - q_v.logpdf(v)
        return q_u.pdf(u) * q_v.pdf(v) * weight

    # Below 1e-5 in v lies a mass of 1e-10.
    lowest, highest = (max(q_v.ppf(1e-12), 1e-5), q_u.ppf(1e-12)), (q_v.isf(1e-12), q_u.isf(1e-12))
    found = integrate.cubature(integrand, lowest, highest, rtol=0, atol=1e-7)
    assert found.status == "converged"
    return found.estimate


def scipy_factor(family, loc, scale):
    if family == "normal":
        return stats.truncnorm(-loc / scale, np.inf, loc=loc, scale=scale)
    return stats.lognorm(scale, scale=np.exp(loc))


@pytest.mark.parametrize("family", ["normal", "log_normal"])
def test_the_exact_elbo_is_that_of_adaptive_quadrature(family):
    problem = PoissonGamma(counts=(4, 6), family=family)
    params = problem.default_params
    exact = problem.exact(params, "pathwise")(1)["elbo"].mean.value
    assert exact == pytest.approx(independent_elbo(problem, params), abs=1e-5)


@pytest.mark.parametrize("family", ["normal", "log_normal"])
def test_the_exact_gradient_is_the_slope_of_the_exact_elbo(family):
    problem = PoissonGamma(family=family)
    params = problem.default_params

    def elbo(params):
        return problem.exact(params, "score_function")(1)["elbo"].mean.value

    exact = problem.exact(params, "score_function")(1)
    for name, step in ((name, 1e-4) for name in params):
        slope = (elbo(params | {name: params[name] + step}) - elbo(params | {name: params[name] - step})) / (2 * step)
        assert exact[name].mean.value == pytest.approx(slope, rel=2e-6)


@pytest.mark.parametrize("family", ["normal", "log_normal"])
def test_the_score_has_mean_zero_under_the_support_rule(family):
    problem = PoissonGamma(family=family)
    grid = LatentGrid(problem.density, problem.default_params, NODES[family])
    assert grid.mean(np.ones_like(grid.log_weight)) == pytest.approx(1, abs=1e-13)
    for name in PARAMS:
        assert abs(grid.mean(grid.score(name))) < 1e-12


def test_without_the_rule_the_score_has_another_mean():
    grid = LatentGrid(PROBLEM.density, PARAMS, untreated_normal)
    assert abs(grid.mean(grid.score("scale_v"))) > 1e-6


def test_the_truncation_s_effect_is_small_and_stated():
    effect = truncation_effect(PROBLEM, PARAMS)
    assert 1e-6 < abs(effect["elbo"]) < 1e-4
    assert max(abs(value) for value in effect.values()) < 5e-3
    far = truncation_effect(PROBLEM, PARAMS | {"scale_v": 0.05})
    assert max(abs(value) for value in far.values()) < 1e-12


# Facts about this problem that were worked out elsewhere, at the published parameters.
KNOWN = {
    "score_function": {
        "elbo": (-26.4816, 2.1357),
        "loc_u": (-1.70509, 52.196),
        "scale_u": (1.05091, 72.607),
        "loc_v": (-6.921, 138.66),
        "scale_v": (-5.397, 207.83),
    },
    "pathwise": {"loc_u": (-1.70509, 2.2182), "scale_u": (1.05091, 2.8746)},
}


@pytest.mark.parametrize("estimator", KNOWN)
def test_known_moments(estimator):
    exact = PROBLEM.exact(PARAMS, estimator)(1)
    for name, (mean, std) in KNOWN[estimator].items():
        assert exact[name].mean.value == pytest.approx(mean, rel=3e-4)
        assert exact[name].std.value == pytest.approx(std, rel=3e-5)


LOCATION_SCALE = PoissonGamma(family="location_scale_normal")


@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing"])
def test_location_scale_gradients_of_v_have_no_moments(estimator):
    exact = LOCATION_SCALE.exact(PARAMS, estimator)(1000)
    for name in ("loc_v", "scale_v"):
        assert exact[name].mean == ("undefined", None)
        assert exact[name].std == ("infinite", None)
    assert exact["loc_u"].std.status == "finite"


def test_their_divergence_is_a_logarithm_and_a_pole():
    """The truncated integrals of |1/v| and 1/v^2 grow as theory says when the cut goes to zero."""
    density = stats.truncnorm(-5, np.inf, loc=1, scale=0.2).pdf

    def beyond(cut, power):
        return integrate.quad(lambda t: density(np.exp(t)) * np.exp(t * (1 - power)), np.log(cut), 0, limit=200)[0]

    steps = [beyond(cut, 1) - beyond(10 * cut, 1) for cut in (1e-6, 1e-9)]
    assert steps == pytest.approx([density(0) * np.log(10)] * 2, rel=1e-3)
    assert beyond(1e-9, 2) / beyond(1e-8, 2) == pytest.approx(10, rel=1e-2)


@pytest.mark.parametrize(
    ("problem", "params"),
    [
        (PROBLEM, PARAMS),
        (PoissonGamma(family="log_normal"), PoissonGamma(family="log_normal").default_params),
        (LOCATION_SCALE, PARAMS | {"scale_v": 0.05}),
        (PoissonGamma(counts=(0,), prior_v=GammaPrior(1.0, 4.0), family="location_scale_normal"), PARAMS),
    ],
    ids=["quantiles", "log_normal", "narrow", "no 1/v term"],
)
def test_they_have_moments_where_nothing_diverges(problem, params):
    assert problem.exact(params, "pathwise")(1)["loc_v"].std.status == "finite"


def test_of_another_unbiased_estimator_the_means_alone_are_known():
    exact, known = (PROBLEM.exact(PARAMS, name)(5) for name in ("another", "score_function"))
    for parameter, moments in exact.items():
        assert moments.mean == known[parameter].mean
        assert moments.std.status == "unknown"


def test_log_normal_defaults_match_the_normals_moments():
    params = PoissonGamma(family="log_normal").default_params
    for latent, mean, std in (("u", 5.0, 0.5), ("v", 1.0, 0.2)):
        factor = scipy_factor("log_normal", params[f"loc_{latent}"], params[f"scale_{latent}"])
        assert (factor.mean(), factor.std()) == pytest.approx((mean, std), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_ten_million_draws_are_free_of_nans(seed):
    def log_weight(key):
        q = PROBLEM.q(PARAMS)
        latents = distributions.sample(q, key, 10_000_000)
        return jax.vmap(PROBLEM.log_joint)(latents) - q["u"].log_prob(latents["u"]) - q["v"].log_prob(latents["v"])

    assert jnp.isfinite(jax.jit(log_weight)(jax.random.key(seed))).all()


@pytest.mark.parametrize("loc_v", [-8.0, -2.0, 0.0])
@pytest.mark.parametrize("scale_v", [0.01, 0.3])
def test_all_estimators_have_one_mean_wherever_it_exists(loc_v, scale_v):
    problem = PoissonGamma(family="log_normal")
    params = problem.default_params | {"loc_v": loc_v, "scale_v": scale_v}
    means = [[m.mean.value for m in problem.exact(params, name)(2).values()] for name in ESTIMATORS]
    np.testing.assert_allclose(means, [means[0]] * len(means), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("loc_v", "scale_v"), [(1e-3, 1e-5), (1.0, 0.1), (40.0, 3.0)])
def test_and_along_the_location_scale_path_of_narrow_normals(loc_v, scale_v):
    params = PARAMS | {"loc_v": loc_v, "scale_v": scale_v}
    path, score = (
        [m.mean.value for m in LOCATION_SCALE.exact(params, name)(2).values()]
        for name in ("pathwise", "score_function")
    )
    np.testing.assert_allclose(path, score, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("loc_v", "scale_v"), [(1.0, 0.2), (0.0, 0.5), (-1.0, 0.7), (40.0, 3.0)])
def test_and_under_normals_that_follow_their_quantiles(loc_v, scale_v):
    params = PARAMS | {"loc_v": loc_v, "scale_v": scale_v}
    means = [[m.mean.value for m in PROBLEM.exact(params, name)(2).values()] for name in ESTIMATORS]
    np.testing.assert_allclose(means, [means[0]] * len(means), rtol=1e-6, atol=1e-6)


def test_at_loc_zero_the_location_scale_path_of_the_scale_does_not_diverge():
    exact = LOCATION_SCALE.exact(PARAMS | {"loc_v": 0.0}, "pathwise")(1)
    assert exact["loc_v"].std.status == "infinite"
    assert exact["scale_v"].std.status == "finite"


def test_a_moment_beyond_float64_is_unknown():
    exact = PoissonGamma(family="log_normal").exact(PARAMS | {"scale_v": 20.0}, "score_function")(1)
    assert exact["loc_v"].std.status == "unknown"


def test_leave_one_out_needs_a_second_sample():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        PROBLEM.exact(PARAMS, "score_function+leave_one_out")(1)


def test_any_sequences_are_taken():
    problem = PoissonGamma(counts=np.array([3, 4]), prior_u=GammaPrior(5.0, 1.0))
    assert problem == PoissonGamma(counts=(3, 4))
    assert hash(problem) == hash(PoissonGamma(counts=[3, 4]))


MISUSES = [
    ("counts must have at least one value, got none", {"counts": ()}),
    ("counts must be integers from 0 .*, got -1 as value 2", {"counts": (1, -1)}),
    ("counts must be integers from 0 .*, got 1.5 as value 1", {"counts": (1.5,)}),
    ("counts must be integers from 0 .*, got nan", {"counts": (float("nan"),)}),
    ("counts must be integers from 0 .*, got 1e[+]40", {"counts": (1e40,)}),
    ("prior_v must have a positive, finite rate, got 0", {"prior_v": GammaPrior(4.0, 0.0)}),
    ("prior_u must have a positive, finite concentration, got -1", {"prior_u": GammaPrior(-1.0, 1.0)}),
    ("family must be one of normal, log_normal, location_scale_normal, got cauchy", {"family": "cauchy"}),
]


@pytest.mark.parametrize(("message", "arguments"), MISUSES)
def test_misuse_is_refused(message, arguments):
    with pytest.raises(ValueError, match=message):
        PoissonGamma(**arguments)


@pytest.mark.parametrize(
    "params",
    [{"scale_u": 0.0}, {"scale_v": -1.0}, {"loc_u": float("inf")}, {"scale_u": 1e-6}, {"loc_v": -1.0}, {"w": 1.0}],
)
def test_bad_parameters_are_refused(params):
    (name,) = params
    with pytest.raises(ValueError, match=name):
        PROBLEM.check_params(PARAMS | params)
