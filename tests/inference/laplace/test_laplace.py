import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from numpyro.distributions import Poisson
from scipy.integrate import quad
from scipy.special import gammaln

from monte_carlo import assert_unbiased
from vae_jax.inference import approximate_factorial, laplace
from vae_jax.plotting.factorial_errors import factorial_errors

SHAPES = [{"a": ()}, {"a": (1,)}, {"a": (), "b": (2, 3)}, {"a": (5,), "b": {"c": (4,), "d": (2, 2, 2)}}]


def structure(shapes, fill):
    """Arrays of these shapes, each element made by a function of the shape."""
    return jax.tree.map(fill, shapes, is_leaf=lambda node: isinstance(node, tuple))


def random_gaussian(shapes, seed):
    """A log density with its mean, covariance and integral, none of them simple."""
    generator = np.random.default_rng(seed)
    mean = as_vector(structure(shapes, lambda shape: generator.normal(size=shape)))
    root = generator.normal(size=(mean.size, mean.size)) + 2 * np.eye(mean.size)
    precision = root @ root.T
    log_evidence = 1.7 + 0.5 * mean.size * math.log(2 * math.pi) - np.linalg.slogdet(precision)[1] / 2
    arrays = jnp.asarray(mean), jnp.asarray(precision)
    return Partial(gaussian_log_density, *arrays), mean, np.linalg.inv(precision), log_evidence


def gaussian_log_density(mean, precision, parameters):
    difference = ravel_pytree(parameters)[0] - mean
    return 1.7 - difference @ precision @ difference / 2


def as_vector(parameters):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(parameters)])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shapes", SHAPES)
def test_a_gaussian_is_found_exactly(shapes, seed, float64):
    log_density, mean, covariance, log_evidence = random_gaussian(shapes, seed)
    start = structure(shapes, lambda shape: np.full(shape, 30.0))
    approximation = laplace(log_density, start)
    assert jax.tree.structure(approximation.mode) == jax.tree.structure(start)
    assert jax.tree.map(jnp.shape, approximation.mode) == jax.tree.map(jnp.shape, start)
    np.testing.assert_allclose(as_vector(approximation.mode), mean, atol=1e-8)
    np.testing.assert_allclose(approximation.covariance, covariance, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.asarray(approximation.precision) @ covariance, np.eye(mean.size), atol=1e-8)
    np.testing.assert_allclose(approximation.log_evidence, log_evidence, atol=1e-8)
    np.testing.assert_allclose(approximation.posterior.loc, mean, atol=1e-8)
    np.testing.assert_allclose(approximation.posterior.covariance_matrix, covariance, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(as_vector(approximation.marginal_scale), np.sqrt(np.diagonal(covariance)), rtol=1e-8)
    peak = approximation.posterior.log_prob(approximation.posterior.loc)
    np.testing.assert_allclose(peak, -0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1], atol=1e-8)


def test_a_gaussian_is_found_in_float32_up_to_its_rounding():
    log_density, mean, covariance, log_evidence = random_gaussian(SHAPES[2], seed=0)
    approximation = laplace(log_density, structure(SHAPES[2], lambda shape: np.zeros(shape, np.float32)))
    assert approximation.covariance.dtype == jnp.float32
    scales = np.sqrt(np.diagonal(covariance))
    assert np.all(np.abs(as_vector(approximation.mode) - mean) < 1e-3 * scales)
    np.testing.assert_allclose(approximation.covariance, covariance, rtol=1e-3, atol=1e-4 * scales.min() ** 2)
    np.testing.assert_allclose(approximation.log_evidence, log_evidence, atol=1e-3)


def regression_of_large_counts(mean_count, seed):
    """A Poisson regression under flat priors, a start, and by hand its mode and its precision."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=60)
    counts = rng.poisson(mean_count * np.exp(0.3 * x)).astype(float)
    design = np.column_stack([np.ones(60), x])
    mode = np.array([np.log(counts.mean()), 0.0])
    for _ in range(30):
        means = np.exp(design @ mode)
        precision = design.T @ (means[:, None] * design)
        mode = mode + np.linalg.solve(precision, design.T @ (counts - means))
    start = jnp.array([math.log(counts.mean()), 0.0])
    rows, data = jnp.asarray(design, start.dtype), jnp.asarray(counts, start.dtype)
    return Partial(poisson_log_likelihood, rows, data), start, mode, precision


def poisson_log_likelihood(rows, counts, coefficients):
    return Poisson(jnp.exp(rows @ coefficients)).log_prob(counts).sum()


def assert_mode_is_within_its_error(mean_count, seed):
    log_joint, start, mode, precision = regression_of_large_counts(mean_count, seed)
    found = laplace(log_joint, start)
    offset = np.asarray(found.mode, float) - mode
    distance = math.sqrt(offset @ precision @ offset)
    assert distance <= found.mode_error
    np.testing.assert_allclose(found.precision, precision, rtol=1e-4)
    return found.mode_error


@pytest.mark.parametrize(("mean_count", "error"), [(10, 2e-5), (1.6e3, 1e-3), (1.6e5, 5e-3), (1.6e6, 0.05)])
def test_large_counts_are_fitted_up_to_the_rounding_of_float32(mean_count, error):
    for seed in range(2):
        assert assert_mode_is_within_its_error(mean_count, seed) < error


@pytest.mark.parametrize(("mean_count", "error"), [(1e8, 1e-8), (1e11, 1e-6)])
def test_large_counts_are_fitted_up_to_the_rounding_of_float64(mean_count, error, float64):
    for seed in range(2):
        assert assert_mode_is_within_its_error(mean_count, seed) < error


def test_a_mode_that_rounding_hides_is_refused_with_the_reason():
    log_joint, start, *_ = regression_of_large_counts(1e11, 0)
    with pytest.raises(
        RuntimeError, match=r"the rounding of float32 alone moves it by .* standard deviations; use flo"
    ):
        laplace(log_joint, start)


def test_draws_have_the_structure_and_the_moments_of_the_posterior(float64):
    log_density, mean, covariance, _ = random_gaussian(SHAPES[2], seed=4)
    approximation = laplace(log_density, structure(SHAPES[2], np.zeros))
    draws = approximation.sample(jax.random.key(0), 100_000)
    assert jax.tree.map(jnp.shape, draws) == {"a": (100_000,), "b": (100_000, 2, 3)}
    vectors = np.concatenate([np.asarray(leaf).reshape(100_000, -1) for leaf in jax.tree.leaves(draws)], axis=1)
    scales = np.sqrt(np.diagonal(covariance))
    standard = (vectors - mean) / scales
    products = standard[:, :, None] * standard[:, None, :]
    for samples, exact in ((standard, 0), (products, covariance / np.outer(scales, scales))):
        error = samples.std(axis=0) / math.sqrt(len(samples))
        assert_unbiased(samples.mean(axis=0), error, exact, resolution=0.1)


def test_draws_of_float32_parameters_are_float32(float64):
    approximation = laplace(lambda x: -(x**2) / 2, jnp.ones((), jnp.float32))
    assert approximation.mode.dtype == jnp.float32
    assert approximation.sample(jax.random.key(0), 3).dtype == jnp.float32


PREDICTORS = np.array([[1, -1.2], [1, -0.3], [1, 0.1], [1, 0.8], [1, 1.9]])
COUNTS = np.array([0, 2, 1, 3, 9])


def log_joint_in_units(units, weights):
    log_rates = jnp.asarray(PREDICTORS) @ (weights * units)
    return jnp.sum(COUNTS * log_rates - jnp.exp(log_rates)) - jnp.sum((weights * units) ** 2) / 200


def poisson_regression(units=(1.0, 1.0)):
    return Partial(log_joint_in_units, jnp.array(units))


@jax.jit
def slope_of_regression(weights):
    return jax.grad(poisson_regression())(weights)


@pytest.mark.parametrize("start", [(0.0, 0.0), (-4.0, 3.0), (5.0, 5.0), (20.0, -20.0), (-50.0, 0.0)])
def test_the_mode_does_not_depend_on_the_start(start, float64):
    approximation = laplace(poisson_regression(), np.array(start))
    near = laplace(poisson_regression(), np.array([0.5, 1.0]))
    np.testing.assert_allclose(slope_of_regression(approximation.mode), 0, atol=1e-11)
    np.testing.assert_allclose(approximation.mode, near.mode, rtol=1e-12)
    np.testing.assert_allclose(approximation.covariance, near.covariance, rtol=1e-10)


def test_a_density_that_is_not_log_concave_is_climbed_from_its_tail(float64):
    def student(x):
        return -2.5 * jnp.log1p(jnp.sum((x - 3) ** 2) / 4)

    approximation = laplace(student, jnp.array([100.0, -40.0]))
    np.testing.assert_allclose(approximation.mode, 3, rtol=1e-10)
    np.testing.assert_allclose(approximation.precision, 1.25 * np.eye(2), atol=1e-10)


def test_rosenbrock_s_valley_is_followed_to_its_end(float64):
    approximation = laplace(rosenbrock, jnp.array([-1.9, 2.0]))
    np.testing.assert_allclose(approximation.mode, 1, rtol=1e-9)


def rosenbrock(x):
    return -((1 - x[0]) ** 2) - 100 * (x[1] - x[0] ** 2) ** 2


def test_the_units_of_the_parameters_do_not_matter(float64):
    units = np.array([2.0**20, 2.0**-20])
    plain = laplace(poisson_regression(), np.zeros(2))
    scaled = laplace(poisson_regression(units), np.zeros(2))
    assert scaled.num_steps == plain.num_steps
    np.testing.assert_allclose(scaled.mode * units, plain.mode, rtol=1e-12)
    np.testing.assert_allclose(scaled.log_evidence + np.log(units).sum(), plain.log_evidence, rtol=1e-12)


def test_float32_finds_parameters_whose_units_lie_far_apart():
    units = np.array([1e6, 1e-6])
    approximation = laplace(lambda x: -jnp.sum((x / units - 1) ** 2) / 2, jnp.zeros(2))
    np.testing.assert_allclose(approximation.mode, units, rtol=1e-5)
    np.testing.assert_allclose(approximation.marginal_scale, units, rtol=1e-5)


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def logistic_regression(copies, weight):
    """Copies of two inputs whose labels are right four times of five, and a prior that is not at the mode."""
    inputs = jnp.array([0.5, -0.4])
    right = jnp.sum(jax.nn.log_sigmoid(jnp.array([1, -1]) * inputs * weight))
    wrong = jnp.sum(jax.nn.log_sigmoid(jnp.array([-1, 1]) * inputs * weight))
    return copies * (4 * right + wrong) - (weight - 1) ** 2 / 8


def integral(copies):
    """Logarithm of the density's integral, by quadrature over what NumPy evaluates."""

    def log_density(weight):
        right = log_sigmoid(0.5 * weight) + log_sigmoid(0.4 * weight)
        wrong = log_sigmoid(-0.5 * weight) + log_sigmoid(-0.4 * weight)
        return copies * (4 * right + wrong) - (weight - 1) ** 2 / 8

    grid = np.linspace(-10, 20, 3001)
    values = log_density(grid)
    peak, center = values.max(), grid[values.argmax()]
    total, _ = quad(lambda w: np.exp(log_density(w) - peak), -10, 20, points=[center], epsabs=0, epsrel=1e-12)
    return peak + math.log(total)


def test_the_evidence_s_error_falls_as_one_over_the_number_of_observations(float64):
    errors = []
    for copies in (16, 64, 256, 1024):
        approximation = laplace(Partial(logistic_regression, jnp.asarray(float(copies))), jnp.zeros(()))
        errors.append(float(approximation.log_evidence) - integral(copies))
    assert abs(errors[0]) < 0.02
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios[-2:], 4, rtol=0.05)


@pytest.mark.parametrize("number", [1, 2, 5, 10, 100, 1000, 20_000])
def test_factorials_are_stirling_s(number, float64):
    approximation = approximate_factorial(number)
    stirling = 0.5 * math.log(2 * math.pi * number) + number * (math.log(number) - 1)
    assert approximation.log_approximation == pytest.approx(stirling, rel=1e-13)
    assert approximation.mode == pytest.approx(number, rel=1e-12)
    assert approximation.scale == pytest.approx(math.sqrt(number), rel=1e-12)
    assert approximation.log_factorial == pytest.approx(gammaln(number + 1), rel=1e-13)
    assert approximation.reliable
    # The series alternates: the error lies between its first term and the first two.
    rounding = 12 * number * approximation.resolution
    assert 1 - 1 / (30 * number**2) - rounding < approximation.scaled_error < 1 + rounding


def test_an_error_below_the_rounding_is_not_relied_on(float64):
    assert not approximate_factorial(10**8).reliable


def test_a_partial_is_compiled_once_for_all_its_arguments(float64):
    traced = []

    def log_density(number, t):
        traced.append(number)
        return number * jnp.log(t) - t

    laplace(Partial(log_density, jnp.asarray(4.0)), jnp.ones(()))
    num_traces = len(traced)
    approximation = laplace(Partial(log_density, jnp.asarray(7.0)), jnp.ones(()))
    # The shape of the value is asked for in every call.
    assert len(traced) == num_traces + 1
    np.testing.assert_allclose(approximation.mode, 7, rtol=1e-12)


def test_a_function_may_read_what_has_changed_between_calls():
    data = [1.0]

    def log_density(x):
        return -((x - data[0]) ** 2)

    assert float(laplace(log_density, 0.0).mode) == 1
    data[0] = 2.0
    assert float(laplace(log_density, 0.0).mode) == 2


def truncated(log_density, x):
    return jnp.where(x >= 0, log_density(x), -jnp.inf)


REFUSALS = {
    "too few steps": (
        rosenbrock, [-1.9, 2.0], {"max_steps": 2},
        RuntimeError, "must reach a mode, got a gradient of norm .* after 2 steps.*: raise max_steps",
    ),
    "a saddle": (
        lambda x: x[0] ** 2 - x[1] ** 2, [0.0, 1.0], {},
        ValueError, "positive definite at the point found, got -2 as its smallest eigenvalue: it is no maximum",
    ),
    "a minimum": (lambda x: jnp.cosh(x), 0.0, {}, ValueError, "got -1 as its smallest eigenvalue"),
    "a ridge": (lambda x: -((x[0] + x[1]) ** 2), [1.0, 2.0], {}, ValueError, "or has a flat direction"),
    "a constant": (lambda x: 0 * x, 1.0, {}, ValueError, "or has a flat direction"),
    "a rise without end": (lambda x: -jnp.exp(-x), 0.0, {}, ValueError, "must have a maximum, got .* ever more slowly"),
    "separable data": (
        lambda x: jnp.sum(jax.nn.log_sigmoid(x * jnp.array([1.0, 2.0]))), 0.0, {},
        ValueError, "must have a maximum, got .*: add a prior",
    ),
    "a line": (lambda x: 3 * x, 1.0, {}, RuntimeError, "the density seems to have no mode"),
    "a kink": (lambda x: -jnp.abs(x - 0.3), 1.0, {}, RuntimeError, "got a gradient of norm 1 after"),
    "an exponential's boundary": (
        partial(truncated, lambda x: -x), 1.0, {},
        ValueError, "must be inside of the support, got a density that still rises.*norm 1: transform the parameter",
    ),
    "a curved density's boundary": (
        partial(truncated, lambda x: -((x + 1) ** 2)), 0.7, {}, ValueError, "inside of the support, .* norm 2: transf",
    ),
    "a boundary with a slope of zero": (
        partial(truncated, lambda x: -(x**2)), 1.0, {}, ValueError, "inside of the support, got .* not finite 0.01",
    ),
    "an infinite density at the boundary": (
        lambda t: -0.5 * jnp.log(t) - t, 1.0, {}, ValueError, "inside of the support, got a density that still rises",
    ),
    "a boundary in one direction": (
        lambda x: truncated(lambda x: -x, x[0]) - (x[1] - 1) ** 2, [1.0, 0.0], {}, ValueError, "inside of the support",
    ),
    "a start outside": (
        lambda t: jnp.log(t) - t, -1.0, {},
        ValueError, "log_density at the start must be finite, got nan: start where the density is positive",
    ),
    "a start of no probability": (partial(truncated, lambda x: -x), -1.0, {}, ValueError, "finite, got -inf"),
    "a start that is no number": (lambda x: -jnp.sum(x**2), [0.0, math.nan], {}, ValueError, "start must .* got nan"),
    "no derivative at the start": (lambda x: -jnp.sqrt(x), 0.0, {}, ValueError, "the derivatives of log_density must"),
    "values for data": (lambda x: -(x**2), [1.0, 2.0], {}, ValueError, r"must return a scalar, got \(2,\): sum over"),
    "no steps": (lambda x: -(x**2), 1.0, {"max_steps": 0}, ValueError, "max_steps must be at least 1, got 0"),
    "no tolerance": (lambda x: -(x**2), 1.0, {"tolerance": 0.0}, ValueError, "tolerance must be positive .* got 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_approximated_is_refused(name, precision):
    log_density, start, options, error, message = REFUSALS[name]
    with jax.enable_x64(precision == "float64"), pytest.raises(error, match=message) as refusal:
        laplace(log_density, jnp.array(start), **options)
    assert len(str(refusal.value).splitlines()) == 1


def test_parameters_that_are_none_are_refused():
    with pytest.raises(TypeError, match=r"start\['k'\] must be float32 or float64, got int32: convert it"):
        laplace(lambda x: -(x["k"] ** 2), {"k": jnp.array(1)})
    with pytest.raises(ValueError, match="start must hold at least one number, got none"):
        laplace(lambda x: 0.0, {})
    with pytest.raises(ValueError, match="number must be at least 1, got 0"):
        approximate_factorial(0)


def test_a_call_inside_of_a_transformation_is_refused():
    def square(x):
        return -(x**2)

    for transform in (jax.jit, jax.grad, lambda function: jax.vmap(function, axis_size=1, in_axes=0)):
        argument = jnp.ones((1,) if transform not in (jax.jit, jax.grad) else ())
        with pytest.raises(TypeError, match="laplace must be called outside of jit, vmap and grad"):
            transform(lambda start: laplace(square, start).log_evidence)(argument)
    with pytest.raises(TypeError, match="laplace must be called outside of jit, vmap and grad"):
        jax.grad(lambda width: laplace(lambda x: -((x / width) ** 2), jnp.ones(())).log_evidence)(2.0)


def test_the_figure_shows_the_errors_on_their_line_and_the_shape_of_the_smallest(float64, tmp_path):
    approximations = [approximate_factorial(number) for number in (100, 5, 10, 10**8)]
    figure = factorial_errors(approximations)
    figure.savefig(tmp_path / "figure.png")
    shape, errors = figure.axes
    assert shape.get_title() == "N = 5"
    integrand, gaussian = shape.lines
    assert integrand.get_xdata()[integrand.get_ydata().argmax()] == pytest.approx(5, abs=0.02)
    assert gaussian.get_ydata().max() == pytest.approx(1)
    line, measured = errors.lines
    np.testing.assert_allclose(line.get_ydata() * line.get_xdata(), 1 / 12)
    assert list(measured.get_xdata()) == [5, 10, 100]
    np.testing.assert_allclose(measured.get_ydata() * measured.get_xdata(), 1 / 12, rtol=1e-2)


def test_a_figure_needs_an_approximation():
    with pytest.raises(ValueError, match="approximations must be at least one, got none"):
        factorial_errors([])
