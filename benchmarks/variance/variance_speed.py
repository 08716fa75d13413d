"""Speed and memory of gradient statistics, as multiples of the draw floor and compared with other libraries.

    python -m benchmarks.variance.variance_speed

Everything but memory is timed in one process after a warm-up, the contenders interleaved: each round runs every one of
them once. The floor is the fastest way found to draw and sum as many standard normals with JAX's default generator. The
peers are an extra, `pip install -e '.[peers]'`; a missing one is reported and left out.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.interleaved_timing import interleaved
from benchmarks.result_tables import print_tables
from benchmarks.saved_results import described_environment, save_results
from benchmarks.variance.draw_floor import OPERATIONS_PER_NORMAL, chosen_floor, over_floor, ratio_of_medians, spread
from benchmarks.variance.gradient_passes import (
    cut_normal_loss,
    elbo_loss,
    forward_pass,
    gradient_pass,
    written_log_joint,
)
from benchmarks.variance.large_pass import block_size_of, large_pass
from benchmarks.variance.pass_memory import MemoryCase, measured_peak
from benchmarks.variance.variance_jax_peers import numpyro_peers, tfp_peers
from benchmarks.variance.variance_speed_tables import variance_tables
from benchmarks.variance.variance_speed_targets import variance_targets
from benchmarks.variance.variance_torch_peers import torch_peers
from benchmarks.variance.variance_work import AGREEMENT, SEED, GradientWork, MissingPeer, Peer, default_work, z_scores
from vae_jax.runtime import start_jax

PEER_LIBRARIES: dict[str, Callable[[GradientWork], Iterator[Peer]]] = {
    "numpyro": numpyro_peers,
    "tensorflow-probability": tfp_peers,
    "torch": torch_peers,
}

TIMED = ("pathwise", "sticking_the_landing", "score_function", "score_function+leave_one_out")

PEER_PACKAGES = ("torch", "tfp-nightly", "tensorflow-probability")


@dataclass(frozen=True)
class VarianceSizes:
    """VarianceSizes and numbers of runs."""

    num_samples: int
    num_replicates: int
    rounds: int
    large_samples: int
    large_rounds: int
    estimators: tuple[str, ...]
    """The estimators whose memory and large passes are measured."""
    most_chunk_sizes: int | None
    """The number of chunk sizes that a peer may choose from; None is all."""


FULL = VarianceSizes(10_000, 1_000, 7, 1_000_000, 3, TIMED, None)
QUICK = VarianceSizes(1_000, 100, 3, 20_000, 3, ("pathwise",), 1)


def main(options: argparse.Namespace) -> None:
    """Measures everything, prints the tables and saves the results."""
    sizes = _sizes(options)
    start_jax("float32")
    print("memory, a process a pass ...", flush=True)
    memory = [_memory(case) for case in _memory_cases(sizes)]
    work = default_work(sizes.num_samples, sizes.num_replicates, sizes.most_chunk_sizes)
    rate = options.device_flops
    results = {
        "command": _command(options),
        "environment": _environment(),
        "method": {
            "num_samples": sizes.num_samples,
            "num_replicates": sizes.num_replicates,
            "rounds": sizes.rounds,
            "warm_up_rounds": 1,
            "ratios": "of medians over interleaved rounds",
            "device_flops": rate,
            "operations_per_normal": OPERATIONS_PER_NORMAL,
            "roofline_fraction": "operations_per_normal x normals / device_flops / seconds",
        },
        **_same_work(work, sizes.rounds, rate),
        "memory": memory,
        "million": large_pass(
            replace(work, num_samples=sizes.large_samples), sizes.estimators, sizes.large_rounds, rate
        ),
    }
    # The targets are stated for the full sizes.
    results["targets"] = [] if options.quick else variance_targets(results)
    print_tables(variance_tables(results))
    save_results(results, out_folder(options), f"variance_speed_{jax.default_backend()}.json")


def _same_work(work: GradientWork, rounds: int, rate: float | None) -> dict[str, Any]:
    """The sections on one size of work, whose contenders are timed in the same rounds."""
    print("choosing the floor's and the peers' chunks ...", flush=True)
    floor, contenders = chosen_floor(work, work)
    for name in TIMED:
        contenders[name] = gradient_pass(elbo_loss(work, name), work)
        written = elbo_loss(work, name, log_joint=written_log_joint)
        contenders[f"normal/{name}"] = gradient_pass(cut_normal_loss(work, name), work)
        contenders[f"numpyro_log_joint/{name}"] = gradient_pass(written, work)
        contenders[f"forward/{name}"] = forward_pass(written, work)
    peers = list(_peers(work))
    contenders |= {peer.name: peer.run for peer in peers if isinstance(peer, Peer)}
    print(f"{len(contenders)} contenders, {rounds} rounds ...", flush=True)
    times = {name: spread(each) for name, each in interleaved(contenders, rounds).items()}
    return {
        "floor": floor | times["floor"],
        "estimators": [over_floor(name, times[name], times["floor"], work, rate) for name in TIMED],
        "numpyro_log_joint": [_over_forward(name, times) for name in TIMED],
        "peers": [_peer_row(peer, work, contenders, times) for peer in peers],
    }


def _over_forward(name: str, times: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    gradient, forward = times[f"numpyro_log_joint/{name}"], times[f"forward/{name}"]
    return {
        "estimator": name,
        **gradient,
        "forward": forward,
        "over_forward": ratio_of_medians(gradient, forward),
        "over_plain_forward": ratio_of_medians(gradient, times["forward/pathwise"]),
    }


def _peers(work: GradientWork) -> Iterator[Peer | MissingPeer]:
    for name, make in PEER_LIBRARIES.items():
        try:
            yield from make(work)
        except ImportError as error:
            # The text may name files of this machine.
            yield MissingPeer(name, re.sub(r"\S*/\S+", "...", str(error)))


def _peer_row(
    peer: Peer | MissingPeer,
    work: GradientWork,
    contenders: Mapping[str, Callable[[], Any]],
    times: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    if isinstance(peer, MissingPeer):
        return {"name": peer.name, "status": f"missing: {peer.reason}"}
    replicates = peer.run()
    scores = z_scores(replicates, contenders[peer.counterpart]())
    share = peer.share(work)
    seconds = times[peer.name]["median_seconds"] / share
    return {
        "name": peer.name,
        "status": "measured",
        "counterpart": peer.counterpart,
        "counterpart_seconds": times[peer.counterpart],
        "measured_samples": peer.num_samples,
        "measured_replicates": peer.num_replicates,
        "measured": times[peer.name],
        "scaled_by": 1 / share,
        "scaled_seconds": seconds,
        "over_ours": seconds / times[peer.counterpart]["median_seconds"],
        "over_our_positive_normal": seconds / times[peer.estimator]["median_seconds"],
        "z_scores": scores,
        "num_nonfinite": {name: int((~np.isfinite(values)).sum()) for name, values in replicates.items()},
        "agrees": all(score is not None and abs(score) < AGREEMENT for score in scores.values()),
        "setting": dict(peer.setting),
    }


def _memory_cases(sizes: VarianceSizes) -> Iterator[MemoryCase]:
    for estimator in sizes.estimators:
        for factor in (0.1, 1, 10):
            yield MemoryCase(estimator, sizes.num_samples, round(factor * sizes.num_replicates))
        yield MemoryCase(estimator, sizes.large_samples, sizes.num_replicates)
        yield MemoryCase(estimator, sizes.large_samples, sizes.num_replicates, block_size_of(sizes.large_samples))


def _memory(case: MemoryCase) -> dict[str, Any]:
    return asdict(case) | measured_peak(case)


def _environment() -> dict[str, Any]:
    return described_environment(SEED, PEER_PACKAGES) | {"generator": str(jax.random.key_impl(jax.random.key(SEED)))}


def _command(options: argparse.Namespace) -> str:
    """The command that runs this again, without the folder."""
    words = ["python -m benchmarks.variance.variance_speed"]
    for name, value in vars(options).items():
        if name != "out" and value not in (None, False):
            words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return " ".join(words)


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--num-samples", type=int, help="samples in a replicate (10,000)")
    parser.add_argument("--num-replicates", type=int, help="replicates in a pass (1,000)")
    parser.add_argument("--rounds", type=int, help="rounds that medians are taken over (7)")
    parser.add_argument("--large-samples", type=int, help="samples in a replicate of the large passes (1,000,000)")
    parser.add_argument("--large-rounds", type=int, help="rounds of the large passes (3)")
    parser.add_argument("--device-flops", type=float, help="float32 operations a second, for the share of the roofline")
    return parser.parse_args()


def _sizes(options: argparse.Namespace) -> VarianceSizes:
    standard = QUICK if options.quick else FULL
    given = {name: value for name, value in vars(options).items() if name in asdict(standard) and value is not None}
    return replace(standard, **given)


if __name__ == "__main__":
    main(_parse())
