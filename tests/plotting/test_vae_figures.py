import re

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba
from scipy.special import ndtr
from scipy.stats import t as student

from vae_jax import plotting
from vae_jax.plotting.style import CLASS_COLOURS


def images(*shape):
    return np.random.default_rng(0).uniform(size=shape)


def rows(values, name="validation_elbo"):
    return [{"epoch": epoch, name: value} for epoch, value in enumerate(values, start=1)]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title() == title)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_show_each_quantity_of_each_run():
    splits = ("train", "validation")
    runs = {
        run: [
            {"epoch": epoch} | {f"{split}_{quantity}": start + epoch for split in splits for quantity in ("elbo", "kl")}
            for epoch in (1, 2, 3)
        ]
        for run, start in (("first", 10.0), ("second", 20.0))
    }
    figure = plotting.training_curves(runs)
    for title in ("ELBO", "KL"):
        lines = panel(figure, title).lines
        assert [list(line.get_ydata()) for line in lines] == 2 * [[11, 12, 13]] + 2 * [[21, 22, 23]]
        assert [line.get_linestyle() for line in lines] == ["--", "-", "--", "-"]
        assert all(list(line.get_xdata()) == [1, 2, 3] for line in lines)
        assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color() == lines[3].get_color()
    assert not panel(figure, "reconstruction").lines
    assert [[text.get_text() for text in each.get_texts()] for each in figure.legends] == [
        ["first", "second"],
        ["training", "validation"],
    ]


def band_of(values):
    """The limits of the band at the first epoch, and the mean."""
    figure = plotting.training_curves({"run": rows([values, values])})
    axes = panel(figure, "ELBO")
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    return heights.min(), heights.max(), axes.lines[0].get_ydata()[0], legend(figure)


def test_seeds_have_a_mean_and_a_t_interval_or_their_range():
    seeds = [-100.0, -103.0, -98.0, -99.0]
    low, high, mean, keys = band_of(seeds)
    expected = student.interval(0.95, 3, loc=np.mean(seeds), scale=np.std(seeds, ddof=1) / 2)
    np.testing.assert_allclose((low, high, mean), (*expected, -100), rtol=1e-12)
    assert keys == ["validation", "95% interval, 4 seeds"]
    assert band_of([-100.0, -104.0]) == (-104, -100, -102, ["validation", "range, 2 seeds"])


@pytest.mark.parametrize("missing", [{}, {"validation_elbo": None}, {"validation_elbo": [None, None]}])
def test_without_validation_there_is_training_alone(missing):
    figure = plotting.training_curves({"run": [row | missing for row in rows([[1.0, 2.0], [2.0, 3.0]], "train_elbo")]})
    assert len(panel(figure, "ELBO").lines) == 1
    assert legend(figure)[0] == "training"


def test_a_value_that_was_not_measured_leaves_its_epoch_out():
    (line,) = panel(plotting.training_curves({"run": rows([1.0, None, 3.0])}), "ELBO").lines
    assert list(line.get_xdata()) == [1, 3]


def test_several_runs_have_bars_of_their_validation_and_no_bands():
    run = [
        {"epoch": epoch, "train_elbo": [-200.0, -202.0], "validation_elbo": [-100.0 + epoch, -104.0 - epoch]}
        for epoch in range(1, 41)
    ]
    figure = plotting.training_curves({"a": run, "b": run})
    first, second = panel(figure, "ELBO").collections
    for bars in (first, second):
        segments = np.array(bars.get_segments())
        assert len(segments) <= 8
        np.testing.assert_allclose(segments[[0, -1], :, 1], [[-105, -99], [-144, -60]])
        np.testing.assert_allclose(segments[[0, -1], 0, 0], [1, 40], atol=1)
    assert first.get_segments()[0][0, 0] < second.get_segments()[0][0, 0]
    assert legend(figure) == ["a", "b"]
    assert figure.legends[1].get_texts()[-1].get_text() == "range of validation, 2 seeds"


def test_one_epoch_is_a_dot_in_the_key_too():
    both = [{"epoch": 1, "train_elbo": [-100.0, -101.0], "validation_elbo": [-90.0, -91.0]}]
    figure = plotting.training_curves({"run": both})
    axes = panel(figure, "ELBO")
    assert list(axes.get_xticks()) == [1]
    keys = figure.legends[0].legend_handles[:2]
    for line, key in zip(axes.lines, keys, strict=True):
        assert line.get_marker() == key.get_marker() == "o"
        assert line.get_linestyle() == key.get_linestyle() == "None"
        assert line.get_markerfacecolor() == key.get_markerfacecolor()
    assert keys[0].get_markerfacecolor() != keys[1].get_markerfacecolor()


def test_the_first_epochs_do_not_squash_the_rest():
    many = [-1000.0, -300.0, *np.linspace(-120, -100, 18)]
    axes = panel(plotting.training_curves({"run": rows(many)}), "ELBO")
    low, high = axes.get_ylim()
    assert -125 < low < -120
    assert -100 < high < -95
    assert axes.get_xlabel() == "epoch\n(1 to 2 reach below)"
    falling = panel(plotting.training_curves({"run": rows([-value for value in many[1:]])}), "ELBO")
    assert falling.get_xlabel() == "epoch\n(1 to 2 reach above)"
    low, _ = panel(plotting.training_curves({"run": rows([-1000.0, -120.0, -100.0])}), "ELBO").get_ylim()
    assert low < -1000
    gentle = panel(plotting.training_curves({"run": rows(list(np.linspace(-120, -100, 20)))}), "ELBO")
    assert gentle.get_ylim()[0] < -120
    assert gentle.get_xlabel() == "epoch"


def test_a_run_of_nans_leaves_the_rest_drawn(tmp_path):
    plotting.training_curves({"bad": rows([np.nan, np.nan])}).savefig(tmp_path / "empty.png")
    figure = plotting.training_curves({"bad": rows([np.nan, np.nan]), "good": rows([1.0, 2.0])})
    assert len(panel(figure, "ELBO").lines) == 1
    figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 1), (5, 4, 6, 3)])
def test_a_grid_shows_every_image_on_one_scale(shape):
    given = images(*shape) / 2
    figure = plotting.image_grid(given, num_columns=3)
    drawn = figure.axes[0].images
    np.testing.assert_array_equal([image.get_array() for image in drawn], given[..., 0] if shape[-1] == 1 else given)
    assert {(image.norm.vmin, image.norm.vmax, image.cmap.name) for image in drawn} == {(0, 1, "gray")}
    lefts, rights, bottoms, tops = np.transpose([image.get_extent() for image in drawn])
    assert len(set(lefts)) == 3
    assert len(set(tops)) == 2
    np.testing.assert_allclose((bottoms - tops) / (rights - lefts), 4 / 6)
    gap = lefts[1] - rights[0]
    assert 0 < gap < 0.1
    assert tops[3] - bottoms[0] == pytest.approx(gap)


def test_tiles_keep_their_shape_on_the_page():
    figure = plotting.image_grid(images(4, 4, 6), num_columns=2)
    axes = figure.axes[0]
    (width, height), (left, right), (bottom, top) = axes.get_window_extent().size, axes.get_xlim(), axes.get_ylim()
    assert width / (right - left) == pytest.approx(height / (bottom - top))


def test_arrays_of_jax_are_drawn_whatever_their_precision():
    half = jnp.full((2, 3, 3), 0.5, jnp.bfloat16)
    assert np.all(plotting.image_grid(half).axes[0].images[0].get_array() == 0.5)


def test_reconstructions_are_named_rows_under_the_originals():
    originals, first, second = images(3, 3, 4, 5)
    figure = plotting.reconstructions(originals, {"first": first, "second": second})
    axes = figure.axes[0]
    np.testing.assert_array_equal(
        [image.get_array() for image in axes.images], np.concatenate([originals, first, second])
    )
    labels = dict(zip([text.get_text() for text in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    for name, place in (("original", 0), ("first", 3), ("second", 6)):
        _, _, bottom, top = axes.images[place].get_extent()
        assert labels[name] == pytest.approx((bottom + top) / 2)


def test_the_labels_of_rows_are_within_the_figure():
    long = "a model whose name is rather long"
    figure = plotting.reconstructions(images(3, 4, 5), {long: images(3, 4, 5)})
    assert figure.get_tightbbox().x0 >= 0
    assert figure.get_tightbbox().x1 <= figure.get_size_inches()[0]


def test_paths_have_framed_ends():
    given = images(2, 5, 4, 6)
    axes = plotting.interpolation(given).axes[0]
    np.testing.assert_array_equal([image.get_array() for image in axes.images], given.reshape(10, 4, 6))
    extents = [image.get_extent() for image in axes.images]
    framed = [
        any(left < x < right and top < y < bottom for x, y in (frame.get_center() for frame in axes.patches))
        for left, right, bottom, top in extents
    ]
    assert framed == 2 * [True, False, False, False, True]


def test_the_manifold_has_its_tiles_edge_to_edge_from_the_bottom_left():
    given = images(3, 5, 4, 6)
    figure = plotting.manifold(given)
    (image,) = figure.axes[0].images
    mosaic = image.get_array()
    assert mosaic.shape == (12, 30)
    np.testing.assert_array_equal(mosaic[-4:, :6], given[0, 0])
    np.testing.assert_array_equal(mosaic[:4, 12:18], given[2, 2])
    assert list(image.get_extent()) == [0, 5, 0, 3]


def ticks(axis):
    return {
        float(label.get_text().replace("−", "-")): place
        for label, place in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
    }


def test_the_manifold_s_ticks_are_at_the_quantiles():
    axes = plotting.manifold(images(10, 40, 2, 2)).axes[0]
    for axis, number in ((axes.xaxis, 40), (axes.yaxis, 10)):
        places = ticks(axis)
        assert {-1.0, 0.0, 1.0} <= places.keys()
        for value, place in places.items():
            assert place / number == pytest.approx(ndtr(value), abs=0.2 / number)


def test_the_manifold_s_ticks_follow_the_values_given():
    axes = plotting.manifold(images(1, 5, 2, 2), np.linspace(-2, 2, 5), np.array([0.3])).axes[0]
    assert ticks(axes.xaxis) == pytest.approx({value: value + 2.5 for value in np.arange(-2, 2.5, 0.5)})
    assert ticks(axes.yaxis) == {0.3: 0.5}


@pytest.mark.parametrize("projection", [None, "first_two"])
def test_points_have_the_colours_of_their_classes(projection):
    means = np.random.default_rng(0).normal(size=(50, 2 if projection is None else 5))
    labels = np.arange(50, dtype=np.uint8) % 10
    figure = plotting.latent_scatter(means, labels, projection=projection)
    axes = figure.axes[0]
    (points,) = axes.collections
    colours = {
        tuple(place): to_hex(colour)
        for place, colour in zip(points.get_offsets(), points.get_facecolors(), strict=True)
    }
    assert colours == {tuple(mean[:2]): CLASS_COLOURS[label] for mean, label in zip(means, labels, strict=True)}
    assert legend(figure) == [str(digit) for digit in range(10)]
    assert points.get_rasterized()
    assert axes.get_aspect() == 1


def test_classes_are_drawn_mixed():
    labels = np.repeat([0, 1], 500)
    (points,) = plotting.latent_scatter(images(1000, 2), labels).axes[0].collections
    first = np.all(points.get_facecolors()[:500, :3] == to_rgba(CLASS_COLOURS[0])[:3], axis=1)
    assert 0.3 < first.mean() < 0.7


def test_more_than_two_latents_are_shown_by_principal_components():
    scales = np.array([1.0, 4.0, 0.0, 2.0])
    means = np.random.default_rng(0).normal(size=(2000, 4)) * scales + 7
    axes = plotting.latent_scatter(means).axes[0]
    values, vectors = np.linalg.eigh(np.cov(means.T))
    largest = vectors[:, :-3:-1]
    expected = (means - means.mean(axis=0)) @ (largest * np.sign(largest[[1, 3], [0, 1]]))
    drawn = np.array(axes.collections[0].get_offsets())
    np.testing.assert_allclose(drawn[np.argsort(drawn[:, 0])], expected[np.argsort(expected[:, 0])], atol=1e-9)
    for label, value in ((axes.get_xlabel(), values[-1]), (axes.get_ylabel(), values[-2])):
        assert f"({value / values.sum():.0%} of the variance)" in label


def test_each_run_s_kl_falls_from_its_largest_latent_and_its_sum_is_told():
    figure = plotting.kl_by_rank({"a": np.array([0.5, 3.0, 1.0]), "b": np.array([0.25, 2.0])})
    axes = figure.axes[0]
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_xydata(), [[1, 3.0], [2, 1.0], [3, 0.5]])
    np.testing.assert_array_equal(second.get_xydata(), [[1, 2.0], [2, 0.25]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a, 4.5 nats", "b, 2.2 nats"]
    assert first.get_color() != second.get_color()
    assert axes.get_ylim()[0] == 0


def test_means_that_do_not_vary_and_many_classes_are_drawn(tmp_path):
    figure = plotting.latent_scatter(np.zeros((26, 3)), np.arange(26))
    assert "(0% of the variance)" in figure.axes[0].get_xlabel()
    assert len(set(map(tuple, figure.axes[0].collections[0].get_facecolors()))) == 26
    figure.savefig(tmp_path / "figure.png")


def bars_of(axes):
    return sorted(axes.patches, key=lambda bar: bar.get_x())


@pytest.mark.parametrize("size", [2, 20, 200])
def test_latents_are_bars_from_the_largest_down(size):
    kl = np.random.default_rng(0).gamma(1.0, size=size)
    active = kl > 0.5
    figure = plotting.kl_by_latent(kl, kl_se=kl / 10, variance_of_means=kl / 50, threshold=0.01)
    axes, below = figure.axes
    bars = bars_of(axes)
    np.testing.assert_array_equal([bar.get_height() for bar in bars], np.sort(kl)[::-1])
    colours = [to_hex(bar.get_facecolor()) for bar in bars]
    assert len(set(colours[: active.sum()])) == 1
    assert set(colours[: active.sum()]).isdisjoint(colours[active.sum() :])
    assert axes.get_title() == f"{active.sum()} of {size} active, {kl.sum():.1f} nats"
    kinds = [name for name, some in (("active", active.any()), ("inactive", not active.all())) if some]
    assert legend(figure) == [*kinds, "active above 0.01"]
    errors = axes.collections[0].get_segments()
    np.testing.assert_allclose([np.ptp(error[:, 1]) for error in errors], 0.4 * np.sort(kl)[::-1])
    dots = np.concatenate([line.get_xydata() for line in below.lines[:2]])
    np.testing.assert_allclose(dots[:, 1], np.sort(kl)[::-1] / 50)
    assert set(below.lines[-1].get_ydata()) == {0.01}


def test_each_layer_has_a_panel_in_an_order_of_its_own():
    kl = np.array([0.5, 2.0, -0.25, 1.0, 3.0])
    variances = np.array([0.1, 0.2, -0.3, 0.005, 1.0])
    layers = {"lower layer": 3, "upper layer": 2}
    figure = plotting.kl_by_latent(kl, variance_of_means=variances, threshold=0.01, layers=layers)
    lower, upper, lower_dots, upper_dots = figure.axes
    assert [bar.get_height() for bar in bars_of(lower)] == [2, 0.5, -0.25]
    assert [bar.get_height() for bar in bars_of(upper)] == [3, 1]
    assert lower.get_title() == "lower layer\n2 of 3 active, 2.2 nats"
    assert upper.get_title() == "upper layer\n1 of 2 active, 4.0 nats"
    assert lower.get_ylim() == upper.get_ylim()
    assert lower.get_ylim()[0] == 0
    assert [text.get_text() for text in lower.texts] == ["1 below 0, −0.25 nats in all"]
    assert [label.get_text() for label in upper_dots.get_xticklabels()] == ["z₅", "z₄"]
    # A variance that no logarithm shows is at the edge.
    assert any(line.get_marker() == "v" and list(line.get_xdata()) == [3] for line in lower_dots.lines)


def test_ranks_of_layers_are_lines_of_one_colour():
    figure = plotting.kl_by_rank(
        {"a": np.array([1.0, 3.0, 0.5, 0.25]), "b": np.array([2.0])}, layers={"a": {"lower": 2, "upper": 2}, "b": {}}
    )
    axes = figure.axes[0]
    lower, upper, other = axes.lines
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 1], [0.5, 0.25], [2]]
    assert lower.get_color() == upper.get_color() != other.get_color()
    assert lower.get_linestyle() != upper.get_linestyle()
    assert [line.get_label() for line in axes.lines] == ["a, lower, 4.0 nats", "a, upper, 0.8 nats", "b, 2.0 nats"]


def test_what_is_empty_is_left_out_of_the_key():
    figure = plotting.kl_by_latent(np.ones(3), variance_of_means=np.ones(3), threshold=0.01)
    assert legend(figure) == ["active", "active above 0.01"]


def test_few_latents_are_named():
    figure = plotting.kl_by_latent(np.array([1.0, 3.0, 2.0]), variance_of_means=np.ones(3), threshold=0.01)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["z₂", "z₃", "z₁"]


def test_colours_of_classes_are_apart():
    colours = np.array([to_rgba(colour)[:3] for colour in CLASS_COLOURS])
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(10, dtype=bool)].min() > 0.25


def test_the_gap_fills_the_evidence():
    positions = np.linspace(-1, 1, 40)
    kl = positions**2
    axes = plotting.bound_gap(positions, -3 - kl, kl, -3.0, xlabel="loc").axes[0]
    bound, evidence, total = axes.lines
    np.testing.assert_array_equal(bound.get_xydata(), np.stack([positions, -3 - kl], axis=1))
    assert set(evidence.get_ydata()) == {-3.0}
    np.testing.assert_allclose(total.get_ydata(), -3)
    (filled,) = axes.collections
    heights = filled.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((-4, -3))
    assert axes.get_xlabel() == "loc"


def test_a_sum_that_is_not_the_evidence_shows():
    axes = plotting.bound_gap(np.arange(3.0), np.full(3, -5.0), np.full(3, 1.0), -3.0, xlabel="loc").axes[0]
    assert set(axes.lines[2].get_ydata()) == {-4.0}


MISUSES = {
    "images must be [N, H, W] or [N, H, W, C], got shape (3, 784): reshape": lambda: plotting.image_grid(
        images(3, 784)
    ),
    "images must be floats in [0, 1], got uint8: convert": lambda: plotting.image_grid(np.zeros((2, 3, 3), np.uint8)),
    "images must have 1 or 3 channels last, got shape (2, 3, 3, 2): ": lambda: plotting.image_grid(images(2, 3, 3, 2)),
    "images must hold at least one image, got shape (0, 3, 3): ": lambda: plotting.image_grid(images(0, 3, 3)),
    "num_columns must be at least 1, got 0: ": lambda: plotting.image_grid(images(2, 3, 3), num_columns=0),
    "reconstructed['a'] must have the originals' shape (2, 3, 3), got (2, 3, 4): ": lambda: plotting.reconstructions(
        images(2, 3, 3), {"a": images(2, 3, 4)}
    ),
    "images must have at least 2 steps a row, got 1: ": lambda: plotting.interpolation(images(2, 1, 3, 3)),
    "images must be [R, S, H, W] or": lambda: plotting.interpolation(images(2, 5, 9)),
    "images must be [R, C, H, W] or": lambda: plotting.manifold(images(2, 5, 9)),
    "z1 must be 2 increasing values, got [1. 0.]: ": lambda: plotting.manifold(
        images(2, 2, 3, 3), np.array([1.0, 0.0])
    ),
    "runs must hold the KL of at least one run, got none: ": lambda: plotting.kl_by_rank({}),
    "layers must have 3 latents together, got {'a': 2}: ": lambda: plotting.kl_by_latent(
        np.ones(3), variance_of_means=np.ones(3), threshold=0.01, layers={"a": 2}
    ),
    "means must be [N, D] with both at least 2, got shape (5, 1): ": lambda: plotting.latent_scatter(images(5, 1)),
    "means must be finite, got 1 of 3 that are not: ": lambda: plotting.latent_scatter(
        np.array([[0.0, np.nan], [1.0, 2.0], [0.0, 0.0]])
    ),
    "runs must each hold a row an epoch, got {'a': 0}: ": lambda: plotting.training_curves({"a": []}),
    "runs must each hold a row an epoch, got {}: ": lambda: plotting.training_curves({}),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse_is_refused_by_name(message):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        MISUSES[message]()
    assert str(refusal.value).startswith(message)


FIGURES = {
    "training_curves": lambda: plotting.training_curves({"run": rows([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])}),
    "reconstructions": lambda: plotting.reconstructions(images(3, 4, 5), {"model": images(3, 4, 5)}),
    "interpolation": lambda: plotting.interpolation(images(2, 3, 4, 5, 3)),
    "manifold": lambda: plotting.manifold(images(3, 3, 4, 4)),
    "latent_scatter": lambda: plotting.latent_scatter(images(20, 3), np.arange(20) % 3),
    "kl_by_rank": lambda: plotting.kl_by_rank({"a": images(5)}),
    "kl_by_latent": lambda: plotting.kl_by_latent(
        np.array([1.0, 0.0]), variance_of_means=np.array([1.0, 0.0]), threshold=0.01
    ),
    "bound_gap": lambda: plotting.bound_gap(np.arange(3.0), -np.ones(3), np.ones(3), 0.0, xlabel="loc"),
}
SAVED_QUICKLY = ("reconstructions", "kl_by_latent")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAVED_QUICKLY else pytest.mark.slow) for name in FIGURES]
)
def test_every_figure_is_saved_with_whole_fonts_and_leaves_the_settings_alone(name, tmp_path):
    before = dict(mpl.rcParams)
    figure = FIGURES[name]()
    figure.savefig(tmp_path / "figure.png")
    figure.savefig(tmp_path / "figure.pdf")
    assert b"/Type3" not in (tmp_path / "figure.pdf").read_bytes()
    assert dict(mpl.rcParams) == before
