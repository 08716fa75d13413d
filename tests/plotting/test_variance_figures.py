from dataclasses import replace

import jax
import numpy as np
import pytest

from vae_jax import plotting
from vae_jax.problems import PoissonGamma, SquareCost
from vae_jax.studies.estimator_comparison import compare
from vae_jax.studies.variance_study import study_variance


@pytest.fixture(scope="module")
def study():
    problem = PoissonGamma(family="location_scale_normal")
    return study_variance(
        problem, problem.default_params, jax.random.key(0), 50,
        estimators=("pathwise", "score_function"), num_samples=(5, 100),
    )  # fmt: skip


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title() == title)


@pytest.mark.slow
def test_boxes_show_the_replicates_about_the_exact_value(study):
    axes = panel(plotting.replicate_boxes(study), "∂ ELBO / ∂ loc_u")
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_color() == "white"]
    exact = study.row("pathwise", "loc_u", 5).exact_mean
    expected = [
        np.median(study.replicates_of(estimator, "loc_u", size)) - exact
        for estimator in study.estimators
        for size in study.num_samples
    ]
    np.testing.assert_allclose(medians, expected, rtol=1e-4, atol=1e-5)
    assert any(np.all(np.equal(line.get_ydata(), 0)) for line in axes.lines)


def test_std_shows_measured_points_on_exact_lines(study):
    figure = plotting.std_by_samples(study)
    axes = panel(figure, "∂ ELBO / ∂ scale_v")
    lines = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "-" and len(line.get_ydata()) == 2]
    (exact,) = [list(y) for y in lines]
    assert exact == [study.row("score_function", "scale_v", size).exact_std for size in study.num_samples]
    assert "exact variance infinite" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_figure_can_be_saved(study, tmp_path):
    for name, figure in (("a", plotting.replicate_boxes(study)), ("b", plotting.std_by_samples(study))):
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_cells_without_a_finite_number_leave_the_rest_drawn(study, tmp_path):
    rows = [replace(row, mean=np.nan, std=np.nan, std_se=np.nan) for row in study.rows]
    blank = replace(study, rows=rows, replicates=np.full_like(study.replicates, np.nan))
    for figure in (plotting.replicate_boxes(blank), plotting.std_by_samples(blank)):
        figure.savefig(tmp_path / "figure.png")


@pytest.fixture(scope="module")
def many():
    problem = SquareCost()
    return study_variance(
        problem, problem.default_params, jax.random.key(0), 50,
        estimators=("pathwise", "score_function", "pathwise+delta_method", "pathwise+sobol"), num_samples=(4, 16),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("draw", [plotting.std_by_estimator, plotting.boxes_by_estimator])
def test_many_estimators_stand_side_by_side_in_every_panel(draw, many, tmp_path):
    figure = draw(many)
    figure.savefig(tmp_path / "figure.png")
    assert [axes.get_title() for axes in figure.axes] == ["cost", "∂ cost / ∂ loc", "∂ cost / ∂ scale"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(many.estimators)


def test_an_estimator_without_variance_is_drawn_as_such(many):
    axes = plotting.std_by_estimator(many).axes[1]
    (none,) = (line for line in axes.lines if line.get_label() == "no variance")
    assert list(none.get_ydata()) == [1]


def test_ratios_are_drawn_with_their_exact_values(tmp_path):
    problem = SquareCost()
    comparison = compare(
        problem, problem.default_params, jax.random.key(0), 50, first="pathwise", second="score_function",
        num_samples=(4, 16),
    )  # fmt: skip
    figure = plotting.variance_ratios(comparison)
    figure.savefig(tmp_path / "figure.png")
    (axes,) = figure.axes
    assert len(axes.get_yticklabels()) == 3 * 2
    (exact,) = (line for line in axes.lines if line.get_label() == "exact")
    assert sorted(exact.get_xdata()) == sorted(row.exact_variance_ratio for row in comparison.rows)
