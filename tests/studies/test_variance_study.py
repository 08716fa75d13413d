import chex
import jax
import numpy as np
import pytest

from monte_carlo import assert_unbiased
from vae_jax.problems import PoissonGamma, SquareCost
from vae_jax.replicates import replicate_mesh
from vae_jax.statistics import gradient_replicates
from vae_jax.studies import measure, plan_study, study_variance
from vae_jax.studies.admitted_estimators import refusal

PROBLEM = PoissonGamma()
PARAMS = PROBLEM.default_params
KEY = jax.random.key(0)
ESTIMATORS = ("pathwise", "score_function", "score_function+leave_one_out")


@pytest.fixture(scope="module")
def study():
    shares = []
    study = study_variance(
        PROBLEM, PARAMS, KEY, 500, estimators=ESTIMATORS, num_samples=(100, 5), mesh=replicate_mesh(),
        on_progress=shares.append,
    )  # fmt: skip
    assert shares[-1] == 1
    return study


def test_there_is_a_row_for_every_cell(study):
    cells = {(row.estimator, row.parameter, row.num_samples) for row in study.rows}
    assert len(study.rows) == len(cells) == 3 * 5 * 2
    assert study.num_samples == (5, 100)
    assert study.replicates.shape == (500, 3, 2, 5)


def test_reliable_rows_agree_with_the_exact_moments(study):
    reliable = [row for row in study.rows if row.reliable]
    assert len(reliable) > 10
    for row in reliable:
        assert_unbiased(row.mean, row.exact_std / np.sqrt(500), row.exact_mean, resolution=row.exact_std)
        assert_unbiased(row.std, row.exact_std_se, row.exact_std, resolution=1.5 * row.exact_std)


def test_rows_summarize_their_replicates(study):
    for row in study.rows:
        replicates = study.replicates_of(row.estimator, row.parameter, row.num_samples).astype(float)
        assert row.mean == pytest.approx(replicates.mean(), rel=1e-4, abs=1e-4)
        assert row.std == pytest.approx(replicates.std(ddof=1), rel=1e-4)


def test_rows_of_an_infinite_variance_are_unreliable():
    problem = PoissonGamma(family="location_scale_normal")
    study = study_variance(problem, PARAMS, KEY, 50, estimators=["pathwise"], num_samples=[10])
    for parameter in ("loc_v", "scale_v"):
        row = study.row("pathwise", parameter, 10)
        assert (row.exact_mean, row.exact_mean_status) == (None, "undefined")
        assert (row.exact_std, row.exact_std_status) == (None, "infinite")
        assert row.z_score is None
        assert not row.reliable


def test_heavy_tailed_rows_are_unreliable(study):
    # Its exact standard error is as large as it is itself: the one measured beside it is not.
    heavy = study.row("score_function+leave_one_out", "scale_v", 5)
    assert heavy.exact_std_se > 0.5 * heavy.exact_std
    assert heavy.std_se < 0.5 * heavy.exact_std_se
    assert not heavy.reliable


def test_a_study_draws_what_gradient_replicates_draws(study):
    def loss(params, key):
        from vae_jax import pathwise

        return PROBLEM.estimate(params, key, 5, estimator=pathwise)

    values, gradients = gradient_replicates(loss, {k: np.float32(v) for k, v in PARAMS.items()}, KEY, 500)
    np.testing.assert_allclose(study.replicates_of("pathwise", "elbo", 5), values, rtol=1e-5)
    np.testing.assert_allclose(
        study.replicates_of("pathwise", "scale_u", 5), gradients["scale_u"], rtol=1e-3, atol=1e-4
    )


def test_rounds_add_up_to_one_pass(study, monkeypatch):
    monkeypatch.setattr("vae_jax.studies.replicate_passes.ROUND_ELEMENTS", 7_000)
    in_rounds = study_variance(PROBLEM, PARAMS, KEY, 500, estimators=ESTIMATORS[:1], num_samples=(5, 100))
    np.testing.assert_allclose(in_rounds.replicates[:, 0], study.replicates[:, 0], rtol=1e-3, atol=1e-4)


def test_a_nan_is_counted_and_makes_its_row_unreliable():
    class Broken(PoissonGamma):
        def log_joint(self, latents):
            return super().log_joint(latents) + jax.numpy.where(latents["u"] > 6.5, jax.numpy.nan, 0.0)

    study = study_variance(Broken(), PARAMS, KEY, 200, estimators=("score_function",), num_samples=(100,))
    for row in study.rows:
        assert 0 < row.num_nonfinite < 200
        assert not row.reliable
        assert np.isnan(row.mean)


def test_a_study_traces_an_estimator_once_to_plan_it_and_once_to_measure_it(monkeypatch):
    probes = []
    monkeypatch.setattr("vae_jax.studies.study_plan.refusal", lambda *case: probes.append(case[2:]) or refusal(*case))
    study_variance(PROBLEM, PARAMS, KEY, 10, estimators=ESTIMATORS[:2] * 2, num_samples=(4, 5, 6, 4))
    assert probes == [("pathwise", 4), ("pathwise", 5), ("score_function", 4), ("score_function", 5)]


def test_one_program_measures_all_rounds_of_an_estimator():
    # One trace is of the plan, one of a replicate, to choose the chunk by, and the other of the program.
    @chex.assert_max_traces(n=3)
    def square(z):
        return z**2

    class Counted(SquareCost):
        def objective(self, latents, q):
            return square(latents)

    plan = plan_study(Counted(), {"loc": 1.0, "scale": 1.0}, 100, estimators=("score_function",), num_samples=(5,))
    study = measure(plan, KEY)
    assert study.replicates.shape == (100, 1, 1, 3)
    with pytest.raises(AssertionError, match="is traced > "):
        measure(plan, KEY)


def test_a_plan_holds_each_estimator_and_each_number_once():
    plan = plan_study(PROBLEM, PARAMS, 10, estimators=("score_function", *ESTIMATORS), num_samples=(7, 5, 7))
    assert plan.estimators == ("score_function", "pathwise", "score_function+leave_one_out")
    assert plan.num_samples == (5, 7)
    assert plan.parameters == ("elbo", "loc_u", "scale_u", "loc_v", "scale_v")


MISUSES = [
    ("estimators must be among pathwise.*, got another", {"estimators": ("another",)}),
    ("estimators must name at least one", {"estimators": ()}),
    ("num_samples must be at least 1, got 0", {"num_samples": (5, 0)}),
    ("num_samples must have at least one number", {"num_samples": ()}),
    ("leave_one_out needs at least 2 samples, got 1", {"num_samples": (1,)}),
    ("num_replicates must be at least 2, got 1", {"num_replicates": 1}),
    ("scale_u must be positive, got 0", {"params": PARAMS | {"scale_u": 0.0}}),
]


@pytest.mark.parametrize(("message", "changed"), MISUSES)
def test_misuse_is_refused(message, changed):
    arguments = {
        "problem": PROBLEM, "params": PARAMS, "key": KEY, "num_replicates": 10, "estimators": ESTIMATORS,
        "num_samples": (5,),
    } | changed  # fmt: skip
    with pytest.raises(ValueError, match=message):
        study_variance(**arguments)
