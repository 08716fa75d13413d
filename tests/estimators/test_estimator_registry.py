"""Every estimator on every problem that admits it: value, gradient and variance against the exact ones."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased, is_biased
from vae_jax import bounds
from vae_jax.estimators import ESTIMATORS, REGISTRY, Work, estimator_table
from vae_jax.problems import (
    BernoulliCost,
    BernoulliVectorCost,
    CategoricalCost,
    CosineCost,
    ExponentialCost,
    GammaMoment,
    LinearGaussian,
    PoissonGamma,
    Problem,
    ShiftedPosterior,
    SquareCost,
)
from vae_jax.studies import admitted, parameter_names, work_of

NUM_SAMPLES = 4
NUM_REPLICATES = 40_000

SCORE = {"score_function", "score_function+leave_one_out", "score_function+optimal_score"}
PATH = {"pathwise", "sticking_the_landing"}
COUPLED = {f"{base}+{draws}" for base in ("pathwise", "score_function") for draws in ("antithetic_pairs", "sobol")}
DELTA = {"pathwise+delta_method", "score_function+delta_method"}
MEASURE = {"measure_valued", "coupled_measure_valued"}
GAUSSIAN = SCORE | PATH | COUPLED | DELTA | MEASURE | {"closed_form_entropy", "inverse_cdf"}
BIASED = {"gumbel_softmax", "straight_through"}
CATEGORICAL = SCORE | MEASURE | {
    "enumeration", "rao_blackwellized", "gumbel_softmax", "straight_through", "rebar", "relax", "categorical_disarm"
}  # fmt: skip

PROBLEMS: dict[str, tuple[Problem, set[str]]] = {
    "square": (SquareCost(0.3), GAUSSIAN),
    "cosine": (CosineCost(1.5), GAUSSIAN),
    "exponential": (ExponentialCost(0.7), GAUSSIAN),
    "linear_gaussian": (LinearGaussian(), GAUSSIAN),
    "shifted_posterior": (ShiftedPosterior(), GAUSSIAN),
    "gamma": (GammaMoment(), SCORE | PATH | {"closed_form_entropy"}),
    "gamma_log": (GammaMoment("log"), SCORE | PATH | {"closed_form_entropy"}),
    "poisson_gamma": (PoissonGamma(), SCORE | PATH | COUPLED | {"inverse_cdf"}),
    "poisson_gamma_log_normal": (
        PoissonGamma(family="log_normal"), SCORE | PATH | COUPLED | {"inverse_cdf", "closed_form_entropy"}
    ),
    "bernoulli": (BernoulliCost(), CATEGORICAL | {"arm", "disarm"}),
    "bernoulli_vector": (BernoulliVectorCost(), CATEGORICAL | {"arm", "disarm"}),
    "categorical": (CategoricalCost(), CATEGORICAL),
}  # fmt: skip

QUICK: dict[str, set[str]] = {
    "square": {"score_function+delta_method"},
    "cosine": (SCORE | COUPLED | DELTA | {"pathwise"}) - {"score_function+leave_one_out"},
    "exponential": {"inverse_cdf"},
    "linear_gaussian": {"closed_form_entropy", "score_function+leave_one_out"},
    "shifted_posterior": {"sticking_the_landing"},
    "gamma": {"closed_form_entropy"},
    "gamma_log": {"score_function+leave_one_out"},
    "poisson_gamma": {"pathwise"},
    "poisson_gamma_log_normal": {"sticking_the_landing"},
    "bernoulli": {"enumeration", "arm", "disarm", "coupled_measure_valued", *BIASED},
    "bernoulli_vector": {"rao_blackwellized", "rebar", "relax", "score_function"},
    "categorical": {"enumeration", "categorical_disarm", "measure_valued"},
}  # fmt: skip
"""Each estimator where its variance is known, if it is anywhere, and each problem. What else there is, is slow."""

CASES = [
    pytest.param(problem, name, marks=[] if name in QUICK[problem] else pytest.mark.slow)
    for problem, (_, names) in PROBLEMS.items()
    for name in ESTIMATORS
    if name in names
]


def test_every_estimator_and_every_problem_is_among_the_quick_ones():
    assert all(names and names <= PROBLEMS[problem][1] for problem, names in QUICK.items())
    assert set(QUICK) == set(PROBLEMS)
    assert set().union(*QUICK.values()) == set(ESTIMATORS)


ADMITTING = {"cosine", "gamma", "bernoulli", "categorical"}
"""One of each kind of latents. To trace every estimator of the others is slow."""


@pytest.mark.parametrize(
    "problem_name", [pytest.param(name, marks=[] if name in ADMITTING else pytest.mark.slow) for name in PROBLEMS]
)
def test_the_problems_admit_what_they_should(problem_name):
    problem, names = PROBLEMS[problem_name]
    assert isinstance(problem, Problem)
    assert set(admitted(problem, problem.default_params)) == names


def as_floats(params):
    return {key: np.asarray(value, jnp.result_type(float)) for key, value in params.items()}


def measured(problem, name, num_replicates=NUM_REPLICATES, num_samples=NUM_SAMPLES):
    """Mean, standard error, standard deviation and its standard error of the value and of every gradient element."""
    params = as_floats(problem.default_params)
    loss = partial(problem.estimate, num_samples=num_samples, estimator=ESTIMATORS[name])
    value, gradient = gradient_moments(loss, params, jax.random.key(7), num_replicates)
    names = parameter_names(problem, problem.default_params)
    fields = ("mean", "mean_se", "std", "std_se")
    columns = [
        np.concatenate([np.ravel(getattr(value, field)), *(np.ravel(getattr(gradient, field)[key]) for key in params)])
        for field in fields
    ]
    return {parameter: dict(zip(fields, row, strict=True)) for parameter, *row in zip(names, *columns, strict=True)}


@pytest.mark.parametrize(("problem_name", "name"), CASES)
def test_mean_and_variance_are_the_exact_ones(problem_name, name):
    problem, _ = PROBLEMS[problem_name]
    exact = problem.exact(problem.default_params, name)(NUM_SAMPLES)
    # A small bias takes many replicates to be seen.
    found = measured(problem, name, NUM_REPLICATES if REGISTRY[name].unbiased else 10 * NUM_REPLICATES)
    assert set(exact) == set(found)
    if not REGISTRY[name].unbiased:
        gradient = [parameter for parameter in found if parameter != problem.value_name]
        assert any(
            is_biased(found[each]["mean"], found[each]["mean_se"], exact[each].mean.value) for each in gradient
        ), f"{name} is registered as biased, and no bias was found"
        return
    for parameter, moments in exact.items():
        if moments.mean.status == "finite":
            check(found[parameter], moments)


def check(row, moments):
    """One element of a gradient, or the value, against its exact moments."""
    mean, std = moments.mean.value, moments.std.value
    if std == 0 or row["std"] < 1e-6 * max(1.0, abs(mean)):
        # What has no variance is exact but for rounding.
        assert std in (None, 0) or std < 1e-5 * max(1.0, abs(mean))
        assert row["std"] < 1e-5 * max(1.0, abs(mean))
        assert row["mean"] == pytest.approx(mean, rel=1e-5, abs=1e-5)
        return
    scale = row["std"] if std is None else std
    error = scale / np.sqrt(NUM_REPLICATES)
    assert_unbiased(row["mean"], error, mean, resolution=max(0.1 * scale, 1e-5))
    std_error = moments.std_se(NUM_REPLICATES)
    # Where the tails are so heavy that a standard deviation cannot be measured, the mean alone is checked.
    if std_error is not None and std_error < 0.02 * std:
        assert_unbiased(row["std"], std_error, std, resolution=0.3 * std)


ZERO_VARIANCE = [
    ("square", "pathwise+delta_method", {"cost", "loc", "scale"}),
    ("square", "score_function+delta_method", {"cost", "loc", "scale"}),
    ("square", "pathwise+antithetic_pairs", {"loc"}),
    ("bernoulli", "disarm", {"logit"}),
    ("categorical", "enumeration", {"cost", "logits[0]"}),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("problem_name", "name", "parameters"), ZERO_VARIANCE)
def test_no_variance_is_none_in_double_precision(problem_name, name, parameters):
    problem, _ = PROBLEMS[problem_name]
    found = measured(problem, name, num_replicates=200)
    exact = problem.exact(problem.default_params, name)(NUM_SAMPLES)
    for parameter in parameters:
        assert exact[parameter].std.value == pytest.approx(0, abs=1e-12)
        assert found[parameter]["std"] < 1e-12
        assert found[parameter]["mean"] == pytest.approx(exact[parameter].mean.value, abs=1e-10)


def wrong_scale(objective, q, key, num_samples, *, estimator):
    value = estimator(objective, q, key, num_samples)
    return jax.lax.stop_gradient(value) + (value - jax.lax.stop_gradient(value)) / num_samples


@pytest.mark.parametrize(
    "name",
    ["pathwise", "score_function+optimal_score", pytest.param("coupled_measure_valued", marks=pytest.mark.slow)],
)
def test_a_gradient_divided_twice_is_caught(name, monkeypatch):
    monkeypatch.setitem(ESTIMATORS, name, partial(wrong_scale, estimator=ESTIMATORS[name]))
    problem, _ = PROBLEMS["square"]
    exact = problem.exact(problem.default_params, name)(NUM_SAMPLES)
    row = measured(problem, name)["loc"]
    assert is_biased(row["mean"], row["mean_se"], exact["loc"].mean.value)


COUNTED = [
    ("square", name) for name in ESTIMATORS if name in GAUSSIAN
] + [(problem, name) for problem in ("bernoulli", "bernoulli_vector", "categorical")
     for name in ESTIMATORS if name in PROBLEMS[problem][1]]  # fmt: skip


def callbacks_of(jaxpr):
    """The callbacks into Python that a program makes. Over a batch JAX writes them as a loop, whose length counts."""
    number = 0
    for equation in jaxpr.eqns:
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        number += times * sum(callbacks_of(leaf) for leaf in inner if hasattr(leaf, "eqns"))
        number += equation.primitive.name == "debug_callback"
    return number


@pytest.mark.parametrize(("problem_name", "name"), COUNTED)
def test_the_evaluations_are_as_many_as_the_registry_says(problem_name, name):
    problem, _ = PROBLEMS[problem_name]

    def counted(objective, q, key, num_samples):
        def counting(sample, q):
            jax.debug.callback(lambda *_: None, jax.tree.leaves(sample)[0])
            return objective(sample, q)

        return ESTIMATORS[name](counting, q, key, num_samples)

    estimate = partial(problem.estimate, num_samples=6, estimator=counted)
    program = jax.make_jaxpr(estimate)(as_floats(problem.default_params), jax.random.key(0))
    assert callbacks_of(program) == REGISTRY[name].evaluations.number(work_of(problem, problem.default_params, 6))


def test_the_guide_shows_the_registries():
    guide = (Path(__file__).parents[2] / "docs/estimators.md").read_text()
    assert estimator_table() in guide
    assert bounds.bound_table() in guide


def test_the_bounds_are_registered_by_the_names_of_their_functions():
    for name in bounds.BOUNDS:
        assert all(callable(getattr(bounds, part)) for part in name.split(", "))


def test_the_cost_of_a_mixed_pytree_counts_what_is_enumerated_and_what_is_sampled():
    q = {"a": dist.Normal(0.0, 1.0), "b": dist.Bernoulli(logits=jnp.zeros(3)).to_event(1)}
    work = Work.of(q, samples=6, parameters=5)
    assert REGISTRY["rao_blackwellized"].evaluations.number(work) == 2**3 * 6
    assert REGISTRY["enumeration"].evaluations.number(work) == 2**3
