"""How fast coordinate ascent and stochastic fits are, beside a loop fused by hand and beside peers.

    python benchmarks/inference_speed.py

All in one process, in float32 (scikit-learn computes in float64), medians over rounds in which every candidate runs
once:

- Coordinate ascent on the earthquake mixture: 1,000,000 simulated events, 10 components, 2 dimensions, on one device
  and with the events sharded over one device a core. The floor is the same number of passes over the data by
  `speed/earthquake_pass.c`, which the system's C compiler fuses for these sizes: logits, responsibilities and weighted
  sums in blocks, on one core and on all. Its small updates between passes are left out. The ratio of the sweeps leaves
  out the start and the first sweep; that of the whole run holds the k-means++ start, ten passes more, too.
- 100 restarts on 1,000 events in one call.
- The normal-Wishart mixture beside scikit-learn's `BayesianGaussianMixture`, sweep by sweep from the same start.
- `fit` beside NumPyro's `SVI.run` with its progress bar, as a user gets it, and without: the same model, mean-field
  normal, optimiser and number of particles. Steps a second are those of a long run less a short one.
"""

import argparse
import contextlib
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from rich.console import Console
from rich.table import Table
from sklearn.mixture import BayesianGaussianMixture

from command_line import add_quick_and_out, described_parser, out_folder
from saving import environment_with, save_results
from speed.memory import peak_resident, restart_peak
from vae_jax.inference import cavi
from vae_jax.inference.fit.families import MeanFieldNormal
from vae_jax.inference.fit.fit import fit
from vae_jax.inference.fit.numpyro_models import numpyro_log_joint
from vae_jax.replicates import replicate_mesh
from vae_jax.runtime import start_jax

SOURCE = Path(__file__).parent / "speed" / "earthquake_pass.c"

NUM_COMPONENTS, NUM_DIMENSIONS = 10, 2

Seconds = dict[str, list[float]]


def main(options: argparse.Namespace) -> None:
    start_jax("float32")
    if not options.quick:
        jax.config.update("jax_enable_compilation_cache", False)
    size = QUICK if options.quick else FULL
    rounds = 1 if options.quick else options.rounds
    results = {
        "cavi": _cavi(size, rounds),
        "restarts": _restarts(size, rounds),
        "normal_wishart": _normal_wishart(size, rounds),
        "fit": [_fit(name, model, size, rounds) for name, model in islice(_models().items(), size["models"])],
    }
    _print(results)
    out = out_folder(options)
    if out is not None:
        about = {"environment": environment_with(("numpyro", "scikit-learn"), 0), "method": size | {"rounds": rounds}}
        save_results(about | results, out / f"inference_speed_{jax.default_backend()}.json")


FULL = {
    "events": 1_000_000,
    "sweeps": 100,
    "points": 100_000,
    "models": 2,
    "steps": 100_000,
    "steps_with_bar": 12_000,
    "short_steps": 2_000,
}
QUICK = {
    "events": 5_000,
    "sweeps": 5,
    "points": 500,
    "models": 1,
    "steps": 1_500,
    "steps_with_bar": 1_500,
    "short_steps": 1_000,
}


def _interleaved(candidates: dict[str, Callable[[], Any]], rounds: int) -> Seconds:
    """Seconds of each candidate in each round, after one run to compile, but for a single round."""
    for run in candidates.values() if rounds > 1 else ():
        run()
    seconds: Seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def _simulated(num_events: int) -> cavi.LocatedCounts:
    """Overlapping clusters, so that no responsibility is 0 or 1 throughout."""
    generator = np.random.default_rng(0)
    loc = 3 * generator.normal(size=(NUM_COMPONENTS, NUM_DIMENSIONS))
    rate = generator.gamma(3, 10, NUM_COMPONENTS)
    labels = generator.integers(0, NUM_COMPONENTS, num_events)
    positions = loc[labels] + generator.normal(size=(num_events, NUM_DIMENSIONS))
    return cavi.located_counts(positions, generator.poisson(rate[labels]))


def _cavi(size: dict[str, int], rounds: int) -> dict[str, Any]:
    data = _simulated(size["events"])
    model = cavi.gaussian_poisson_mixture(data, NUM_COMPONENTS)
    sweeps = size["sweeps"]

    def ascend(num_sweeps: int, mesh: Any = None) -> int:
        ascent = cavi.ascend(model, data, jax.random.key(0), max_steps=num_sweeps, tolerance=0, mesh=mesh)
        return int(ascent.num_steps)

    mesh = replicate_mesh()
    # Rounding may end the ascent before.
    sweeps = min(ascend(sweeps), ascend(sweeps, mesh))
    candidates: dict[str, Callable[[], Any]] = {
        "one_device": partial(ascend, sweeps),
        "one_device_init": partial(ascend, 1),
        "sharded": partial(ascend, sweeps, mesh),
        "sharded_init": partial(ascend, 1, mesh),
    }
    with tempfile.TemporaryDirectory() as folder:
        state = model.init(jax.random.key(0), data)
        for name, cores in (("floor_one_core", 1), ("floor_all_cores", os.cpu_count() or 1)):
            passes = _hand_fused(model, state, data, Path(folder), cores)
            if passes is not None:
                candidates[name] = partial(passes, sweeps)
        seconds = _interleaved(candidates, rounds)
    result: dict[str, Any] = {
        "events": size["events"],
        "sweeps": sweeps,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "temporary_bytes_an_event": _bytes_an_event(size["events"], ascend),
    }
    for ours, floor in (("one_device", "floor_one_core"), ("sharded", "floor_all_cores")):
        if floor in seconds:
            # The first sweep goes with the start.
            rest = [a - b for a, b in zip(seconds[ours], seconds[f"{ours}_init"], strict=True)]
            passes = [floor_seconds * (sweeps - 1) / sweeps for floor_seconds in seconds[floor]]
            result[f"sweeps_{ours}_over_{floor}"] = _ratio(rest, passes)
            result[f"run_{ours}_over_{floor}"] = _ratio(seconds[ours], seconds[floor])
    return result


def _hand_fused(
    model: Any, state: Any, data: cavi.LocatedCounts, folder: Path, cores: int
) -> Callable[[int], float] | None:
    """A number of passes by the C loop, or None without a compiler. Its sums are checked against the mixture's."""
    from vae_jax.inference.cavi.optimal_assignment import assign

    features = np.ascontiguousarray(data.features)
    coefficients = np.ascontiguousarray(model._coefficients(state, data))
    library = folder / "earthquake_pass.so"
    sizes = [f"-DK={coefficients.shape[0]}", f"-DF={features.shape[0]}"]
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    try:
        subprocess.run(["cc", *flags, *sizes, str(SOURCE), "-o", str(library), "-lm"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the floor needs a C compiler with OpenMP, got {error}: its ratios are left out")
        return None
    loaded = ctypes.CDLL(str(library))
    loaded.earthquake_pass.restype = ctypes.c_double
    sums = np.zeros(coefficients.shape)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (features, coefficients, sums)]

    def passes(number: int) -> float:
        total = 0.0
        for _ in range(number):
            total = loaded.earthquake_pass(ctypes.c_long(features.shape[1]), ctypes.c_int(cores), *pointers)
        return total

    log_normalizer = passes(1)
    expected = jax.jit(assign)(jnp.asarray(coefficients), data.features)
    np.testing.assert_allclose(sums, expected.sums, rtol=1e-3, atol=1e-3 * np.abs(sums).max())
    np.testing.assert_allclose(log_normalizer, expected.log_normalizer, rtol=1e-5)
    return passes


def _bytes_an_event(num_events: int, ascend: Callable[[int], Any]) -> float:
    """Of memory that a run takes above its data and its program."""
    before = restart_peak()
    ascend(2)
    return (peak_resident() - before) / num_events


def _restarts(size: dict[str, int], rounds: int) -> dict[str, Any]:
    data = _simulated(1_000)
    model = cavi.gaussian_poisson_mixture(data, 8)

    def restart(mesh: Any = None) -> None:
        jax.block_until_ready(cavi.ascend(model, data, jax.random.key(0), num_restarts=100, mesh=mesh))

    seconds = _interleaved({"one_device": restart}, rounds)
    return {"events": 1_000, "restarts": 100, "seconds": statistics.median(seconds["one_device"])}


class _FromGiven(BayesianGaussianMixture):
    """Scikit-learn's mixture from given responsibilities [N, K]."""

    responsibilities: Any = None

    def _initialize_parameters(self, X: Any, random_state: Any, xp: Any = None) -> None:  # noqa: N803
        self._initialize(X, self.responsibilities)


def _normal_wishart(size: dict[str, int], rounds: int) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, NUM_COMPONENTS, size["points"])
    loc = 3 * generator.normal(size=(NUM_COMPONENTS, NUM_DIMENSIONS))
    positions = loc[labels] + generator.normal(size=(size["points"], NUM_DIMENSIONS))
    data = cavi.points(positions)
    model = cavi.normal_wishart_mixture(data, NUM_COMPONENTS)
    responsibilities = np.eye(NUM_COMPONENTS)[generator.permutation(labels)]
    sweeps = 10
    peer = _FromGiven(
        n_components=NUM_COMPONENTS,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=1.0,
        mean_precision_prior=float(model.prior_count),
        mean_prior=np.asarray(model.prior_loc, float),
        degrees_of_freedom_prior=float(model.degrees),
        covariance_prior=np.asarray(model.inverse_scale, float),
        reg_covar=0,
        tol=0,
        max_iter=sweeps,
    )
    peer.responsibilities = responsibilities

    def theirs() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.fit(positions)

    @jax.jit
    def sweep(start: Array, data: cavi.Points) -> tuple[Any, Array]:
        def step(state: Any, _: None) -> tuple[Any, Array]:
            state, info = model.step(state, data)
            return state, info.elbo

        return jax.lax.scan(step, model.update(start, data), length=sweeps)

    start = jnp.asarray(responsibilities.T, jnp.float32)
    seconds = _interleaved(
        {"vae_jax": lambda: jax.block_until_ready(sweep(start, data)), "scikit_learn": theirs}, rounds
    )
    return {
        "points": size["points"],
        "sweeps": sweeps,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "scikit_learn_over_vae_jax": _ratio(seconds["scikit_learn"], seconds["vae_jax"]),
        "largest_difference_of_rises": _difference_of_rises(model, data, positions, peer, sweeps),
    }


def _difference_of_rises(model: Any, data: cavi.Points, positions: Any, peer: Any, sweeps: int) -> float:
    """Between the rises of the two bounds (nats) from sweep to sweep, both in float64."""
    del model, data
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = cavi.points(positions)
        model = cavi.normal_wishart_mixture(data, NUM_COMPONENTS)
        state = model.update(jnp.asarray(peer.responsibilities.T), data)
        stepwise = _FromGiven(**peer.get_params())
        stepwise.responsibilities = peer.responsibilities
        stepwise.set_params(
            max_iter=1,
            warm_start=True,
            mean_prior=np.asarray(model.prior_loc),
            covariance_prior=np.asarray(model.inverse_scale),
        )
        ours, theirs = [], []
        step = jax.jit(model.step)
        for _ in range(sweeps):
            state, info = step(state, data)
            stepwise.fit(positions)
            ours.append(float(info.elbo))
            theirs.append(stepwise.lower_bound_)
    return float(np.abs(np.diff(ours) - np.diff(theirs)).max())


def _models() -> dict[str, Callable[..., None]]:
    """Two posteriors whose cost is that of the loop, and that of the data."""
    counts = jnp.asarray([3, 4, 3, 9, 10, 3, 2, 3, 3, 2])
    generator = np.random.default_rng(2)
    predictors = jnp.asarray(generator.normal(size=(1_000, 2)), jnp.float32)
    responses = jnp.asarray(generator.poisson(np.exp(3 + predictors @ np.array([0.5, -0.3]))))

    def poisson_gamma() -> None:
        u = numpyro.sample("u", dist.Gamma(5.0, 1.0))
        v = numpyro.sample("v", dist.Gamma(4.0, 4.0))
        numpyro.sample("x", dist.Poisson(u * v).expand([len(counts)]).to_event(1), obs=counts)

    def poisson_regression() -> None:
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
        slopes = numpyro.sample("slopes", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        rate = jnp.exp(intercept + predictors @ slopes)
        numpyro.sample("y", dist.Poisson(rate).to_event(1), obs=responses)

    return {"poisson_gamma": poisson_gamma, "poisson_regression": poisson_regression}


def _fit(name: str, model: Callable[..., None], size: dict[str, int], rounds: int) -> dict[str, Any]:
    num_particles, optimizer = 8, optax.adam(1e-3)
    log_joint, supports = numpyro_log_joint(model)
    family = MeanFieldNormal(supports)
    svi = SVI(model, AutoNormal(model), optimizer, Trace_ELBO(num_particles=num_particles))

    def ours(num_steps: int) -> None:
        jax.block_until_ready(
            fit(
                log_joint,
                family,
                jax.random.key(0),
                optimizer=optimizer,
                num_steps=num_steps,
                num_samples=num_particles,
            ).params
        )

    def theirs(num_steps: int, *, progress_bar: bool) -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            jax.block_until_ready(svi.run(jax.random.key(0), num_steps, progress_bar=progress_bar).params)

    runs: dict[str, tuple[Callable[[int], None], int]] = {
        "vae_jax": (ours, size["steps"]),
        "numpyro": (partial(theirs, progress_bar=True), size["steps_with_bar"]),
        "numpyro_without_bar": (partial(theirs, progress_bar=False), size["steps"]),
    }
    short = size["short_steps"]
    candidates = {
        f"{run}/{steps}": partial(function, steps) for run, (function, long) in runs.items() for steps in (long, short)
    }
    seconds = _interleaved(candidates, rounds)
    of_a_step = {
        run: [
            (a - b) / (long - short) for a, b in zip(seconds[f"{run}/{long}"], seconds[f"{run}/{short}"], strict=True)
        ]
        for run, (_, long) in runs.items()
    }
    return {
        "model": name,
        "particles": num_particles,
        "steps_a_second": {run: 1 / statistics.median(values) for run, values in of_a_step.items()},
        "seconds_of_the_short_run": {run: statistics.median(seconds[f"{run}/{short}"]) for run in runs},
        "faster_than_numpyro": _ratio(of_a_step["numpyro"], of_a_step["vae_jax"]),
        "faster_than_numpyro_without_bar": _ratio(of_a_step["numpyro_without_bar"], of_a_step["vae_jax"]),
    }


def _print(results: dict[str, Any]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in ("what", "measured", "range of rounds"):
        table.add_column(header, no_wrap=True)
    for name, result in results["cavi"].items():
        if isinstance(result, dict) and "median" in result:
            table.add_row(f"cavi, {name.replace('_', ' ')}", *_cells(result))
    cavi_seconds = results["cavi"]["seconds"]
    table.add_row("cavi, one device, seconds a run", f"{cavi_seconds['one_device']:.3g}", "")
    table.add_row("cavi, sharded, seconds a run", f"{cavi_seconds['sharded']:.3g}", "")
    table.add_row("cavi, memory, bytes an event", f"{results['cavi']['temporary_bytes_an_event']:.3g}", "")
    table.add_row("100 restarts on 1,000 events, seconds", f"{results['restarts']['seconds']:.3g}", "")
    wishart = results["normal_wishart"]
    table.add_row("scikit-learn over normal-Wishart", *_cells(wishart["scikit_learn_over_vae_jax"]))
    table.add_row("difference of the bounds' rises, nats", f"{wishart['largest_difference_of_rises']:.1g}", "")
    for row in results["fit"]:
        table.add_row(f"NumPyro over fit, {row['model']}", *_cells(row["faster_than_numpyro"]))
        table.add_row("  without its bar", *_cells(row["faster_than_numpyro_without_bar"]))
        table.add_row("  steps a second of fit", f"{row['steps_a_second']['vae_jax']:,.0f}", "")
    Console(width=80).print(table)


def _cells(ratio: dict[str, float]) -> tuple[str, str]:
    return f"{ratio['median']:.2f}", f"{ratio['least']:.2f} to {ratio['most']:.2f}"


def _parse() -> argparse.Namespace:
    parser = described_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="that medians are taken over (7)")
    add_quick_and_out(parser, quick="small sizes and one cold round, whose times say nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
