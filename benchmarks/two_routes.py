"""One distribution reached by two routes, and what a relaxation of the second costs.

    python benchmarks/two_routes.py

A sample may be drawn by a sampler that knows its distribution, or as a function of noise that does not depend on the
distribution's parameters. The script compares

- an Exponential by its sampler and by its quantile function at uniform noise, with Kolmogorov-Smirnov tests;
- a categorical by its sampler, by Gumbel-max, and as the largest coordinate of Gumbel-softmax samples, which is the
  categorical at any temperature, with chi-squared tests;
- the gradient of E[(values . z - target)^2] by the relaxations that Gumbel-softmax allows: their bias and variance
  against the temperature, with REBAR and the score function as unbiased references.

The cost is quadratic, so that both biases vanish with the temperature: straight-through then follows the trapezoid rule
from one outcome to the next, which is exact for it. Gradients are of two samples each, drawn independently for each
temperature. Lines are exact: quadrature over the Gumbel noise, or sums over the
outcomes; of REBAR only the mean is known. Bars are two standard errors. Writes results/two_routes.json and .png.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import numpyro.distributions as dist
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from scipy import stats

from saving import save_png
from vae_jax import distributions
from vae_jax.cli.startup import environment
from vae_jax.estimators import ESTIMATORS, OneHotCategorical
from vae_jax.estimators.discrete import relaxable_latents
from vae_jax.estimators.relaxation import noisy_logits
from vae_jax.files import write_json
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure
from vae_jax.problems.quadrature import panels
from vae_jax.statistics import gradient_statistics, summarize
from vae_jax.typing import Distributions, Latents, Parameters, PRNGKey, Scalar

DEFAULT_OUT = Path(__file__).parent / "results"
SEED = 0

RATE = 1.5
PROBS = (0.1, 0.2, 0.5, 0.2)
SHOWN = 2
"""The category whose coordinate and whose logit's gradient are drawn: the likeliest."""
HISTOGRAM_TEMPERATURES = (0.1, 0.5, 1.0, 2.0)

VALUES = (0.2, 1.0, -0.5, 0.6)
TARGET = 0.45
NUM_SAMPLES = 2
TEMPERATURES = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, 5.0)
RELAXATIONS = ("gumbel_softmax", "straight_through")
REFERENCES = ("rebar", "score_function+leave_one_out")
LOGITS = tuple(np.log(PROBS).tolist())


def main(options: argparse.Namespace) -> None:
    exponential_key, relaxed_key, categorical_key, gradients_key = jax.random.split(jax.random.key(SEED), 4)
    num_draws = 5_000 if options.quick else 200_000
    exponential = exponential_draws(exponential_key, num_draws)
    relaxed = relaxed_draws(relaxed_key, num_draws)
    categories = categorical_draws(categorical_key, num_draws, relaxed)
    gradients = gradient_rows(gradients_key, 2_000 if options.quick else 1_000_000)
    results = {
        "environment": environment("float32", SEED),
        "num_draws": num_draws,
        "exponential": {"rate": RATE} | compared_exponentials(exponential),
        "categorical": {"probs": PROBS, "routes": compared_categories(categories)},
        "relaxation": {
            "values": VALUES,
            "target": TARGET,
            "num_samples": NUM_SAMPLES,
            "exact_gradient": exact_gradient().tolist(),
            "rows": gradients,
        },
    }
    print_results(results)
    write_json(options.out / "two_routes.json", results)
    save_png(draw_figure(results, exponential, relaxed), options.out / "two_routes.png")


def exponential_draws(key: PRNGKey, num_draws: int) -> dict[str, np.ndarray]:
    """Exponential samples by route."""
    direct_key, noise_key = jax.random.split(key)
    q = dist.Exponential(jnp.float32(RATE))
    # The middles of the generator's cells, none of which is 0.
    uniform = jax.random.uniform(noise_key, (num_draws,)) + jnp.finfo(jnp.float32).eps / 2
    return {
        "direct": np.asarray(distributions.sample(q, direct_key, num_draws), float),
        "inverse CDF": np.asarray(q.icdf(uniform), float),
    }


def compared_exponentials(draws: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means, and Kolmogorov-Smirnov tests against the exact distribution and of the routes against each other."""
    rows = []
    for route, samples in draws.items():
        test: Any = stats.kstest(samples, stats.expon(scale=1 / RATE).cdf)
        row = {"route": route, "ks_distance": float(test.statistic), "p_value": float(test.pvalue)}
        mean, mean_se = float(samples.mean()), float(stats.sem(samples))
        rows.append(row | {"mean": mean, "mean_se": mean_se, "exact_mean": 1 / RATE})
    direct, inverse = draws.values()
    both: Any = stats.ks_2samp(direct, inverse)
    return {"routes": rows, "two_sample_p_value": float(both.pvalue)}


def relaxed_draws(key: PRNGKey, num_draws: int) -> dict[float, np.ndarray]:
    """Gumbel-softmax samples [S, K] by temperature, each from noise of its own."""
    latents = relaxable_latents(OneHotCategorical(jnp.asarray(LOGITS)))
    keys = jax.random.split(key, len(HISTOGRAM_TEMPERATURES))
    draws = {}
    for temperature, temperature_key in zip(HISTOGRAM_TEMPERATURES, keys, strict=True):
        (noisy,) = noisy_logits(latents, temperature_key, num_draws)
        draws[temperature] = np.asarray(latents[0].relaxed(noisy, temperature), float)
    return draws


def categorical_draws(key: PRNGKey, num_draws: int, relaxed: dict[float, np.ndarray]) -> dict[str, np.ndarray]:
    """Categories by route: one-hot samples' and the largest coordinates of relaxed ones."""
    direct_key, noise_key = jax.random.split(key)
    q = dist.Categorical(probs=jnp.asarray(PROBS))
    latents = relaxable_latents(OneHotCategorical(jnp.asarray(LOGITS)))
    (noisy,) = noisy_logits(latents, noise_key, num_draws)
    routes = {"direct": distributions.sample(q, direct_key, num_draws), "Gumbel-max": latents[0].hard(noisy).argmax(1)}
    return {route: np.asarray(samples) for route, samples in routes.items()} | {
        softmax_route(temperature): samples.argmax(axis=1) for temperature, samples in relaxed.items()
    }


def softmax_route(temperature: float) -> str:
    return f"Gumbel-softmax {temperature:g}"


def compared_categories(draws: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Frequencies, and chi-squared tests against the probabilities."""
    rows = []
    for route, samples in draws.items():
        counts = np.bincount(samples, minlength=len(PROBS))
        test: Any = stats.chisquare(counts, len(samples) * np.asarray(PROBS))
        statistics = summarize((samples[:, None] == np.arange(len(PROBS))).astype(np.float32))
        rows.append(
            {
                "route": route,
                "frequencies": (counts / len(samples)).tolist(),
                "frequencies_se": np.asarray(statistics.mean_se, float).tolist(),
                "chi_squared": float(test.statistic),
                "p_value": float(test.pvalue),
            }
        )
    return rows


def cost(latents: Latents, q: Distributions) -> Scalar:
    """(values . z - target)^2, which is defined between the outcomes too."""
    return ((jnp.asarray(VALUES) * latents).sum() - TARGET) ** 2


def loss(params: Parameters, key: PRNGKey, *, name: str) -> Scalar:
    """The expected cost by an estimator, at the temperature among the parameters where it has one.

    A parameter is traced, so that all temperatures share one compiled program.
    """
    estimator: Any = ESTIMATORS[name]
    if name != "score_function+leave_one_out":
        estimator = partial(estimator, temperature=params["temperature"])
    return estimator(cost, OneHotCategorical(params["logits"]), key, NUM_SAMPLES)


def gradient_rows(key: PRNGKey, num_replicates: int) -> list[dict[str, Any]]:
    """Bias and variance of the gradient in every logit, by estimator and temperature."""
    rows = []
    exact = exact_gradient()
    for number, name in enumerate((*RELAXATIONS, *REFERENCES)):
        of_estimator = partial(loss, name=name)
        for place, temperature in enumerate(TEMPERATURES):
            row_key = jax.random.fold_in(jax.random.fold_in(key, number), place)
            params = {"logits": jnp.asarray(LOGITS), "temperature": jnp.float32(temperature)}
            statistics = gradient_statistics(of_estimator, params, row_key, num_replicates, tail_size=0).gradient
            exact_mean, exact_variance = exact_moments(name, temperature)
            columns = {
                field: getattr(statistics, field)["logits"] for field in ("mean", "mean_se", "variance", "variance_se")
            }
            columns["bias"] = np.asarray(columns["mean"], float) - exact
            columns["exact_bias"] = exact_mean - exact
            columns["exact_variance"] = exact_variance
            row = {"estimator": name, "temperature": temperature, "num_replicates": num_replicates}
            rows.append(row | {field: _floats(column) for field, column in columns.items()})
    return rows


def _floats(column: Any) -> list[float] | None:
    return None if column is None else np.asarray(column, float).tolist()


def outcome_costs() -> np.ndarray:
    return (np.asarray(VALUES) - TARGET) ** 2


def exact_gradient() -> np.ndarray:
    """p_k (f_k - E f), in every logit."""
    probs, costs = np.asarray(PROBS), outcome_costs()
    return probs * (costs - probs @ costs)


@cache
def exact_moments(name: str, temperature: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and variance of the gradient of `NUM_SAMPLES` samples in every logit, the variance where it is known."""
    if name == "gumbel_softmax":
        return relaxed_moments(temperature, lambda relaxed, hard: relaxed)
    if name == "straight_through":
        return relaxed_moments(temperature, lambda relaxed, hard: hard)
    return exact_gradient(), None if name == "rebar" else leave_one_out_variance()


def leave_one_out_variance() -> np.ndarray:
    """{E[(f - E f)^2 s^2] - (S - 2)/(S - 1) g^2 + Var(f) E[s^2] / (S - 1)} / S, in every logit."""
    probs, costs = np.asarray(PROBS), outcome_costs()
    centred = costs - probs @ costs
    squared_score = (np.eye(len(PROBS)) - probs) ** 2
    others = NUM_SAMPLES - 1
    coupling = (probs @ centred**2) * (probs @ squared_score) / others
    return (
        (probs * centred**2) @ squared_score - (others - 1) / others * exact_gradient() ** 2 + coupling
    ) / NUM_SAMPLES


def relaxed_moments(
    temperature: float, place_of_slope: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the relaxed gradient, by quadrature over differences of noisy logits.

    Where category k is the largest, the others' noisy logits lie y < 0 from it, with the density
    (K - 1)! prod_j p_j exp(-y_j) / (sum_j p_j exp(-y_j))^K, y_k = 0. Within that the integrand is smooth.

    Args:
        temperature: positive.
        place_of_slope: the relaxed and the hard sample to where the cost is differentiated.
    """
    probs, values = np.asarray(PROBS), np.asarray(VALUES)
    steps, widths = panels(panel_edges(temperature))
    grids = np.stack([grid.ravel() for grid in np.meshgrid(*[-steps] * (len(PROBS) - 1), indexing="ij")])
    volumes = np.prod(np.meshgrid(*[widths] * (len(PROBS) - 1), indexing="ij"), axis=0).ravel()
    mean, square = np.zeros(len(PROBS)), np.zeros(len(PROBS))
    for category, hard in enumerate(np.eye(len(PROBS))):
        noisy = np.insert(grids, category, 0.0, axis=0)
        rates = probs[:, None] * np.exp(-noisy)
        weights = volumes * math.factorial(len(PROBS) - 1) * rates.prod(axis=0) / rates.sum(axis=0) ** len(PROBS)
        relaxed = np.exp(noisy / temperature)
        relaxed /= relaxed.sum(axis=0)
        slopes = 2 * (values @ place_of_slope(relaxed, hard) - TARGET) * values[:, None]
        gradients = relaxed * (slopes - (relaxed * slopes).sum(axis=0)) / temperature
        mean += gradients @ weights
        square += gradients**2 @ weights
    return mean, (square - mean**2) / NUM_SAMPLES


def panel_edges(temperature: float) -> np.ndarray:
    """Of panels that resolve the softmax, whose width is the temperature, and the density, whose width is one."""
    narrow = [edge for edge in (6 * temperature, 20 * temperature) if edge < 5]
    return np.asarray([0.0, *narrow, 6.0, 14.0, 25.0])


def print_results(results: dict[str, Any]) -> None:
    exponential, relaxation = results["exponential"], results["relaxation"]
    print(f"Exponential({RATE:g}), {results['num_draws']:,} draws by each route")
    print(f"{'route':<14}{'mean':>20}{'exact':>10}{'KS distance':>14}{'p':>8}")
    for row in exponential["routes"]:
        mean = f"{row['mean']:.5f} ± {row['mean_se']:.5f}"
        print(
            f"{row['route']:<14}{mean:>20}{row['exact_mean']:>10.5f}{row['ks_distance']:>14.5f}{row['p_value']:>8.3f}"
        )
    print(f"the two routes against each other: p = {exponential['two_sample_p_value']:.3f}\n")
    print(f"Categorical{PROBS}, frequencies and their standard errors")
    print(f"{'route':<18}" + "".join(f"{probability:>14g}" for probability in PROBS) + f"{'p':>6}")
    for row in results["categorical"]["routes"]:
        pairs = zip(row["frequencies"], row["frequencies_se"], strict=True)
        cells = "".join(f"{f'{frequency:.4f}±{error:.4f}':>14}" for frequency, error in pairs)
        print(f"{row['route']:<18}{cells}{row['p_value']:>6.2f}")
    print(f"\nGradient in logit {SHOWN}, exactly {relaxation['exact_gradient'][SHOWN]:.5f}, of {NUM_SAMPLES} samples")
    print(f"{'estimator':<29}{'temp.':>6}{'bias':>22}{'variance':>22}")
    for row in relaxation["rows"]:
        bias, variance = (
            f"{row[field][SHOWN]:.3g} ± {row[error][SHOWN]:.1g}"
            for field, error in (("bias", "mean_se"), ("variance", "variance_se"))
        )
        print(f"{row['estimator']:<29}{row['temperature']:>6g}{bias:>22}{variance:>22}")


def draw_figure(
    results: dict[str, Any], exponential: dict[str, np.ndarray], relaxed: dict[float, np.ndarray]
) -> StyledFigure:
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.2, 4.7), layout="constrained")
        axes = figure.subplot_mosaic([["exponential", "categorical", "relaxed"], ["bias", "variance", "key"]])
        draw_exponential(axes["exponential"], exponential, results["exponential"])
        draw_categorical(axes["categorical"], results["categorical"]["routes"])
        draw_relaxed(axes["relaxed"], relaxed)
        draw_against_temperature(axes["bias"], results["relaxation"]["rows"], "bias", "mean_se")
        draw_against_temperature(axes["variance"], results["relaxation"]["rows"], "variance", "variance_se")
        finish_gradient_panels(axes["bias"], axes["variance"])
        axes["key"].set_axis_off()
        draw_key(axes["key"], axes["categorical"], "category drawn by (χ² test)", "upper left")
        draw_key(axes["key"], axes["variance"], "gradient by", "lower left")
    return figure


def draw_key(axes: Axes, of: Axes, title: str, place: Any) -> None:
    handles, labels = of.get_legend_handles_labels()
    # Two legends of one axes: `Axes.legend` would replace the first.
    legend = Legend(
        axes, handles, labels, loc=place, title=title, alignment="left", fontsize=7, title_fontsize=7,
        labelspacing=0.25, handlelength=1.2, borderaxespad=0, bbox_to_anchor=(-0.12, 0, 1, 1),
    )  # fmt: skip
    axes.add_artist(legend)


def draw_exponential(axes: Axes, draws: dict[str, np.ndarray], compared: dict[str, Any]) -> None:
    bins = np.linspace(0, 4, 41)
    looks: Sequence[dict[str, Any]] = (
        {"histtype": "stepfilled", "color": COLOURS[1], "alpha": 0.6},
        {"histtype": "step", "color": COLOURS[2], "linewidth": 1.0},
    )
    for row, look in zip(compared["routes"], looks, strict=True):
        samples = draws[row["route"]]
        weights = np.full(len(samples), 1 / (len(samples) * (bins[1] - bins[0])))
        axes.hist(samples, bins=bins.tolist(), weights=weights, label=f"{row['route']} ({_p(row)})", **look)
    axes.plot(bins, RATE * np.exp(-RATE * bins), color="black", linewidth=0.8, linestyle="--", label="exact")
    axes.set(xlabel="x", ylabel="density", title=f"Exponential({RATE:g})")
    axes.legend(
        loc="upper right", title="KS test", alignment="left", fontsize=7, title_fontsize=7, handlelength=1.2,
        borderaxespad=0,
    )  # fmt: skip


def _p(row: dict[str, Any]) -> str:
    return f"p = {row['p_value']:.2f}"


def draw_categorical(axes: Axes, rows: list[dict[str, Any]]) -> None:
    width = 0.8 / len(rows)
    for place, row in enumerate(rows):
        colour = _route_colours()[row["route"]]
        positions = np.arange(len(PROBS)) + (place - (len(rows) - 1) / 2) * width
        errors = 2 * np.asarray(row["frequencies_se"])
        label = f"{row['route'].replace('softmax ', 'softmax, τ = ')} ({_p(row)})"
        axes.bar(
            positions, row["frequencies"], width, yerr=errors, color=colour, label=label, error_kw={"linewidth": 0.6}
        )
    for category, probability in enumerate(PROBS):
        exact = "exact" if category == 0 else "_"
        axes.hlines(probability, category - 0.46, category + 0.46, color="black", linewidth=0.8, label=exact)
    axes.set_xticks(range(len(PROBS)))
    axes.set(xlabel="category", ylabel="frequency", title="Categorical")


def draw_relaxed(axes: Axes, draws: dict[float, np.ndarray]) -> None:
    bins = np.linspace(0, 1, 41)
    for temperature, samples in draws.items():
        route = softmax_route(temperature)
        axes.hist(
            samples[:, SHOWN], bins=bins.tolist(), density=True, histtype="step", color=_route_colours()[route],
            linewidth=1.0, label=route,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set(xlabel=f"coordinate {SHOWN} of a sample", ylabel="density", title="Gumbel-softmax")


def _route_colours() -> dict[str, str]:
    softmax = [softmax_route(temperature) for temperature in HISTOGRAM_TEMPERATURES]
    return dict(zip(("direct", "Gumbel-max", *softmax), (COLOURS[1], COLOURS[0], *_SHADES), strict=True))


_SHADES = ("#662506", "#cc4c02", "#fe9929", "#fec44f")
"""The lower the temperature, the darker: from ColorBrewer's YlOrBr, whose order shows in grey too."""


def draw_against_temperature(axes: Axes, rows: list[dict[str, Any]], field: str, error: str) -> None:
    """Measured points, bars of two standard errors, on the exact lines that are known."""
    line_temperatures = np.geomspace(TEMPERATURES[0], TEMPERATURES[-1], 25)
    exact = exact_gradient()
    for name, (colour, marker, size, fill) in _ESTIMATOR_LOOKS.items():
        members = [row for row in rows if row["estimator"] == name]
        axes.errorbar(
            [row["temperature"] for row in members],
            [row[field][SHOWN] for row in members],
            yerr=[2 * row[error][SHOWN] for row in members],
            fmt=marker, color=colour, markersize=size, markerfacecolor=fill, elinewidth=0.8, label=name,
        )  # fmt: skip
        moments = [exact_moments(name, float(temperature)) for temperature in line_temperatures]
        line = [mean[SHOWN] - exact[SHOWN] if field == "bias" else _shown(variance) for mean, variance in moments]
        axes.plot(line_temperatures, line, color=colour, linewidth=0.9)


# REBAR's points lie under the score function's: large and hollow they show around them.
_ESTIMATOR_LOOKS = {
    "gumbel_softmax": (COLOURS[4], MARKERS[0], 3.5, COLOURS[4]),
    "straight_through": (COLOURS[5], MARKERS[1], 3.5, COLOURS[5]),
    "rebar": (COLOURS[6], MARKERS[3], 5.5, "none"),
    "score_function+leave_one_out": ("#777777", MARKERS[2], 2.5, "#777777"),
}


def _shown(variance: np.ndarray | None) -> float:
    return float("nan") if variance is None else float(variance[SHOWN])


def finish_gradient_panels(bias: Axes, variance: Axes) -> None:
    lowest = -exact_gradient()[SHOWN]
    bias.axhline(lowest, color="grey", linewidth=0.8, linestyle=":")
    bias.annotate(
        "minus the gradient itself", (TEMPERATURES[0], lowest), (0, 3), textcoords="offset points", color="grey"
    )
    bias.set(ylabel=f"bias of ∂ / ∂ logit {SHOWN}", title="Bias")
    variance.set_yscale("log")
    variance.set(ylabel=f"variance of ∂ / ∂ logit {SHOWN}", title=f"Variance, {NUM_SAMPLES} samples")
    for axes in (bias, variance):
        axes.set_xscale("log")
        axes.set_xlabel("temperature τ")
        axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        axes.minorticks_off()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few draws, to see that it runs")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
