import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import binom

from vae_jax.inference.diagnostics import (
    Calibration,
    ParameterCalibration,
    compare_moments,
    known_moments,
    moments_of_draws,
    tail_length,
)
from vae_jax.plotting import calibration_histograms, importance_tail, moment_differences


@pytest.fixture(autouse=True)
def nothing_is_shown():
    """Figures are made without pyplot."""
    yield
    assert not plt.get_fignums()


def curve(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def pareto_log_weights(k, size):
    """The middle of each of so many equal shares of a Pareto distribution."""
    return -k * np.log((np.arange(size) + 0.5) / size)


@pytest.mark.parametrize(("k", "verdict"), [(0.3, ": reliable"), (0.9, ": not reliable")])
def test_the_tail_of_a_pareto_distribution_lies_on_its_fit(k, verdict, tmp_path):
    logs = pareto_log_weights(k, 2000)
    figure = importance_tail(logs + 700)
    (axes,) = figure.axes
    assert verdict in axes.get_title()
    weights, share = curve(axes, "weights").get_data()
    assert len(weights) == tail_length(2000)
    np.testing.assert_allclose(np.sort(weights)[::-1], np.exp(logs)[: len(weights)] / np.exp(logs).mean(), rtol=1e-5)
    np.testing.assert_allclose(share[0], 0.5 / 2000)
    fit, fitted_share = curve(axes, "generalised Pareto fit").get_data()
    expected = np.exp(np.interp(np.log(share), np.log(fitted_share), np.log(fit)))
    np.testing.assert_allclose(expected, weights, rtol=0.2)
    figure.savefig(tmp_path / "tail.pdf")


@pytest.mark.parametrize("logs", [np.zeros(100), np.arange(20.0), np.full(100, np.nan)])
def test_a_tail_that_cannot_be_fitted_is_not_drawn(logs):
    with pytest.raises(ValueError, match="log_weights must have a tail with a finite shape k, got"):
        importance_tail(logs)


def judged(columns):
    verdicts = ["no fault found", "too low", *["too narrow"] * len(columns)]
    parameters = [
        ParameterCalibration(f"loc[{place}]", 0.0, 0.1, 1.0, 0.1, 1.0, 1.0, verdicts[place])
        for place in range(len(columns))
    ]
    return Calibration(tuple(parameters), np.stack(columns, axis=1), 0.05)


def test_histograms_count_the_probabilities_beside_the_band_of_uniform_ones(tmp_path):
    generator = np.random.default_rng(0)
    columns = [generator.uniform(size=400), generator.beta(2, 1, size=400), *generator.uniform(size=(3, 400))]
    figure = calibration_histograms(judged(columns), num_bins=10)
    assert len(figure.axes) == 5
    for axes, column in zip(figure.axes, columns, strict=True):
        for patch in axes.patches[-2:]:
            np.testing.assert_array_equal(patch.get_data().values, np.histogram(column, 10, range=(0, 1))[0])
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        np.testing.assert_allclose((band.y0, band.y1), binom.interval(0.99, 400, 0.1))
        assert axes.get_ylim()[1] > max(np.histogram(column, 10)[0])
        assert axes.get_ylim()[0] == 0
    assert figure.axes[1].get_title() == "loc[1]\ntoo low"
    assert len(calibration_histograms(judged(columns), parameters=["loc[2]"]).axes) == 1
    figure.savefig(tmp_path / "histograms.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": ["x"]}, r"parameters must be among loc\[0\], got x: correct the name"),
        ({"num_bins": 0}, "num_bins must be from 1 to the 30 replicates, got 0: change it"),
        ({"num_bins": 31}, "num_bins must be from 1 to the 30 replicates, got 31: change it"),
    ],
)
def test_misuse_of_the_histograms_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        calibration_histograms(judged([np.linspace(0.1, 0.9, 30)]), **options)
    with pytest.raises(ValueError, match="probabilities must be finite, got NaN: leave out the parameters"):
        calibration_histograms(judged([np.full(30, np.nan)]))


def comparison(size):
    generator = np.random.default_rng(1)
    draws = generator.normal(size=(500, size)) * np.linspace(0.5, 1, size) + 0.2
    return compare_moments(moments_of_draws({"loc": draws}), known_moments({"loc": np.zeros(size)}, np.eye(size)))


def test_differences_are_drawn_with_two_standard_errors(tmp_path):
    found = comparison(3)
    figure = moment_differences(found)
    mean, std, correlation = figure.axes
    assert [label.get_text() for label in mean.get_yticklabels()] == ["loc[0]", "loc[1]", "loc[2]"]
    for axes, field in ((mean, "mean"), (std, "std")):
        (container,) = axes.containers
        points, _, (bars,) = container
        np.testing.assert_allclose(
            np.asarray(points.get_xdata(), float), [getattr(row, field) for row in found.parameters]
        )
        reach = [np.ptp(segment[:, 0]) / 2 for segment in bars.get_segments()]
        np.testing.assert_allclose(reach, [2 * getattr(row, f"{field}_se") for row in found.parameters])
        assert np.all(np.abs(bars.get_segments())[..., 0] <= axes.get_xlim()[1])
    points = correlation.containers[0][0]
    np.testing.assert_allclose(
        np.asarray(points.get_ydata(), float), [pair.approximation for pair in found.correlations]
    )
    figure.savefig(tmp_path / "moments.pdf")


def test_one_parameter_has_no_correlations_and_many_are_cut_to_the_worst():
    assert len(moment_differences(comparison(1)).axes) == 2
    mean = moment_differences(comparison(40), most=5).axes[0]
    assert [label.get_text() for label in mean.get_yticklabels()] == [f"loc[{place}]" for place in range(5)]
    with pytest.raises(ValueError, match="most must be at least 1, got 0: raise it"):
        moment_differences(comparison(1), most=0)


def test_equal_exact_moments_are_drawn():
    exact = known_moments(np.zeros(2), np.eye(2))
    figure = moment_differences(compare_moments(exact, exact))
    assert all(math.isfinite(end) and end != 0 for axes in figure.axes for end in axes.get_xlim())
