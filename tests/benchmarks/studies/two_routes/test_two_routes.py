import json

import numpy as np
import pytest

from benchmarks.studies.two_routes import exact_relaxed_gradients as exact
from benchmarks.studies.two_routes import two_routes
from benchmarks.studies.two_routes.two_routes_setting import TEMPERATURES
from monte_carlo import FAMILY_WISE_ERROR, assert_unbiased, is_biased


@pytest.mark.slow
def test_the_routes_agree_and_the_relaxations_biases_are_as_computed(tmp_path, capsys):
    two_routes.main(two_routes.parser().parse_args(["--quick", "--out", str(tmp_path)]))

    results = json.loads((tmp_path / "two_routes.json").read_text())
    tests = results["exponential"]["routes"] + results["categorical"]["routes"]
    assert min(row["p_value"] for row in tests) > FAMILY_WISE_ERROR
    for row in results["relaxation"]["rows"]:
        assert_unbiased(row["bias"], row["mean_se"], row["exact_bias"], resolution=0.4)
    warmest = [row for row in results["relaxation"]["rows"] if row["temperature"] == max(TEMPERATURES)]
    biased = {row["estimator"]: is_biased(row["bias"], row["mean_se"], 0.0) for row in warmest}
    assert [name for name, is_so in biased.items() if is_so] == ["gumbel_softmax", "straight_through"]
    assert (tmp_path / "two_routes.png").stat().st_size > 10_000
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("temperature", [pytest.param(0.1, marks=pytest.mark.slow), 1.0, 5.0])
def test_finer_quadrature_over_the_noise_gives_the_same(temperature, monkeypatch):
    mean, variance = exact.relaxed_moments(temperature, lambda relaxed, hard: hard)
    edges = exact.panel_edges(temperature)
    halved = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2]))
    monkeypatch.setattr(exact, "panel_edges", lambda temperature: halved)
    again, variance_again = exact.relaxed_moments(temperature, lambda relaxed, hard: hard)

    np.testing.assert_allclose(mean, again, rtol=1e-6)
    np.testing.assert_allclose(variance, variance_again, rtol=1e-6)
    # A constant added to every logit changes nothing.
    assert abs(mean.sum()) < 1e-12
