"""How fast every gradient estimator is, over the draw floor of its own draws; how long it compiles and what it keeps.

    python benchmarks/estimator_speed.py

For each estimator on its scalar problem (the square cost under a normal, the Bernoulli and the categorical cost) the
statistics of its gradient at 10,000 samples and 1,000 replicates are timed as a ratio to the floor: the fastest way
found to make and sum as many draws of the kinds that it draws, with JAX's default generator. Floors and passes are
interleaved, each round runs every one once, and a ratio is the median over rounds of the ratio within a round.

Compilation is that of the whole pass, with an empty cache. Memory is the peak of a process above its imports, with a
latent vector of 1,000 entries at 1,000 samples and 1,000 replicates.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from rich.console import Console
from rich.table import Table

from command_line import add_quick_and_out, described_parser, out_folder
from saving import environment_with
from speed.memory import peak_resident, restart_peak
from speed.work import seconds_of
from vae_jax.estimators import ESTIMATORS, REGISTRY
from vae_jax.files import write_json
from vae_jax.problems import BernoulliCost, CategoricalCost, SquareCost
from vae_jax.replicates import replicate_mesh
from vae_jax.runtime import start_jax
from vae_jax.statistics import gradient_statistics
from vae_jax.studies import work_of

NUM_SAMPLES, NUM_REPLICATES = 10_000, 1_000
CHUNKS = (20_000, 100_000, 500_000, 1_000_000)
"""Draws at once on a device: candidates of a floor, of which the fastest counts."""

MOST_OVER_FLOOR, MOST_COMPILE_SECONDS, MOST_BYTES = 2.5, 3.0, 2e9

LARGE_LATENTS = LARGE_SAMPLES = LARGE_REPLICATES = 1_000

Draw = Callable[[Array, tuple[int, ...]], Array]
"""A key and a shape to draws."""


def _gamma(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.gamma(key, 1.5, shape)


def _categorical(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.categorical(key, jnp.zeros(4), shape=shape)


def _gumbels(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.gumbel(key, (*shape, 4)).sum(axis=-1)


NORMAL, UNIFORM, EXPONENTIAL, SIGN = (
    jax.random.normal, jax.random.uniform, jax.random.exponential, jax.random.rademacher,
)  # fmt: skip

BERNOULLI = {
    **dict.fromkeys(("score_function", "score_function+leave_one_out", "score_function+optimal_score"), (UNIFORM,)),
    **dict.fromkeys(("measure_valued", "coupled_measure_valued"), (UNIFORM,)),
    **dict.fromkeys(("gumbel_softmax", "straight_through", "rebar", "relax"), (UNIFORM,)),
    **dict.fromkeys(("arm", "disarm"), (UNIFORM,)),
}
CATEGORICAL = {"categorical_disarm": (UNIFORM, UNIFORM, UNIFORM)}

PAIRED = ("arm", "disarm", "categorical_disarm", "score_function+antithetic_pairs", "pathwise+antithetic_pairs")
"""Estimators that make two samples of one draw."""

MEASURED = (NORMAL, EXPONENTIAL, EXPONENTIAL, _gamma, SIGN, NORMAL)
COUPLED = (NORMAL, EXPONENTIAL, _gamma, SIGN, UNIFORM)
GAUSSIAN: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        (
            "pathwise", "sticking_the_landing", "closed_form_entropy", "inverse_cdf", "score_function",
            "score_function+leave_one_out", "score_function+optimal_score", "score_function+delta_method",
            "pathwise+delta_method", "score_function+antithetic_pairs", "pathwise+antithetic_pairs",
            "score_function+sobol", "pathwise+sobol",
        ),
        (NORMAL,),
    ),
    "measure_valued": MEASURED,
    "coupled_measure_valued": COUPLED,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One estimator on one problem, and what it draws for each sample."""

    problem: Any
    estimator: str
    draws: tuple[Draw, ...]

    @property
    def name(self) -> str:
        return f"{self.estimator} ({self.problem.name})"

    @property
    def floor(self) -> tuple[tuple[Draw, ...], int]:
        """What it draws, and for how many samples at once."""
        return self.draws, 2 if self.estimator in PAIRED else 1

    def loss(self, num_samples: int) -> Callable[..., Array]:
        return partial(self.problem.estimate, num_samples=num_samples, estimator=ESTIMATORS[self.estimator])

    @property
    def params(self) -> dict[str, Array]:
        return {name: jnp.asarray(value, float) for name, value in self.problem.default_params.items()}


def cases() -> list[Case]:
    groups = ((SquareCost(), GAUSSIAN), (BernoulliCost(), BERNOULLI), (CategoricalCost(), CATEGORICAL))
    return [Case(problem, name, draws) for problem, group in groups for name, draws in group.items()]


def main(options: argparse.Namespace) -> None:
    start_jax("float32")
    jax.config.update("jax_enable_compilation_cache", False)
    sizes = (200, 20) if options.quick else (NUM_SAMPLES, NUM_REPLICATES)
    mesh = replicate_mesh()
    chosen = [case for case in cases() if options.only is None or case.estimator in options.only]
    rows = []
    passes = {}
    for case in chosen:
        compile_seconds, passes[case.name] = _compiled_pass(case, *sizes, mesh)
        rows.append({"estimator": case.estimator, "problem": case.problem.name, "compile_seconds": compile_seconds})
    number = sizes[0] * sizes[1]
    floors = {floor: _fastest_floor(floor[0], number // floor[1], mesh) for floor in {case.floor for case in chosen}}
    seconds: dict[Any, list[float]] = {key: [] for key in (*passes, *floors)}
    for _ in range(options.rounds):
        for key, run in (passes | floors).items():
            seconds[key].append(seconds_of(run))
    for row, case in zip(rows, chosen, strict=True):
        ratios = [a / b for a, b in zip(seconds[case.name], seconds[case.floor], strict=True)]
        evaluations = REGISTRY[case.estimator].evaluations.number(
            work_of(case.problem, case.problem.default_params, sizes[0])
        )
        row |= {
            "seconds": statistics.median(seconds[case.name]),
            "floor_seconds": statistics.median(seconds[case.floor]),
            "over_floor": statistics.median(ratios),
            "over_floor_min": min(ratios),
            "over_floor_max": max(ratios),
            "evaluations_a_sample": evaluations / sizes[0],
            "over_floor_an_evaluation": statistics.median(ratios) / max(1.0, evaluations / sizes[0]),
        }
        if not options.quick:
            row["peak_bytes"] = _peak_bytes(case)
    _print(rows)
    out = out_folder(options)
    if out is not None:
        method = {"num_samples": sizes[0], "num_replicates": sizes[1], "rounds": options.rounds}
        about = {"environment": environment_with((), 0), "method": method}
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"estimator_speed_{jax.default_backend()}.json"
        write_json(path, about | {"rows": rows})
        print(f"saved {path.name}")


def _compiled_pass(case: Case, num_samples: int, num_replicates: int, mesh: Mesh) -> tuple[float, Callable[[], Any]]:
    loss, params, key = case.loss(num_samples), case.params, jax.random.key(0)

    def run() -> Any:
        return gradient_statistics(loss, params, key, num_replicates, tail_size=0, mesh=mesh)

    # The first call compiles and runs, the second runs.
    first, second = seconds_of(run), seconds_of(run)
    return first - second, run


def _fastest_floor(draws: tuple[Draw, ...], number: int, mesh: Mesh) -> Callable[[], Any]:
    candidates = [_floor(draws, number, elements, mesh) for elements in CHUNKS if elements * mesh.size <= number] or [
        _floor(draws, number, max(1, number // mesh.size), mesh)
    ]
    for candidate in candidates:
        seconds_of(candidate)
    return min(candidates, key=lambda candidate: min(seconds_of(candidate) for _ in range(2)))


def _floor(draws: tuple[Draw, ...], number: int, elements: int, mesh: Mesh) -> Callable[[], Any]:
    """A program that makes and sums `number` draws of each kind, so many of them at once on every device."""
    num_chunks = -(-number // (elements * mesh.size)) * mesh.size
    each = -(-number // num_chunks)

    def on_device(keys: Any) -> Array:
        def chunk(key: Array) -> Array:
            split = jax.random.split(key, len(draws))
            parts = [draw(k, (each,)).astype(jnp.float32).sum() for draw, k in zip(draws, split, strict=True)]
            return jnp.stack(parts).sum()

        return lax.map(chunk, keys)

    shards = PartitionSpec(mesh.axis_names)
    program = jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=shards, out_specs=shards, check_vma=False))
    return partial(program, jax.random.split(jax.random.key(1), num_chunks))


def large_loss(case: Case) -> tuple[Callable[..., Array], dict[str, Array]]:
    """The sum of squares of 1,000 latents of the case's kind, divided by their number."""
    estimator = ESTIMATORS[case.estimator]

    def objective(sample: Array, q: Any) -> Array:
        return (sample.astype(float) ** 2).sum() / LARGE_LATENTS

    def loss(params: dict[str, Array], key: Array) -> Array:
        if isinstance(case.problem, SquareCost):
            entries: Any = dist.Normal(params["loc"], params["scale"])
        elif isinstance(case.problem, BernoulliCost):
            entries = dist.Bernoulli(logits=params["logits"])
        else:
            entries = dist.Categorical(logits=params["logits"])
        return estimator(objective, entries.to_event(1), key, LARGE_SAMPLES)

    ones = jnp.ones(LARGE_LATENTS)
    if isinstance(case.problem, SquareCost):
        return loss, {"loc": ones, "scale": ones}
    if isinstance(case.problem, BernoulliCost):
        return loss, {"logits": 0.1 * ones}
    return loss, {"logits": 0.1 * jnp.ones((LARGE_LATENTS, 4))}


def _peak_bytes(case: Case) -> int | str:
    """Of a child that makes a few replicates; memory does not grow with their number."""
    arguments = [sys.executable, __file__, "--peak", case.problem.name, case.estimator]
    child = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    return json.loads(child.stdout) if child.returncode == 0 else child.stderr.strip().splitlines()[-1]


def _report_peak(problem: str, estimator: str) -> None:
    start_jax("float32")
    case = next(case for case in cases() if (case.problem.name, case.estimator) == (problem, estimator))
    jnp.zeros(1).block_until_ready()
    loss, params = large_loss(case)
    before = restart_peak()
    # Measure-valued derivatives evaluate the objective a thousand times a sample: one replicate a device says as much.
    is_slow = "measure" in estimator
    number = 2 if is_slow else LARGE_REPLICATES
    jax.block_until_ready(
        gradient_statistics(loss, params, jax.random.key(0), number, tail_size=0, mesh=replicate_mesh())
    )
    print(json.dumps(peak_resident() - before))


def _print(rows: list[dict[str, Any]]) -> None:
    title = "10,000 samples x 1,000 replicates, over the draw floor"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("estimator (problem)", no_wrap=True)
    for header in ("floors", "range", "evals", "compile", "MB"):
        table.add_column(header, justify="right", no_wrap=True)
    for line in _lines(rows):
        table.add_row(*line)
    Console(width=80).print(table)
    print("over the limits:", ", ".join(_over_limits(rows)) or "none")


def _lines(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        peak = row.get("peak_bytes")
        yield (
            f"{row['estimator']} ({row['problem']})",
            f"{row['over_floor']:.2f}",
            f"{row['over_floor_min']:.2f}-{row['over_floor_max']:.2f}",
            f"{row['evaluations_a_sample']:.3g}",
            f"{row['compile_seconds']:.1f} s",
            f"{peak / 1e6:.0f}" if isinstance(peak, int) else str(peak or "-")[:10],
        )


def _over_limits(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        name = f"{row['estimator']} ({row['problem']})"
        if row["over_floor_an_evaluation"] > MOST_OVER_FLOOR:
            yield f"{name} speed"
        if row["compile_seconds"] > MOST_COMPILE_SECONDS:
            yield f"{name} compilation"
        if not isinstance(row.get("peak_bytes", 0), int) or row.get("peak_bytes", 0) > MOST_BYTES:
            yield f"{name} memory"


def _parse() -> argparse.Namespace:
    parser = described_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="that medians are taken over (5)")
    parser.add_argument("--only", nargs="*", help="estimators to time (all)")
    add_quick_and_out(parser)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    parsed = _parse()
    if parsed.peak:
        _report_peak(*parsed.peak)
    else:
        main(parsed)
