import numpy as np
import pytest

from vae_jax.plotting.elbo_ascent import ElboAscent
from vae_jax.plotting.fit import PairDensity, fitted_pair
from vae_jax.plotting.regress import Coefficients, FittedMean, regression_fit

GENERATOR = np.random.default_rng(0)
GRIDS = (np.linspace(0.1, 4, 41), np.linspace(0.1, 2, 31))


def ascent(converged=True):
    estimates = -10 - np.exp(-np.arange(400) / 50) + 0.1 * GENERATOR.standard_normal(400)
    return ElboAscent(estimates, estimates.reshape(4, 100).mean(1), np.full(4, 0.01), bound=-9.5, converged=converged)


def normal_pair(first, second):
    """Two independent normals with a width of a half."""
    curves = [np.exp(-2 * (grid - mean) ** 2) for grid, mean in zip(GRIDS, (first, second), strict=True)]
    marginals = tuple(zip(GRIDS, curves, strict=True))
    return PairDensity(np.outer(curves[1], curves[0]), marginals, (first, second))


def test_a_fit_is_drawn_with_its_bound_and_means():
    figure = fitted_pair(
        ascent(), GRIDS, posterior=normal_pair(2, 1), fitted=normal_pair(2.5, 1.2), names=("rate", "size")
    )
    elbo, joint, first, second = figure.axes
    assert elbo.get_title() == "stopped after 400 steps"
    assert any(np.allclose(line.get_ydata(), -9.5) for line in elbo.lines)
    assert (joint.get_xlabel(), joint.get_ylabel()) == ("rate", "size")
    for axes, name, means in ((first, "rate", [2, 2.5]), (second, "size", [1, 1.2])):
        assert axes.get_xlabel() == name
        assert [line.get_xdata()[0] for line in axes.lines[2:]] == means
    figure.canvas.draw()


def test_the_contours_hold_their_masses():
    figure = fitted_pair(ascent(), GRIDS, posterior=normal_pair(2, 1), fitted=normal_pair(2, 1), names=("u", "v"))
    density = normal_pair(2, 1).joint
    for levels in (contour.levels for contour in figure.axes[1].collections):
        shares = [density[density >= level].sum() / density.sum() for level in levels]
        assert shares == pytest.approx([0.9, 0.5], abs=0.02)


@pytest.mark.parametrize("num_predictors", [1, 2])
def test_a_regression_has_a_panel_for_each_predictor(num_predictors):
    names = ["(intercept)", "x", "z"][: 1 + num_predictors]
    ones = np.ones(len(names))
    coefficients = Coefficients(names, 2 * ones, 0.2 * ones, 1.9 * ones, 0.1 * ones)
    x = np.linspace(0, 1, 30)
    means = [FittedMean(name, x, x, np.stack([x - 1, x + 1]), x, x, x) for name in names[1:]]
    figure = regression_fit(ascent(converged=False), coefficients, means, response="count")
    elbo, drawn, *panels = figure.axes
    assert elbo.get_title() == "after 400 steps"
    assert [label.get_text().split("\n") for label in drawn.get_yticklabels()] == [
        [name.strip("()"), "1.900"] for name in names
    ]
    # The fit's means are one of Laplace's standard deviations away.
    centers = [container.lines[0].get_xdata() for container in drawn.containers]
    np.testing.assert_allclose(centers, [0 * ones, ones], atol=1e-12)
    assert [axes.get_xlabel() for axes in panels] == names[1:]
    assert panels[0].get_ylabel() == "count"
    figure.canvas.draw()
