"""Speed of every gradient estimator as a multiple of the draw floor of its own draws; compilation and memory.

    python -m benchmarks.variance.estimator_speed

For each estimator on its scalar problem (the square cost under a normal, the Bernoulli and the categorical cost) the
statistics of its gradient at 10,000 samples and 1,000 replicates are timed as a ratio to the floor: the fastest way
found to make and sum as many draws of the kinds that it draws, with JAX's default generator. Floors and passes are
interleaved, each round runs every one once, and a ratio is the median over rounds of the ratio within a round.

Compilation is of the whole pass, with an empty cache. Memory is the peak of a process above its imports, with a
latent vector of 1,000 entries at 1,000 samples and 1,000 replicates.
"""

import argparse
import statistics
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.interleaved_timing import fastest, interleaved, ratios, seconds_of
from benchmarks.result_tables import open_table, print_tables, shown_range
from benchmarks.saved_results import Record, described_environment, save_results
from benchmarks.variance.draw_floor import draws_in_chunks
from benchmarks.variance.estimator_cases import Case, NoiseDraw, estimator_cases
from benchmarks.variance.large_latent_memory import large_peak_bytes
from vae_jax.estimators import REGISTRY
from vae_jax.replicates import replicate_mesh
from vae_jax.runtime import start_jax
from vae_jax.statistics import gradient_statistics
from vae_jax.studies import work_of

NUM_SAMPLES, NUM_REPLICATES = 10_000, 1_000
CHUNKS = (20_000, 100_000, 500_000, 1_000_000)
"""Draws at once on a device: candidates of a floor, of which the fastest counts."""

MOST_OVER_FLOOR, MOST_COMPILE_SECONDS, MOST_BYTES = 2.5, 3.0, 2e9


def main(options: argparse.Namespace) -> None:
    """Measures every estimator, prints the table and saves the results."""
    start_jax("float32")
    jax.config.update("jax_enable_compilation_cache", False)
    num_samples, num_replicates = (200, 20) if options.quick else (NUM_SAMPLES, NUM_REPLICATES)
    cases = [case for case in estimator_cases() if options.only is None or case.estimator in options.only]
    rows = _timed_rows(cases, num_samples, num_replicates, options.rounds)
    if not options.quick:
        rows = [row | {"peak_bytes": large_peak_bytes(case)} for row, case in zip(rows, cases, strict=True)]
    _print(rows, f"{num_samples:,} samples x {num_replicates:,} replicates, over the draw floor")
    results = {
        "environment": described_environment(0),
        "method": {"num_samples": num_samples, "num_replicates": num_replicates, "rounds": options.rounds},
        "rows": rows,
    }
    save_results(results, out_folder(options), f"estimator_speed_{jax.default_backend()}.json")


def _timed_rows(cases: Sequence[Case], num_samples: int, num_replicates: int, rounds: int) -> list[dict[str, Any]]:
    mesh = replicate_mesh()
    compiled = {case.name: _compiled_pass(case, num_samples, num_replicates, mesh) for case in cases}
    floors = {
        (draws, samples_of_draw): _fastest_floor(draws, num_samples * num_replicates // samples_of_draw, mesh)
        for draws, samples_of_draw in {case.floor for case in cases}
    }
    contenders: dict[Any, Callable[[], Any]] = {name: run for name, (_, run) in compiled.items()}
    seconds = interleaved(contenders | floors, rounds)
    return [
        {"estimator": case.estimator, "problem": case.problem.name, "compile_seconds": compiled[case.name][0]}
        | _over_floor(seconds[case.name], seconds[case.floor], _evaluations_a_sample(case, num_samples))
        for case in cases
    ]


def _over_floor(seconds: Sequence[float], floor_seconds: Sequence[float], evaluations: float) -> dict[str, float]:
    over = ratios(seconds, floor_seconds)
    return {
        "seconds": statistics.median(seconds),
        "floor_seconds": statistics.median(floor_seconds),
        "over_floor": over["median"],
        "over_floor_min": over["min"],
        "over_floor_max": over["max"],
        "evaluations_a_sample": evaluations,
        "over_floor_an_evaluation": over["median"] / max(1.0, evaluations),
    }


def _evaluations_a_sample(case: Case, num_samples: int) -> float:
    work = work_of(case.problem, case.problem.default_params, num_samples)
    return REGISTRY[case.estimator].evaluations.number(work) / num_samples


def _compiled_pass(case: Case, num_samples: int, num_replicates: int, mesh: Mesh) -> tuple[float, Callable[[], Any]]:
    loss, params, key = case.loss(num_samples), case.params, jax.random.key(0)

    def run() -> Any:
        return gradient_statistics(loss, params, key, num_replicates, tail_size=0, mesh=mesh)

    # The first call compiles and runs, the second runs.
    first, second = seconds_of(run), seconds_of(run)
    return first - second, run


def _fastest_floor(draws: tuple[NoiseDraw, ...], number: int, mesh: Mesh) -> Callable[[], Any]:
    """The fastest program found that makes and sums `number` draws of each kind."""

    def draw_chunk(key: Array, size: int) -> Array:
        keys = jax.random.split(key, len(draws))
        return jnp.stack([draw(k, (size,)).astype(float).sum() for draw, k in zip(draws, keys, strict=True)]).sum()

    def floor(elements: int) -> Callable[[], Any]:
        program, key = draws_in_chunks(draw_chunk, number, elements, mesh), jax.random.key(1)
        return lambda: program(key)

    sizes = [elements for elements in CHUNKS if elements * mesh.size <= number] or [max(1, number // mesh.size)]
    candidates = {elements: floor(elements) for elements in sizes}
    return candidates[fastest(candidates, rounds=2)[0]]


def _print(rows: Sequence[Record], title: str) -> None:
    columns = ("estimator (problem)", "floors", "range", "evals", "compile", "MB")
    print_tables([open_table(title, columns, [_cells(row) for row in rows])])
    print(textwrap.fill(f"over the limits: {', '.join(_over_limits(rows)) or 'none'}", 80))


def _cells(row: Record) -> tuple[str, ...]:
    peak = row.get("peak_bytes")
    return (
        f"{row['estimator']} ({row['problem']})",
        f"{row['over_floor']:.2f}",
        shown_range({"min": row["over_floor_min"], "max": row["over_floor_max"]}),
        f"{row['evaluations_a_sample']:.3g}",
        f"{row['compile_seconds']:.1f} s",
        f"{peak / 1e6:.0f}" if isinstance(peak, int) else str(peak or "-")[:10],
    )


def _over_limits(rows: Sequence[Record]) -> Iterator[str]:
    for row in rows:
        name = f"{row['estimator']} ({row['problem']})"
        if row["over_floor_an_evaluation"] > MOST_OVER_FLOOR:
            yield f"{name} speed"
        if row["compile_seconds"] > MOST_COMPILE_SECONDS:
            yield f"{name} compilation"
        peak = row.get("peak_bytes", 0)
        if not isinstance(peak, int) or peak > MOST_BYTES:
            yield f"{name} memory"


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken over (5)")
    parser.add_argument("--only", nargs="*", metavar="ESTIMATOR", help="estimators to time (all)")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
