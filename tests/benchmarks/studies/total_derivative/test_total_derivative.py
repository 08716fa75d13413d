import json

import pytest

from benchmarks.studies.total_derivative import total_derivative
from benchmarks.studies.total_derivative.exact_gradient_parts import exact_moments
from monte_carlo import is_biased

FIELDS = ("total_mean", "path_mean", "score_mean", "total_variance", "path_variance", "score_variance", "covariance")


@pytest.mark.slow
def test_the_parts_add_up_and_vary_as_computed(tmp_path, capsys):
    total_derivative.main(total_derivative.parser().parse_args(["--quick", "--out", str(tmp_path)]))

    rows = json.loads((tmp_path / "total_derivative.json").read_text())["rows"]
    assert max(max(row["largest_gap"], row["largest_gap_to_closed_form_entropy"]) for row in rows) < 1e-4
    for row in rows:
        for field in FIELDS:
            # float32 leaves a little where nothing varies.
            assert not is_biased(row[field], row[f"{field}_se"] + 1e-7, row[f"exact_{field}"]), (field, row)
    narrow = next(row for row in rows if row["study"] == "scale" and row["parameter"] == "scale")
    assert is_biased(narrow["path_variance"], narrow["path_variance_se"], narrow["exact_total_variance"])
    assert (tmp_path / "total_derivative.png").stat().st_size > 10_000
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("name", ["loc", "scale"])
@pytest.mark.parametrize(("scale", "helps"), [(0.6, False), (0.8, True), (1.4, True)])
def test_dropping_the_score_helps_where_q_is_wide_enough(name, scale, helps):
    exact = exact_moments({"loc": 0.7, "scale": scale}, name)

    assert exact["exact_best_coefficient"] == pytest.approx(scale**2)
    assert (exact["exact_path_variance"] < exact["exact_total_variance"]) == helps
    assert exact["exact_best_variance"] <= min(exact["exact_path_variance"], exact["exact_total_variance"]) + 1e-9
