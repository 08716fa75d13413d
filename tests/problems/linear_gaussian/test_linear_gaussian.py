"""The linear-Gaussian problem: its exact answers against formulas and quadrature."""

import math

import jax.numpy as jnp
import pytest
from scipy import integrate, stats

from vae_jax.problems.linear_gaussian.linear_gaussian import LinearGaussian

LINEAR = LinearGaussian(x=1.5, prior_loc=0.3, prior_scale=1.2, noise_scale=0.8)


def test_the_evidence_and_posterior_are_those_of_quadrature(float64):
    def joint(z):
        return stats.norm.pdf(z, 0.3, 1.2) * stats.norm.pdf(1.5, z, 0.8)

    evidence, loc, square = (integrate.quad(lambda z, p=p: joint(z) * z**p, -9, 9, epsabs=1e-13)[0] for p in range(3))
    assert LINEAR.log_evidence == pytest.approx(math.log(evidence), abs=1e-10)
    assert LINEAR.posterior.loc == pytest.approx(loc / evidence, abs=1e-9)
    assert LINEAR.posterior.scale**2 == pytest.approx(square / evidence - (loc / evidence) ** 2, abs=1e-9)
    assert float(LINEAR.log_joint(jnp.asarray(0.7))) == pytest.approx(math.log(joint(0.7)), abs=1e-12)


def test_the_elbo_is_its_formula_and_its_gradient_the_slope():
    posterior = LINEAR.posterior

    def elbo(loc, scale):
        ratio = scale / posterior.scale
        return LINEAR.log_evidence - (
            ((loc - posterior.loc) / posterior.scale) ** 2 / 2 + (ratio**2 - 1) / 2 - math.log(ratio)
        )

    loc, scale = LINEAR.default_params.values()
    exact = {name: m.mean.value for name, m in LINEAR.exact(LINEAR.default_params, "score_function")(1).items()}
    step = 1e-5
    assert exact["elbo"] == pytest.approx(elbo(loc, scale), abs=1e-12)
    assert exact["loc"] == pytest.approx((elbo(loc + step, scale) - elbo(loc - step, scale)) / (2 * step), abs=1e-8)
    assert exact["scale"] == pytest.approx((elbo(loc, scale + step) - elbo(loc, scale - step)) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("scale", [0.3, 0.66, 1.5])
def test_the_closed_forms_of_the_path_derivatives(scale):
    """Var d/dloc and Var d/dlog scale of the two derivatives along the path."""
    loc, posterior = 1.1, LINEAR.posterior
    params = {"loc": loc, "scale": scale}
    square, target, gap = scale**2, posterior.scale**2, (loc - posterior.loc) ** 2
    expected = {
        "pathwise": (square / target**2, gap * square / target**2 + 2 * square**2 / target**2),
        "sticking_the_landing": (
            square * (1 / square - 1 / target) ** 2,
            2 * (1 - square / target) ** 2 + square * gap / target**2,
        ),
    }
    expected["closed_form_entropy"] = expected["pathwise"]
    for name, (of_loc, of_log_scale) in expected.items():
        exact = LINEAR.exact(params, name)(1)
        assert exact["loc"].std.value ** 2 == pytest.approx(of_loc, rel=1e-10)
        assert (exact["scale"].std.value * scale) ** 2 == pytest.approx(of_log_scale, rel=1e-10)
    stuck, usual = (LINEAR.exact(params, name)(1)["loc"].std.value for name in ("sticking_the_landing", "pathwise"))
    assert (stuck < usual) == (square > target / 2)


def test_at_the_posterior_the_bound_is_the_evidence_and_the_path_derivative_has_no_variance():
    params = LINEAR.posterior._asdict()
    exact = LINEAR.exact(params, "sticking_the_landing")(3)
    assert exact["elbo"].mean.value == pytest.approx(LINEAR.log_evidence, abs=1e-12)
    assert exact["loc"].std.value == pytest.approx(0, abs=1e-12)
    assert exact["scale"].std.value == pytest.approx(0, abs=1e-12)
    assert LINEAR.exact(params, "pathwise")(3)["loc"].std.value > 0.5


MISUSES = [
    ("noise_scale must be positive and finite, got 0", lambda: LinearGaussian(noise_scale=0.0)),
    ("x must be finite, got inf", lambda: LinearGaussian(x=math.inf)),
    ("params must be loc, scale, got loc", lambda: LINEAR.exact({"loc": 0.0}, "pathwise")),
    ("scale must be positive and finite, got -1", lambda: LINEAR.check_params({"loc": 0.0, "scale": -1.0})),
    ("loc must be finite, got nan", lambda: LINEAR.check_params({"loc": math.nan, "scale": 1.0})),
    ("needs at least 2 samples", lambda: LINEAR.exact(LINEAR.default_params, "score_function+leave_one_out")(1)),
]


@pytest.mark.parametrize(("message", "call"), MISUSES)
def test_misuse_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
