"""The field's two best known pictures of gradient noise, measured on top of what is exact.

    python benchmarks/estimator_atlas.py

- The variance of gradient estimators of E[f(z)], z ~ Normal(1, 1), against the parameter of the cost f: points on exact
  lines (Mohamed, Rosca, Figurnov & Mnih 2020, figures 2 and 3).
- The signal-to-noise ratio of the importance-weighted bound's gradients against K, the samples in one bound, and M, the
  independent bounds averaged (Rainforth et al. 2018; Tucker, Lawson, Gu & Maddison 2019). q's parameters lose as
  1 / sqrt(K) along the path and gain as sqrt(K) when doubly reparameterized; the model's gain as sqrt(K); both gain as
  sqrt(M). The means are compared with the exact ones.

Writes results/estimator_atlas.json, estimator_atlas.png and importance_weighted_snr.png.
"""

import argparse
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import numpyro.distributions as dist
from jax import lax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import norm

from saving import save_png
from vae_jax import bounds
from vae_jax.cli.startup import environment, start_jax
from vae_jax.estimators import ESTIMATORS
from vae_jax.files import write_json
from vae_jax.plotting.style import COLOURS, CONTRASTING_COLOURS, MARKERS, STYLE, StyledFigure
from vae_jax.problems import CosineCost, ExactMoments, ExponentialCost, LinearGaussian, SquareCost
from vae_jax.problems.costs import GaussianCost
from vae_jax.statistics import gradient_replicates, gradient_statistics
from vae_jax.typing import PRNGKey, Scalar

DEFAULT_OUT = Path(__file__).parent / "results"
SEED = 0


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    num_costs: int
    num_replicates: int
    num_measured: int
    """Values of each cost's parameter that are measured."""
    num_drawn: int
    """Values of each cost's parameter that a line is drawn through."""
    num_bounds: int
    """For each signal-to-noise ratio."""
    num_samples: tuple[int, ...]
    """K."""
    least_fitted: int
    """K from which on slopes are fitted: the laws are those of large K."""
    num_averaged: tuple[int, ...]
    """M."""


FULL = Sizes(
    num_costs=3,
    num_replicates=100_000,
    num_measured=9,
    num_drawn=61,
    num_bounds=2**18,
    num_samples=tuple(2**power for power in range(1, 11)),
    least_fitted=16,
    num_averaged=tuple(2**power for power in range(7)),
)
QUICK = Sizes(
    num_costs=1,
    num_replicates=2_000,
    num_measured=1,
    num_drawn=1,
    num_bounds=2**13,
    num_samples=(2, 8, 16),
    least_fitted=2,
    num_averaged=(1, 16),
)


@dataclass(frozen=True)
class Panel:
    """One cost, and the values of its parameter k."""

    problem: GaussianCost
    parameter: str
    title: str
    cost: Callable[[Any, Any], Any]
    """z and k to f(z). The compiled programs take k as an argument, so that there is one for all of its values."""
    spaced: Callable[[int], np.ndarray]
    """A number of values to the values."""
    scale: str

    def problem_at(self, k: float) -> GaussianCost:
        return replace(self.problem, **{self.parameter: float(k)})


PANELS = (
    Panel(
        SquareCost(), "target", "$f(z) = (z - k)^2$",
        lambda z, k: (z - k) ** 2, functools.partial(np.linspace, -3, 3), "linear",
    ),
    Panel(
        CosineCost(), "frequency", r"$f(z) = \cos(k z)$",
        lambda z, k: jnp.cos(k * z), functools.partial(np.linspace, 0.5, 5), "linear",
    ),
    Panel(
        ExponentialCost(), "rate", "$f(z) = \\exp(-k z^2)$",
        lambda z, k: jnp.exp(-k * z**2), functools.partial(np.geomspace, 0.1, 10), "log",
    ),
)  # fmt: skip

SAMPLES_OF_ESTIMATE = {
    "score_function": 1,
    "score_function+leave_one_out": 8,
    "pathwise": 1,
    "pathwise+delta_method": 1,
    "measure_valued": 1,
    "coupled_measure_valued": 1,
}
"""N, of the estimators that are compared. Variances are multiplied by it."""

PARAMETERS = ("loc", "scale")

LEAST_VARIANCE = 1e-20
"""Below this an exact variance is only the rounding of its quadrature."""


class Point(NamedTuple):
    """A variance for each sample, measured and exact."""

    cost: str
    estimator: str
    parameter: str
    k: float
    variance: float
    variance_se: float
    exact_variance: float
    exact_variance_se: float | None
    """The standard error that the measured variance really has."""


def main(options: argparse.Namespace) -> None:
    sizes = QUICK if options.quick else FULL
    panels = PANELS[: sizes.num_costs]
    cost_key, bound_key = jax.random.split(jax.random.key(SEED))
    points = measured_variances(cost_key, panels, sizes)
    summary = compared(points)
    lines = exact_variances(panels, sizes.num_drawn)
    signals = measured_signals(bound_key, sizes)
    slopes = fitted_slopes(signals, sizes.least_fitted)
    print_variances(summary)
    print_slopes(slopes, signals)
    options.out.mkdir(parents=True, exist_ok=True)
    save_png(atlas(panels, points, lines), options.out / "estimator_atlas.png")
    save_png(snr_figure(signals), options.out / "importance_weighted_snr.png")
    write_json(
        options.out / "estimator_atlas.json",
        {
            "environment": environment("float32", SEED),
            "num_replicates": sizes.num_replicates,
            "samples_of_estimate": SAMPLES_OF_ESTIMATE,
            "variances": [point._asdict() for point in points],
            "variances_compared": summary,
            "num_bounds": sizes.num_bounds,
            "signals": [signal._asdict() for signal in signals],
            "slopes": [slope._asdict() for slope in slopes],
        },
    )


def measured_variances(key: PRNGKey, panels: Sequence[Panel], sizes: Sizes) -> list[Point]:
    points = []
    for number, panel in enumerate(panels):
        for place, estimator in enumerate(SAMPLES_OF_ESTIMATE):
            loss = functools.partial(expected_cost, cost=panel.cost, estimator=estimator)
            keys = jax.random.split(jax.random.fold_in(key, number * 100 + place), sizes.num_measured)
            for k, draw_key in zip(panel.spaced(sizes.num_measured), keys, strict=True):
                points += points_at(panel, estimator, float(k), loss, draw_key, sizes.num_replicates)
    return points


def expected_cost(params: dict[str, Any], key: PRNGKey, *, cost: Callable[[Any, Any], Any], estimator: str) -> Scalar:
    k = lax.stop_gradient(params["k"])
    q = dist.Normal(params["loc"], params["scale"])
    return ESTIMATORS[estimator](lambda z, q: cost(z, k), q, key, SAMPLES_OF_ESTIMATE[estimator])


def points_at(
    panel: Panel, estimator: str, k: float, loss: Callable[..., Scalar], key: PRNGKey, num_replicates: int
) -> list[Point]:
    problem = panel.problem_at(k)
    params = {name: jnp.asarray(value) for name, value in {**problem.default_params, "k": k}.items()}
    gradient = gradient_statistics(loss, params, key, num_replicates, tail_size=0).gradient
    num_samples = SAMPLES_OF_ESTIMATE[estimator]
    exact = problem.exact(problem.default_params, estimator)(num_samples)
    points = []
    for name in PARAMETERS:
        std_se = exact[name].std_se(num_replicates)
        exact_variance = variance_of_sample(exact[name], num_samples)
        points.append(
            Point(
                panel.problem.name, estimator, name, k,
                variance=num_samples * float(gradient.variance[name]),
                variance_se=num_samples * float(gradient.variance_se[name]),
                exact_variance=exact_variance,
                # Without variance the kurtosis is not defined.
                exact_variance_se=2 * math.sqrt(num_samples * exact_variance) * std_se
                if exact_variance and std_se is not None else None,
            )
        )  # fmt: skip
    return points


def variance_of_sample(moments: ExactMoments, num_samples: int) -> float:
    if moments.std.value is None:
        raise ValueError(f"the exact std must be known, got status {moments.std.status}: compare another estimator")
    variance = num_samples * moments.std.value**2
    return variance if variance > LEAST_VARIANCE else 0.0


def exact_variances(
    panels: Sequence[Panel], num_drawn: int
) -> dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]:
    """Values of k and the variance for each sample there, by cost, estimator and parameter."""
    lines = {}
    for panel in panels:
        places = panel.spaced(num_drawn)
        for estimator, num_samples in SAMPLES_OF_ESTIMATE.items():
            moments = [
                problem.exact(problem.default_params, estimator)(num_samples)
                for problem in map(panel.problem_at, places)
            ]
            for name in PARAMETERS:
                variances = np.array([variance_of_sample(exact[name], num_samples) for exact in moments])
                lines[panel.problem.name, estimator, name] = places, variances
    return lines


def compared(points: Sequence[Point]) -> dict[str, Any]:
    """How far the measured variances are from the exact ones, in standard errors, and by how much where those are 0."""
    varying = [point for point in points if point.exact_variance]
    zeros = [point.variance for point in points if not point.exact_variance]
    known = [
        (point.variance - point.exact_variance) / point.exact_variance_se
        for point in varying
        if point.exact_variance_se is not None
    ]
    by_estimator = {
        name: deviations(own_z_scores([point for point in varying if point.estimator == name]))
        for name in SAMPLES_OF_ESTIMATE
        if any(point.estimator == name for point in varying)
    }
    return {
        "measured_standard_errors": deviations(own_z_scores(varying)),
        "exact_standard_errors": deviations(known),
        "by_estimator": by_estimator,
        "num_exact_zeros": len(zeros),
        "largest_variance_of_exact_zeros": max(zeros, default=0.0),
    }


def own_z_scores(points: Sequence[Point]) -> list[float]:
    return [(point.variance - point.exact_variance) / point.variance_se for point in points]


def deviations(z_scores: Sequence[float]) -> dict[str, float]:
    """How large z-scores are, and how large as many independent normal ones would be."""
    sizes = np.abs(z_scores)
    # The median of the largest of n.
    likely_max = norm.ppf((1 + 0.5 ** (1 / len(sizes))) / 2)
    return {
        "num_points": len(sizes),
        "num_within_1": int((sizes < 1).sum()),
        "num_within_2": int((sizes < 2).sum()),
        "mean_abs_z": float(sizes.mean()),
        "max_abs_z": float(sizes.max()),
        "expected_mean_abs_z": math.sqrt(2 / math.pi),
        "median_max_abs_z": float(likely_max),
    }


def print_variances(summary: Mapping[str, Any]) -> None:
    print("Variances against the exact ones, |z| in standard errors")
    print(f"{'':<42}{'points':>7}{'|z|<1':>6}{'|z|<2':>6}{'mean':>6}{'max':>6}{'likely':>7}")
    rows = {
        **summary["by_estimator"],
        "all, by measured standard errors": summary["measured_standard_errors"],
        "all, by exact standard errors": summary["exact_standard_errors"],
    }
    for name, row in rows.items():
        counts = f"{row['num_points']:>7}{row['num_within_1']:>6}{row['num_within_2']:>6}"
        print(f"{name:<42}{counts}{row['mean_abs_z']:>6.2f}{row['max_abs_z']:>6.2f}{row['median_max_abs_z']:>7.2f}")
    print("expected mean of |z|: 0.80; likely: the median of the largest of as many |z|")
    zeros, largest = summary["num_exact_zeros"], summary["largest_variance_of_exact_zeros"]
    print(f"{zeros} points whose exact variance is 0: measured at most {largest:.1e}")


def atlas(
    panels: Sequence[Panel],
    points: Sequence[Point],
    lines: Mapping[tuple[str, str, str], tuple[np.ndarray, np.ndarray]],
) -> Figure:
    """Variance against k: a column for each cost, a row for each parameter of q."""
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 4.6), layout="constrained")
        grid = figure.subplots(len(PARAMETERS), len(panels), sharex="col", squeeze=False)
        for name, row in zip(PARAMETERS, grid, strict=True):
            for panel, axes in zip(panels, row, strict=True):
                chosen = [point for point in points if (point.cost, point.parameter) == (panel.problem.name, name)]
                for place, estimator in enumerate(SAMPLES_OF_ESTIMATE):
                    draw_variances(
                        axes,
                        [point for point in chosen if point.estimator == estimator],
                        *lines[panel.problem.name, estimator, name],
                        COLOURS[place],
                        MARKERS[place],
                    )
                axes.set_xscale(panel.scale)
                axes.set_yscale("log")
                # Where the two sides of a coupled derivative cancel, a line falls to zero between two points.
                axes.set_ylim(bottom=min(point.variance for point in chosen if point.exact_variance) / 5)
                without_variance = {point.estimator for point in chosen if not point.exact_variance}
                for name_of_zero in sorted(without_variance):
                    note = name_of_zero.replace("+", "+\n") + ": 0"
                    axes.text(0.03, 0.03, note, transform=axes.transAxes, fontsize=6.5)
        for panel, top, bottom in zip(panels, *grid, strict=True):
            top.set_title(panel.title)
            bottom.set_xlabel(f"k ({panel.parameter})")
        for name, axes in zip(PARAMETERS, grid[:, 0], strict=True):
            axes.set_ylabel(f"variance per sample, by {name}")
        looks = zip(SAMPLES_OF_ESTIMATE, COLOURS, MARKERS, strict=False)
        handles = [
            Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1, label=label_of(name))
            for name, colour, marker in looks
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def label_of(estimator: str) -> str:
    num_samples = SAMPLES_OF_ESTIMATE[estimator]
    return estimator if num_samples == 1 else f"{estimator} (N = {num_samples})"


def draw_variances(
    axes: Axes, points: Sequence[Point], places: np.ndarray, exact: np.ndarray, colour: str, marker: str
) -> None:
    """Points with bars of two standard errors on their line. What is exactly zero has no place on the axis."""
    axes.plot(places, np.where(exact > 0, exact, np.nan), color=colour, linewidth=1)
    kept = [point for point in points if point.exact_variance]
    axes.errorbar(
        [point.k for point in kept],
        [point.variance for point in kept],
        yerr=[2 * point.variance_se for point in kept],
        fmt=marker, markersize=3, color=colour, elinewidth=0.8, capsize=1.5, linestyle="",
    )  # fmt: skip


PROBLEM = LinearGaussian()

PARAMS: dict[str, float] = {**PROBLEM.default_params, "prior_loc": PROBLEM.prior_loc}
"""q lies beside the posterior and is wider."""


class Contender(NamedTuple):
    """A way to the bound's gradient."""

    gradient: bounds.MultiSampleBound
    slope_in_k: float
    """Of q's parameters, on logarithmic axes. Vimco's noise is, as plain's, a weighted mean of scores."""
    most_samples: int
    bounds_share: float
    """Of the replicates."""


# The fainter the signal, the more of them; but vimco takes as long for one bound as the others for dozens.
GRADIENTS = {
    "plain": Contender(bounds.plain, -0.5, 1024, 4.0),
    "vimco": Contender(bounds.vimco, -0.5, 256, 1 / 4),
    "doubly_reparameterized": Contender(bounds.doubly_reparameterized, 0.5, 1024, 1.0),
}

SLOPE_OF_MODEL = 0.5
SLOPE_IN_M = 0.5

SAMPLES_OF_AVERAGED = 16
"""K of the bounds that are averaged."""

SIDES = {"loc": "inference", "scale": "inference", "prior_loc": "model"}
"""The parameters of q and one of the model."""


class Signal(NamedTuple):
    """The mean of a gradient over the standard deviation of one."""

    gradient: str
    parameter: str
    num_samples: int
    """K."""
    num_averaged: int
    """M."""
    signal_to_noise: float
    log_se: float
    """Standard error of its logarithm."""
    mean: float
    mean_se: float
    exact_mean: float
    known_signal: float
    """The same with the exact mean in the place of the measured one."""
    known_signal_log_se: float


class Slope(NamedTuple):
    """Of log signal-to-noise against a log size."""

    gradient: str
    parameter: str
    size: str
    slope: float
    slope_se: float
    """Too small where measured means lie within a few standard errors of zero: their logarithms are skewed."""
    known_signal_slope: float
    """The same with the exact means in the place of the measured ones."""
    known_signal_slope_se: float
    theory: float


def importance_weighted(
    params: dict[str, Any], key: PRNGKey, *, gradient: bounds.MultiSampleBound, num_samples: int
) -> Scalar:
    """The bound of a `LinearGaussian` whose prior's location is a parameter of the model."""

    def log_joint(z: Any) -> Scalar:
        prior, likelihood = dist.Normal(params["prior_loc"], PROBLEM.prior_scale), dist.Normal(z, PROBLEM.noise_scale)
        return prior.log_prob(z) + likelihood.log_prob(PROBLEM.x)

    return bounds.importance_weighted(log_joint, PROBLEM.q(params), key, num_samples, gradient=gradient)


def exact_bound(params: Mapping[str, float], num_samples: int) -> float:
    """E[log 1/K sum_k w_k] (nats), q wider than the posterior so that the weights are bounded.

    log s is the integral of {exp(-t) - exp(-t s)} / t over t > 0, and the mean of exp(-t s) for the mean of the weights
    is a power of that for one of them. The weights are divided by p(x), so that their mean is one.
    """
    problem = replace(PROBLEM, prior_loc=params["prior_loc"])
    step = 0.02
    noise = np.arange(-9, 9 + step, step)
    mass = np.exp(-(noise**2) / 2) * step / math.sqrt(2 * math.pi)
    posterior = problem.posterior
    standard = (params["loc"] + params["scale"] * noise - posterior.loc) / posterior.scale
    weights = params["scale"] / posterior.scale * np.exp((noise**2 - standard**2) / 2)
    log_step = 0.05
    # In log t the integrand falls as t^2 below, and above as the mass of the noise whose weights are that small.
    t = np.exp(np.arange(-20.0, math.log(num_samples) + 40, log_step))
    # Less one, so that no digit is lost where t is small.
    power = num_samples * np.log1p(np.maximum(np.expm1(-np.outer(t / num_samples, weights)) @ mass, -1 + 1e-15))
    return problem.log_marginal + float((np.expm1(-t) - np.expm1(power)).sum() * log_step)


def exact_means(num_samples: int) -> dict[str, float]:
    """The bound's derivatives by central differences."""
    step = 1e-3

    def derivative(name: str) -> float:
        ends = [exact_bound({**PARAMS, name: PARAMS[name] + side * step}, num_samples) for side in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    return {name: derivative(name) for name in PARAMS}


def measured_signals(key: PRNGKey, sizes: Sizes) -> list[Signal]:
    """At every K with M = 1, and at every M with one K."""
    cases = [(num_samples, 1) for num_samples in sizes.num_samples]
    cases += [(SAMPLES_OF_AVERAGED, num_averaged) for num_averaged in sizes.num_averaged if num_averaged > 1]
    params = {name: jnp.asarray(value) for name, value in PARAMS.items()}
    exact = {num_samples: exact_means(num_samples) for num_samples, _ in cases}
    signals = []
    for place, (name, contender) in enumerate(GRADIENTS.items()):
        # One function object for each K, so that each is compiled once.
        losses = {
            num_samples: functools.partial(importance_weighted, gradient=contender.gradient, num_samples=num_samples)
            for num_samples in exact
        }
        num_bounds = int(sizes.num_bounds * contender.bounds_share)
        for number, (num_samples, num_averaged) in enumerate(cases):
            if num_samples > contender.most_samples:
                continue
            draw_key = jax.random.fold_in(key, 100 * place + number)
            _, replicates = gradient_replicates(losses[num_samples], params, draw_key, num_bounds)
            for parameter, values in replicates.items():
                averages = np.asarray(values, float).reshape(-1, num_averaged).mean(axis=1)
                where = (name, parameter, num_samples, num_averaged)
                signals.append(Signal(*where, *signal_to_noise(averages, exact[num_samples][parameter])))
    return signals


def signal_to_noise(values: np.ndarray, exact_mean: float) -> tuple[float, ...]:
    """The fields of `Signal` after where it was measured. Standard errors are by the delta method."""
    mean, std, root = float(values.mean()), float(values.std(ddof=1)), math.sqrt(len(values))
    deviations = values - mean
    of_log_std = ((deviations / std) ** 2 - 1) / 2
    log_se = (deviations / mean - of_log_std).std() / root
    known = abs(exact_mean) / std, float(of_log_std.std() / root)
    return abs(mean) / std, float(log_se), mean, std / root, exact_mean, *known


def fitted_slopes(signals: Sequence[Signal], least_fitted: int) -> list[Slope]:
    slopes = []
    for gradient, contender in GRADIENTS.items():
        for parameter, side in SIDES.items():
            chosen = [signal for signal in signals if (signal.gradient, signal.parameter) == (gradient, parameter)]
            late = [signal for signal in chosen if signal.num_averaged == 1 and signal.num_samples >= least_fitted]
            sizes = np.array([signal.num_samples for signal in late], float)
            theory = contender.slope_in_k if side == "inference" else SLOPE_OF_MODEL
            # The next order is 1/K.
            slopes.append(Slope(gradient, parameter, "K", *fitted_slope_pair(late, sizes, 1 / sizes), theory))
            averaged = [signal for signal in chosen if signal.num_samples == SAMPLES_OF_AVERAGED]
            sizes = np.array([signal.num_averaged for signal in averaged], float)
            slopes.append(Slope(gradient, parameter, "M", *fitted_slope_pair(averaged, sizes), SLOPE_IN_M))
    return slopes


def fitted_slope_pair(
    signals: Sequence[Signal], sizes: np.ndarray, *columns: np.ndarray
) -> tuple[float, float, float, float]:
    """Slope and standard error, with measured and with exact means."""
    design = np.stack([np.log(sizes), np.ones_like(sizes), *columns], axis=1)
    measured = fitted_slope(design, *np.array([(signal.signal_to_noise, signal.log_se) for signal in signals]).T)
    known = fitted_slope(design, *np.array([(signal.known_signal, signal.known_signal_log_se) for signal in signals]).T)
    return *measured, *known


def fitted_slope(design: np.ndarray, ratios: np.ndarray, log_errors: np.ndarray) -> tuple[float, float]:
    """The first coefficient of log ratios and its standard error, by weighted least squares."""
    weighted = design / log_errors[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    return float((covariance @ weighted.T @ (np.log(ratios) / log_errors))[0]), float(math.sqrt(covariance[0, 0]))


def print_slopes(slopes: Sequence[Slope], signals: Sequence[Signal]) -> None:
    print("\nSlopes of log signal-to-noise in K samples of a bound and M bounds averaged")
    print(f"{'gradient':<23}{'parameter':<11}{'in':<3}{'measured':>18}{'exact mean':>18}{'theory':>7}")
    for row in slopes:
        measured = f"{row.slope:.4f} ± {row.slope_se:.4f}"
        known = f"{row.known_signal_slope:.4f} ± {row.known_signal_slope_se:.4f}"
        print(f"{row.gradient:<23}{row.parameter:<11}{row.size:<3}{measured:>18}{known:>18}{row.theory:>7.1f}")
    print("exact mean: the exact mean of the gradient over its measured std")
    # One draw's means by loc and by prior_loc go together, so that these are fewer than as many independent ones.
    found = deviations([(signal.mean - signal.exact_mean) / signal.mean_se for signal in signals])
    mean, largest, likely = (found[name] for name in ("mean_abs_z", "max_abs_z", "median_max_abs_z"))
    print(f"{len(signals)} means against the exact ones: |z| {mean:.2f} on average, {largest:.2f} at most")
    print(f"(likely, of as many: {likely:.2f})")


def snr_figure(signals: Sequence[Signal]) -> Figure:
    """Signal-to-noise against K by either parameter, and against M."""
    by_samples = [signal for signal in signals if signal.num_averaged == 1]
    averaged = [signal for signal in signals if signal.num_samples == SAMPLES_OF_AVERAGED]
    contents = (
        ("inference parameter loc", "K, samples in a bound", "num_samples", "loc", by_samples),
        ("model parameter prior_loc", "K, samples in a bound", "num_samples", "prior_loc", by_samples),
        (f"loc, K = {SAMPLES_OF_AVERAGED}", "M, bounds averaged", "num_averaged", "loc", averaged),
    )
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.7), layout="constrained")
        for axes, (title, label, size, parameter, chosen) in zip(figure.subplots(1, 3), contents, strict=True):
            draw_signals(axes, [signal for signal in chosen if signal.parameter == parameter], size)
            axes.set_title(title)
            axes.set_xlabel(label)
        figure.axes[0].set_ylabel("signal-to-noise ratio of the gradient")
        handles = [
            Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=0.9, label=name)
            for name, colour, marker in zip(GRADIENTS, CONTRASTING_COLOURS, MARKERS, strict=False)
        ]
        guide = Line2D([], [], color="0.45", linewidth=0.9, linestyle="--", label="slope ±1/2")
        figure.legend(handles=[*handles, guide], loc="outside lower center", ncols=4)
    return figure


def draw_signals(axes: Axes, signals: Sequence[Signal], size: str) -> None:
    """Points with bars of two standard errors on lines with exact means, and the theory's slopes through their ends."""
    for place, (gradient, contender) in enumerate(GRADIENTS.items()):
        chosen = [signal for signal in signals if signal.gradient == gradient]
        sizes = np.array([getattr(signal, size) for signal in chosen], float)
        ratios = np.array([signal.signal_to_noise for signal in chosen])
        factors = np.exp([2 * signal.log_se for signal in chosen])
        axes.errorbar(
            sizes, ratios, yerr=[ratios - ratios / factors, ratios * factors - ratios], fmt=MARKERS[place],
            # The first lie underneath: larger, so that those of equal height show.
            markersize=6 - 1.5 * place, color=CONTRASTING_COLOURS[place], elinewidth=0.8, capsize=2,
        )  # fmt: skip
        known = np.array([signal.known_signal for signal in chosen])
        axes.plot(sizes, known, color=CONTRASTING_COLOURS[place], linewidth=0.9, zorder=2)
        inference_in_k = size == "num_samples" and SIDES[chosen[0].parameter] == "inference"
        slope = contender.slope_in_k if inference_in_k else SLOPE_IN_M
        late = len(sizes) // 2
        centre = np.log(known[late:]).mean() - slope * np.log(sizes[late:]).mean()
        axes.plot(sizes, np.exp(centre) * sizes**slope, color="0.45", linewidth=0.9, linestyle="--", zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    start_jax("float32")
    main(parser.parse_args())
