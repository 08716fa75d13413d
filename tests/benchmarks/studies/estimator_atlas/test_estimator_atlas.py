import json

import numpy as np
import pytest

from benchmarks.studies.estimator_atlas import estimator_atlas
from benchmarks.studies.estimator_atlas.cost_panels import PANELS
from benchmarks.studies.estimator_atlas.estimator_variances import variance_of_sample
from benchmarks.studies.estimator_atlas.linear_gaussian_bound import PARAMS, PROBLEM, exact_bound, exact_means
from benchmarks.studies.estimator_atlas.signal_slopes import fitted_slope


@pytest.mark.slow
def test_a_quick_run_agrees_with_what_is_exact(tmp_path, capsys):
    estimator_atlas.main(estimator_atlas.parser().parse_args(["--quick", "--out", str(tmp_path)]))

    results = json.loads((tmp_path / "estimator_atlas.json").read_text())
    compared = results["variances_compared"]
    assert compared["exact_standard_errors"]["mean_abs_z"] < 2
    assert compared["num_exact_zeros"] == 2
    assert compared["largest_variance_of_exact_zeros"] < 1e-10
    z_scores = [(signal["mean"] - signal["exact_mean"]) / signal["mean_se"] for signal in results["signals"]]
    assert np.abs(z_scores).max() < 5
    in_m = [slope for slope in results["slopes"] if slope["size"] == "M"]
    assert len(in_m) == 9
    assert all(abs(slope["known_signal_slope"] - 0.5) < 6 * slope["known_signal_slope_se"] for slope in in_m)
    in_k = {(slope["gradient"], slope["parameter"]): slope for slope in results["slopes"] if slope["size"] == "K"}
    assert in_k["plain", "loc"]["known_signal_slope"] < -0.2
    assert in_k["doubly_reparameterized", "loc"]["known_signal_slope"] > 0.2
    for name in ("estimator_atlas.png", "importance_weighted_snr.png"):
        assert 10_000 < (tmp_path / name).stat().st_size < 200_000
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_exact_bound_is_the_elbo_of_one_sample_and_tends_to_the_evidence():
    of_one = PROBLEM.exact(PROBLEM.default_params, "pathwise")(1)
    bounds = [exact_bound(PARAMS, num_samples) for num_samples in (1, 8, 64, 4096)]

    np.testing.assert_allclose(bounds[0], of_one["elbo"].mean.value, atol=1e-9)
    assert bounds == sorted(bounds)
    np.testing.assert_allclose(bounds[-1], PROBLEM.log_evidence, atol=1e-4)
    means = exact_means(1)
    np.testing.assert_allclose(means["loc"], of_one["loc"].mean.value, atol=1e-5)
    np.testing.assert_allclose(means["scale"], of_one["scale"].mean.value, atol=1e-5)


def test_a_slope_is_recovered_beside_its_correction():
    sizes = np.array([4.0, 8, 16, 32])
    design = np.stack([np.log(sizes), np.ones_like(sizes), 1 / sizes], axis=1)
    ratios = 3 * sizes**-0.5 * np.exp(2 / sizes)
    slope, error = fitted_slope(design, ratios, np.full(4, 0.01))

    np.testing.assert_allclose(slope, -0.5, atol=1e-10)
    assert 0 < error < 0.1


def test_an_exact_standard_deviation_must_be_known():
    problem = PANELS[0].problem_at(1.0)
    moments = problem.exact(problem.default_params, "score_function+optimal_score")(4)
    with pytest.raises(ValueError, match="the exact std must be known, got status unknown"):
        variance_of_sample(moments["loc"], 4)
