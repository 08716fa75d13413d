"""The total derivative of the ELBO split into its path and its score, as q approaches the target.

    python benchmarks/total_derivative.py

Along a reparameterized sample the gradient of log p(z) - log q(z; theta) is made of two parts,

    total = path - score,

the path's through z alone and the score d log q(z; theta) / d theta at a fixed z, whose mean is zero. So total +
c score is unbiased for any c: c = 0 keeps the score (the total derivative), c = 1 drops it (sticking the landing), and
c* = -Cov(total, score) / Var(score) has the least variance. The target is a standard Gaussian, q = Normal(loc, scale).
The script measures

- both parts' means and variances and Cov(total, score), as q goes to the target on a straight line;
- the variance with the score kept, dropped and weighted by c*, as q's scale varies at a fixed loc;
- c* and the variance against c.

For a Gaussian log q is constant along the path but for the entropy, so the total derivative is the gradient with the
closed-form entropy, sample by sample. In units of the target's scale c* = scale^2 for loc and scale alike: dropping the
score helps if and only if scale^2 > 1/2. Gradients are of one sample each. Bars are two standard errors, lines are
exact. Writes results/total_derivative.json and .png.

Reference: Roeder, Wu & Duvenaud (2017), section 3; Geffner & Domke (2018, 2020) for weighting by c*.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from saving import save_png
from vae_jax import distributions
from vae_jax.cli.startup import environment
from vae_jax.estimators import ESTIMATORS
from vae_jax.estimators.average import values_at
from vae_jax.files import write_json
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure
from vae_jax.problems import LinearGaussian
from vae_jax.problems.quadrature import noise_moments
from vae_jax.statistics import gradient_replicates, summarize
from vae_jax.typing import Distributions, Objective, Parameters, PRNGKey, Scalar

DEFAULT_OUT = Path(__file__).parent / "results"
SEED = 0

PROBLEM = LinearGaussian(x=0.0, prior_loc=0.0, prior_scale=2**0.5, noise_scale=2**0.5)
"""Its posterior is the standard Gaussian."""
PARAMETERS = ("loc", "scale")
START = {"loc": -1.5, "scale": 0.4}
FIXED_LOC = -0.5
SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.45, 1.6)
COEFFICIENTS = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
COEFFICIENT_SCALES = (0.5, 0.5**0.5, 1.0, 1.25)
HALF = 0.5**0.5
"""The scale at which dropping the score and keeping it are as good."""

Params = dict[str, float]


def main(options: argparse.Namespace) -> None:
    num_replicates = 2_000 if options.quick else 400_000
    steps = np.linspace(0, 1, 11)
    places = [{"study": "line", "t": float(t)} | at_step(float(t)) for t in steps]
    places += [{"study": "scale", "loc": FIXED_LOC, "scale": scale} for scale in SCALES]
    places += [{"study": "coefficient", "loc": FIXED_LOC, "scale": scale} for scale in COEFFICIENT_SCALES]
    keys = jax.random.split(jax.random.key(SEED), len(places))
    rows = [row for place, key in zip(places, keys, strict=True) for row in measured_rows(place, key, num_replicates)]
    results = {
        "environment": environment("float32", SEED),
        "target": dict(zip(PARAMETERS, PROBLEM.posterior, strict=True)),
        "num_replicates": num_replicates,
        "rows": rows,
    }
    print_results(results)
    write_json(options.out / "total_derivative.json", results)
    save_png(draw_figure(rows), options.out / "total_derivative.png")


def at_step(t: float) -> Params:
    """q's parameters on the line from the start to the target."""
    return {name: (1 - t) * START[name] + t * goal for name, goal in zip(PARAMETERS, PROBLEM.posterior, strict=True)}


def score_of_q(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The mean of log q at held samples: its gradient is the score, of the samples that `pathwise` draws."""
    samples = distributions.sample(q, key, num_samples)
    return values_at(lambda sample, q: distributions.log_prob(q, sample), samples, q).mean()


PARTS: Mapping[str, Any] = {
    "total": ESTIMATORS["pathwise"],
    "path": ESTIMATORS["sticking_the_landing"],
    "score": score_of_q,
    "closed_form_entropy": ESTIMATORS["closed_form_entropy"],
}


def loss(params: Parameters, key: PRNGKey, *, part: str) -> Scalar:
    return PROBLEM.estimate(params, key, 1, estimator=PARTS[part])


LOSSES = {part: partial(loss, part=part) for part in PARTS}


def measured_rows(place: dict[str, Any], key: PRNGKey, num_replicates: int) -> list[dict[str, Any]]:
    """Moments of the parts at one q, for each parameter, over the same draws."""
    params = {name: jnp.float32(place[name]) for name in PARAMETERS}
    draws = {part: gradient_replicates(one, params, key, num_replicates)[1] for part, one in LOSSES.items()}
    rows = []
    for name in PARAMETERS:
        parts = {part: np.asarray(gradients[name], float) for part, gradients in draws.items()}
        row = place | {"parameter": name} | moments_of_parts(parts) | exact_moments(place, name)
        if place["study"] == "coefficient":
            row["by_coefficient"] = by_coefficient(parts)
        rows.append(row)
    return rows


def by_coefficient(parts: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    return [
        {"coefficient": coefficient} | mean_and_variance("estimate", parts["total"] + coefficient * parts["score"])
        for coefficient in COEFFICIENTS
    ]


def moments_of_parts(parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means, variances, the covariance and the best coefficient, with standard errors."""
    total, path, score = (parts[part] for part in ("total", "path", "score"))
    moments: dict[str, Any] = {}
    for part, draws in parts.items():
        moments |= mean_and_variance(part, draws)
    moments |= covariance(total, score)
    # What rounding leaves of total = path - score, and of the total less the gradient with the closed-form entropy.
    moments["largest_gap"] = float(np.abs(total - (path - score)).max())
    moments["largest_gap_to_closed_form_entropy"] = float(np.abs(total - parts["closed_form_entropy"]).max())
    best = total + moments["best_coefficient"] * score
    return moments | mean_and_variance("best", best)


def mean_and_variance(part: str, draws: np.ndarray) -> dict[str, float]:
    statistics = summarize(draws.astype(np.float32), tail_size=0)
    fields = ("mean", "mean_se", "variance", "variance_se")
    return {f"{part}_{field}": float(getattr(statistics, field)) for field in fields}


def covariance(total: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Cov(total, score) and c* = -Cov(total, score) / Var(score); their errors by the delta method."""
    number = len(total)
    total, score = total - total.mean(), score - score.mean()
    products = total * score
    best = -float(products.sum() / (score**2).sum())
    remainders = (total + best * score) * score
    return {
        "covariance": float(products.sum() / (number - 1)),
        "covariance_se": float(products.std(ddof=1) / np.sqrt(number)),
        "best_coefficient": best,
        "best_coefficient_se": float(remainders.std(ddof=1) / (score**2).mean() / np.sqrt(number)),
    }


def exact_moments(params: Mapping[str, Any], name: str) -> dict[str, float]:
    """The same exactly. The moments of the total and of the path are the problem's own."""
    q = {parameter: float(params[parameter]) for parameter in PARAMETERS}
    exact: dict[str, float] = {}
    for part, estimator in (("total", "pathwise"), ("path", "sticking_the_landing")):
        moments = PROBLEM.exact(q, estimator)(1)[name]
        exact |= {f"exact_{part}_mean": _value(moments.mean), f"exact_{part}_variance": _value(moments.std) ** 2}
    score = noise_moments(lambda noise: (noise if name == "loc" else noise**2 - 1) / q["scale"])
    # Var(path) = Var(total + score).
    covariance = (exact["exact_path_variance"] - exact["exact_total_variance"] - score.variance) / 2
    best = -covariance / score.variance
    return exact | {
        "exact_score_mean": 0.0,
        "exact_score_variance": score.variance,
        "exact_covariance": covariance,
        "exact_best_coefficient": best,
        "exact_best_variance": exact["exact_total_variance"] + best * covariance,
    }


def _value(exact: Any) -> float:
    return float(exact.value)


def exact_variance(params: Mapping[str, Any], name: str, coefficients: np.ndarray) -> np.ndarray:
    """Var(total + c score)."""
    exact = exact_moments(params, name)
    linear = exact["exact_total_variance"] + 2 * coefficients * exact["exact_covariance"]
    return linear + coefficients**2 * exact["exact_score_variance"]


def print_results(results: dict[str, Any]) -> None:
    print(f"total = path - score, gradients of one sample, {results['num_replicates']:,} replicates")
    print("on a line to the target: means, and Cov(total, score)")
    header = "".join(f"{column:>19}" for column in ("path", "score", "Cov(total, score)"))
    print(f"{'t':>4} {'':<6}{header}")
    for row in _of_study(results["rows"], "line"):
        cells = (_cell(row, field, f"{field}_se") for field in ("path_mean", "score_mean", "covariance"))
        print(f"{row['t']:>4.1f} {row['parameter']:<6}" + "".join(f"{cell:>19}" for cell in cells))
    for study, place, title in (("line", "t", "on a line to the target"), ("scale", "scale", f"at loc {FIXED_LOC}")):
        print(f"\n{title}: variance, score kept and dropped, and best weight")
        header = "".join(f"{column:>19}" for column in ("kept, c = 0", "dropped, c = 1", "c*"))
        print(f"{place:>5} {'':<6}{header}  dropping")
        for row in _of_study(results["rows"], study):
            fields = ("total_variance", "path_variance", "best_coefficient")
            cells = "".join(f"{_cell(row, field, f'{field}_se'):>19}" for field in fields)
            print(f"{row[place]:>5.2f} {row['parameter']:<6}{cells}  {_verdict(row)}")
    gaps = [
        max(row[field] for row in results["rows"]) for field in ("largest_gap", "largest_gap_to_closed_form_entropy")
    ]
    print(f"\n|total - (path - score)|, at most: {gaps[0]:.1g}")
    print(f"|total - gradient with the closed-form entropy|, at most: {gaps[1]:.1g}")


def _of_study(rows: Sequence[dict[str, Any]], study: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["study"] == study]


def _cell(row: dict[str, Any], field: str, error: str) -> str:
    return f"{row[field]:.4g} ± {row[error]:.1g}"


def _verdict(row: dict[str, Any]) -> str:
    difference = row["path_variance"] - row["total_variance"]
    if abs(difference) < 2 * np.hypot(row["path_variance_se"], row["total_variance_se"]):
        return "either"
    return "helps" if difference < 0 else "hurts"


HELPS, HURTS = "#e3f3ec", "#fbe8dc"

PART_LOOKS = {
    "path_variance": ("Var(path): score dropped", COLOURS[0], MARKERS[0]),
    "total_variance": ("Var(total): score kept,\nor closed-form entropy", COLOURS[2], MARKERS[1]),
    "score_variance": ("Var(score)", COLOURS[6], MARKERS[2]),
    "covariance": ("Cov(total, score)", COLOURS[5], MARKERS[3]),
}
WEIGHT_LOOKS = {
    "path_variance": ("score dropped, c = 1", COLOURS[0], MARKERS[0]),
    "total_variance": ("score kept, c = 0", COLOURS[2], MARKERS[1]),
    "best_variance": ("Var(total + c* score):\nbest weight of the score", COLOURS[4], MARKERS[4]),
}


def draw_figure(rows: Sequence[dict[str, Any]]) -> StyledFigure:
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.2, 5.4), layout="constrained")
        axes = figure.subplot_mosaic([["line loc", "scale loc", "best"], ["line scale", "scale scale", "coefficient"]])
        for name in PARAMETERS:
            draw_line(axes[f"line {name}"], rows, name)
            draw_scales(axes[f"scale {name}"], rows, name)
        draw_best(axes["best"], rows)
        draw_coefficients(axes["coefficient"], rows)
        axes["line loc"].set_title("q goes to the target")
        axes["scale loc"].set_title(f"scale varies, loc = {FIXED_LOC:g}".replace("-", "−"))
        regions = [
            Patch(color=HELPS, label="dropping the score helps"),
            Patch(color=HURTS, label="dropping the score hurts"),
        ]
        handles = [*_handles(axes["line loc"]), *_handles(axes["scale loc"])[2:], *regions]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _handles(axes: Axes) -> list[Any]:
    return axes.get_legend_handles_labels()[0]


def draw_line(axes: Axes, rows: Sequence[dict[str, Any]], name: str) -> None:
    members = [row for row in _of_study(rows, "line") if row["parameter"] == name]
    steps = np.linspace(0, 1, 101)
    exact = [exact_moments(at_step(float(t)), name) for t in steps]
    boundary = (HALF - START["scale"]) / (1 - START["scale"])
    _shade(axes, -0.04, boundary, 1.04)
    _draw_fields(axes, members, "t", steps, exact, PART_LOOKS)
    axes.axhline(0, color="grey", linewidth=0.5, zorder=0)
    axes.set(xlabel="t, from start (0) to target (1)", ylabel=f"(co)variance, ∂ / ∂ {name}")


def draw_scales(axes: Axes, rows: Sequence[dict[str, Any]], name: str) -> None:
    members = [row for row in _of_study(rows, "scale") if row["parameter"] == name]
    scales = np.geomspace(SCALES[0], SCALES[-1], 200)
    exact = [exact_moments({"loc": FIXED_LOC, "scale": float(scale)}, name) for scale in scales]
    _shade(axes, SCALES[0] - 0.05, HALF, SCALES[-1] + 0.05)
    _draw_fields(axes, members, "scale", scales, exact, WEIGHT_LOOKS)
    axes.set(xlabel="scale of q / scale of target", ylabel=f"variance, ∂ / ∂ {name}")


def _draw_fields(
    axes: Axes,
    members: Sequence[dict[str, Any]],
    place: str,
    line_places: np.ndarray,
    exact: Sequence[dict[str, float]],
    looks: Mapping[str, tuple[str, str, str]],
) -> None:
    for field, (label, colour, marker) in looks.items():
        _points(axes, [row[place] for row in members], members, field, colour, marker, label)
        axes.plot(line_places, [moments[f"exact_{field}"] for moments in exact], color=colour, linewidth=0.9)


def _points(
    axes: Axes, places: Any, members: Sequence[dict[str, Any]], field: str, colour: str, marker: str, label: str
) -> None:
    errors = [2 * row[f"{field}_se"] for row in members]
    axes.errorbar(
        places, [row[field] for row in members], yerr=errors, fmt=marker, color=colour, markersize=3.5, elinewidth=0.8,
        capsize=2, label=label,
    )  # fmt: skip


def _shade(axes: Axes, left: float, boundary: float, right: float) -> None:
    axes.axvspan(left, boundary, color=HURTS, zorder=-2, linewidth=0)
    axes.axvspan(boundary, right, color=HELPS, zorder=-2, linewidth=0)
    axes.set_xlim(left, right)


def draw_best(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    members = _of_study(rows, "scale")
    scales = np.linspace(SCALES[0], SCALES[-1], 100)
    _shade(axes, SCALES[0] - 0.05, HALF, SCALES[-1] + 0.05)
    for name, marker, size in zip(PARAMETERS, ("o", "x"), (5.0, 4.0), strict=True):
        of_parameter = [row for row in members if row["parameter"] == name]
        axes.errorbar(
            SCALES, [row["best_coefficient"] for row in of_parameter],
            yerr=[2 * row["best_coefficient_se"] for row in of_parameter], fmt=marker, markersize=size,
            markerfacecolor="none", color=COLOURS[4], elinewidth=0.8, label=f"∂ / ∂ {name}",
        )  # fmt: skip
    exact = [exact_moments({"loc": FIXED_LOC, "scale": float(scale)}, "loc") for scale in scales]
    axes.plot(scales, [moments["exact_best_coefficient"] for moments in exact], color=COLOURS[4], linewidth=0.9)
    for coefficient, words in ((0, "kept"), (1, "dropped")):
        axes.axhline(coefficient, color="grey", linewidth=0.7, linestyle=":", zorder=0)
        axes.annotate(words, (SCALES[-1], coefficient), (0, 2), textcoords="offset points", ha="right", color="#555555")
    axes.legend(loc="upper left")
    axes.set(xlabel="scale of q / scale of target", ylabel="best coefficient c*", title="best weight of the score")


def draw_coefficients(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    members = [row for row in _of_study(rows, "coefficient") if row["parameter"] == "scale"]
    coefficients = np.linspace(COEFFICIENTS[0], COEFFICIENTS[-1], 101)
    for row, colour, marker in zip(members, (COLOURS[3], COLOURS[5], COLOURS[1], COLOURS[6]), MARKERS, strict=False):
        cells = row["by_coefficient"]
        label = f"scale² = {row['scale'] ** 2:.2g}"
        _points(axes, COEFFICIENTS, cells, "estimate_variance", colour, marker, label)
        axes.plot(coefficients, exact_variance(row, "scale", coefficients), color=colour, linewidth=0.9)
    for coefficient, words in ((0, "kept"), (1, "dropped")):
        axes.axvline(coefficient, color="grey", linewidth=0.7, linestyle=":", zorder=0)
        place = axes.get_xaxis_transform()
        axes.annotate(
            words, (coefficient, 0.42), (-2, 0), xycoords=place, textcoords="offset points", ha="right", color="#555555"
        )
    axes.legend(loc="upper center", frameon=True, framealpha=1, edgecolor="none", bbox_to_anchor=(0.42, 1.02))
    axes.set(xlabel="weight c of the score", ylabel="variance, ∂ / ∂ scale")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few replicates, to see that it runs")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
