import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse

from vae_jax.inference import cavi
from vae_jax.inference.cavi import Component
from vae_jax.plotting import cavi as figures


def component(number, loc, *, num_events=10.0, covariance=((0.25, 0.0), (0.0, 0.25)), rate=4.0):
    return Component(
        number=number,
        num_events=num_events,
        weight=0.5,
        weight_std=0.1,
        loc=loc,
        loc_std=(0.1, 0.2),
        covariance=covariance,
        rate=rate,
        rate_std=None if rate is None else 0.5,
        dispersion=1.5,
    )


POSITIONS = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0], [6.0, 5.0]])
SHARES = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
COMPONENTS = (component(1, (0.5, 0.5)), component(2, (5.0, 5.0)), component(3, (2.0, 2.0), num_events=0.0))


def test_events_have_the_mixture_of_the_components_colours():
    (axes,) = figures.responsibility_map(POSITIONS, SHARES, COMPONENTS).axes
    (dots,) = [each for each in axes.collections if isinstance(each, PathCollection)]
    colours = {
        tuple(place): colour[:3] for place, colour in zip(dots.get_offsets(), dots.get_facecolors(), strict=True)
    }
    first, second = (np.array(to_rgb(colour)) for colour in figures.component_colours(3)[:2])
    np.testing.assert_allclose(colours[0.0, 0.0], first, atol=1e-6)
    np.testing.assert_allclose(colours[1.0, 1.0], (first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(colours[6.0, 5.0], second, atol=1e-6)


def test_ellipses_are_two_standard_deviations_and_empty_components_have_none():
    tilted = component(2, (5.0, 5.0), covariance=((2.5, 1.5), (1.5, 2.5)))
    (axes,) = figures.responsibility_map(POSITIONS, SHARES, (COMPONENTS[0], tilted, COMPONENTS[2])).axes
    round_, long = [each for each in axes.patches if isinstance(each, Ellipse)]
    assert (round_.width, round_.height) == pytest.approx((2, 2))
    assert (long.width, long.height) == pytest.approx((8, 4))
    assert long.angle % 180 == pytest.approx(45)
    assert {each.get_text() for each in axes.texts} == {"1", "2"}


def test_a_map_of_degrees_has_a_map_s_axes():
    positions = POSITIONS + np.array([177.0, -62.0])
    moved = tuple(component(each.number, (each.loc[0] + 177, each.loc[1] - 62)) for each in COMPONENTS[:2])
    (axes,) = figures.responsibility_map(positions, SHARES[:2], moved, names=("long", "lat")).axes
    latitude = positions[:, 1].mean()
    assert axes.get_aspect() == pytest.approx(1 / np.cos(np.radians(latitude)))
    assert axes.xaxis.get_major_formatter()(185.0) == "175°W"
    assert axes.xaxis.get_major_formatter()(180.0) == "180°"
    assert axes.xaxis.get_major_formatter()(np.float64(179.5)) == "179.5°E"
    assert axes.yaxis.get_major_formatter()(-20.0) == "20°S"
    assert axes.get_xlabel() == "longitude"
    (plain,) = figures.responsibility_map(POSITIONS, SHARES, COMPONENTS, names=("x", "y")).axes
    assert plain.get_aspect() == 1


def test_dots_have_areas_as_the_counts():
    counts = np.array([2.0, 4.0, 8.0, 6.0])
    (axes,) = figures.responsibility_map(POSITIONS, SHARES, COMPONENTS, counts=counts, count_name="felt").axes
    (dots,) = [each for each in axes.collections if isinstance(each, PathCollection)]
    areas = {tuple(place): size for place, size in zip(dots.get_offsets(), dots.get_sizes(), strict=True)}
    assert areas[5.0, 5.0] / areas[0.0, 0.0] == pytest.approx(4)
    assert "felt" in axes.get_legend().get_title().get_text()


def test_a_map_has_two_axes():
    with pytest.raises(ValueError, match="positions must have two columns"):
        figures.responsibility_map(np.zeros((4, 3)), SHARES, COMPONENTS)


@pytest.mark.parametrize("num_components", [1, 6, 7, 12, 13, 15])
def test_colours_differ_and_are_enough(num_components):
    colours = figures.component_colours(num_components)
    assert len(set(colours)) == num_components
    assert len(figures.component_colours(40)) == 40


# To linear light, and what is seen of it without one kind of cone: Machado, Oliveira & Fernandes (2009).
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize(("num_components", "least"), [(6, 0.1), (12, 0.04)])
def test_colours_differ_without_a_kind_of_cones(num_components, least, deficiency):
    colours = np.array([to_rgb(colour) for colour in figures.component_colours(num_components)])
    seen = np.clip(colours**2.2 @ np.array(DEFICIENCIES[deficiency]).T, 0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2) + np.eye(num_components)
    assert distances.min() > least


def test_bars_hold_the_events_and_the_line_the_poisson_of_as_many():
    counts = np.array([3.0, 5.0, 20.0, 24.0])
    shown = (
        component(1, (0.5, 0.5), num_events=1.5),
        component(2, (5.0, 5.0), num_events=2.5, rate=22.0),
        COMPONENTS[2],
    )
    figure = figures.counts_by_component(counts, SHARES, shown)
    first, second = figure.axes
    assert sum(bar.get_height() for bar in first.patches if hasattr(bar, "get_x")) == pytest.approx(1.5)
    assert sum(bar.get_height() for bar in second.patches if hasattr(bar, "get_x")) == pytest.approx(2.5)
    (line,) = [each for each in first.patches if not hasattr(each, "get_x")]
    assert line.get_data().values.sum() == pytest.approx(1.5, rel=0.02)
    assert first.get_title(loc="right") == "var/mean 1.5"


def test_counts_need_a_component_with_events():
    with pytest.raises(ValueError, match="components must hold one with events"):
        figures.counts_by_component(np.ones(4), SHARES, COMPONENTS[2:])


@pytest.fixture(scope="module")
def selection():
    generator = np.random.default_rng(0)
    positions = np.repeat([[0.0, 0.0], [5.0, 0.0]], 20, axis=0) + 0.3 * generator.normal(size=(40, 2))
    data = cavi.located_counts(positions, generator.poisson(np.repeat([3.0, 30.0], 20)))
    return cavi.choose_num_components(
        cavi.gaussian_poisson_mixture, data, (1, 2, 3), jax.random.key(0), num_restarts=4, max_steps=60
    )


@pytest.mark.slow
def test_every_restart_is_drawn_by_sweep(selection):
    (axes,) = figures.elbo_by_sweep(selection).axes
    assert len(axes.lines) == 5
    best = selection.best
    drawn = axes.lines[-1].get_ydata()
    assert len(drawn) == int(best.ascent.num_steps)
    assert drawn[0] == pytest.approx(max(best.elbo - best.elbo_history[0], 1e-3), rel=1e-3)
    assert (np.diff(drawn) <= 1e-3).all()
    low, high = axes.get_ylim()
    assert low > high


def test_what_rounding_leaves_of_the_bounds_is_not_drawn(selection):
    """Bounds of a million nats are known to a few nats in single precision."""
    best = selection.best
    many = 1e6 + np.array([0.0, -2.0, 1.0, -1.0, 0.0], np.float32)
    ascent = best.ascent._replace(
        elbo=many[-1], elbo_history=many, restart_histories=many[None], num_steps=5, restart_elbos=many[-1:]
    )
    (axes,) = figures.elbo_by_sweep(cavi.Selection((best._replace(ascent=ascent),))).axes
    assert axes.lines[-1].get_ydata() == pytest.approx(np.full(5, 32 * 2**-23 * 1e6))


def test_bounds_are_drawn_with_and_without_the_symmetry(selection):
    whole, top = figures.elbo_by_num_components(selection).axes
    lines = {line.get_label(): line for line in whole.lines}
    np.testing.assert_allclose(lines["best ELBO"].get_ydata(), [each.elbo for each in selection.candidates])
    np.testing.assert_allclose(lines["best ELBO + log K!"].get_ydata(), [each.score for each in selection.candidates])
    assert lines["highest"].get_xdata()[0] == selection.best.num_components
    assert top.get_ylim()[1] > selection.best.score


def test_figures_are_drawn_without_a_display(selection, tmp_path):
    state = selection.best.ascent.state
    assert jnp.isfinite(state.loc).all()
    for name, figure in {
        "map": figures.responsibility_map(POSITIONS, SHARES, COMPONENTS),
        "counts": figures.counts_by_component(np.array([1.0, 2.0, 3.0, 9.0]), SHARES, COMPONENTS),
        "sweep": figures.elbo_by_sweep(selection),
        "number": figures.elbo_by_num_components(selection),
    }.items():
        figure.savefig(tmp_path / f"{name}.png")
        figure.savefig(tmp_path / f"{name}.pdf")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
