"""How fast the statistics of gradient estimators are, over the draw floor and beside other libraries.

    python benchmarks/variance_speed.py

Everything but memory is timed in one process after a warm-up, the contenders interleaved: each round runs every one of
them once. The floor is the fastest way found to draw and sum as many standard normals with JAX's default generator. The
peers are in an extra of their own, `pip install -e '.[peers]'`; one that is missing is reported and left out.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from command_line import add_quick_and_out, described_parser, out_folder
from saving import environment_with, save_results
from speed.floor import (
    OPERATIONS_PER_NORMAL,
    block_size_of,
    chosen_floor,
    large_pass,
    over_floor,
    ratio,
    spread,
)
from speed.jax_peers import numpyro_peers, tfp_peers
from speed.memory import MemoryCase, measured_peak
from speed.ours import cut_normal_loss, elbo_loss, forward_pass, gradient_pass, written_log_joint
from speed.table import print_tables
from speed.targets import targets
from speed.torch_peers import torch_peers
from speed.work import AGREEMENT, SEED, MissingPeer, Peer, Work, default_work, interleaved, z_scores
from vae_jax.estimators import ESTIMATORS
from vae_jax.runtime import start_jax

PEER_LIBRARIES: dict[str, Callable[[Work], Iterator[Peer]]] = {
    "numpyro": numpyro_peers,
    "tensorflow-probability": tfp_peers,
    "torch": torch_peers,
}

PEER_PACKAGES = ("torch", "tfp-nightly", "tensorflow-probability")


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    num_samples: int
    num_replicates: int
    rounds: int
    large_samples: int
    large_rounds: int
    estimators: tuple[str, ...]
    """Whose memory and large passes are measured."""
    most_chunk_sizes: int | None
    """That a peer may choose from."""


FULL = Sizes(10_000, 1_000, 7, 1_000_000, 3, tuple(ESTIMATORS), None)
QUICK = Sizes(1_000, 100, 3, 20_000, 3, ("pathwise",), 1)


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
    results["targets"] = [] if options.quick else targets(results)
    print_tables(results)
    out = out_folder(options)
    if out is not None:
        save_results(results, out / f"variance_speed_{jax.default_backend()}.json")


def _same_work(work: Work, rounds: int, rate: float | None) -> dict[str, Any]:
    """The sections on one size of work, whose contenders are timed in the same rounds."""
    print("choosing the floor's and the peers' chunks ...", flush=True)
    floor, contenders = chosen_floor(work, work)
    for name in ESTIMATORS:
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
        "estimators": [over_floor(name, times[name], times["floor"], work, rate) for name in ESTIMATORS],
        "numpyro_log_joint": [_over_forward(name, times) for name in ESTIMATORS],
        "peers": [_peer_row(peer, work, contenders, times) for peer in peers],
    }


def _over_forward(name: str, times: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    gradient, forward = times[f"numpyro_log_joint/{name}"], times[f"forward/{name}"]
    return {
        "estimator": name,
        **gradient,
        "forward": forward,
        "over_forward": ratio(gradient, forward),
        "over_plain_forward": ratio(gradient, times["forward/pathwise"]),
    }


def _peers(work: Work) -> Iterator[Peer | MissingPeer]:
    for name, make in PEER_LIBRARIES.items():
        try:
            yield from make(work)
        except ImportError as error:
            # The text may name files of this machine.
            yield MissingPeer(name, re.sub(r"\S*/\S+", "...", str(error)))


def _peer_row(
    peer: Peer | MissingPeer,
    work: Work,
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


def _memory_cases(sizes: Sizes) -> Iterator[MemoryCase]:
    for estimator in sizes.estimators:
        for factor in (0.1, 1, 10):
            yield MemoryCase(estimator, sizes.num_samples, round(factor * sizes.num_replicates))
        yield MemoryCase(estimator, sizes.large_samples, sizes.num_replicates)
        yield MemoryCase(estimator, sizes.large_samples, sizes.num_replicates, block_size_of(sizes.large_samples))


def _memory(case: MemoryCase) -> dict[str, Any]:
    return asdict(case) | measured_peak(case)


def _environment() -> dict[str, Any]:
    return environment_with(PEER_PACKAGES, SEED) | {"generator": str(jax.random.key_impl(jax.random.key(SEED)))}


def _command(options: argparse.Namespace) -> str:
    """How to run this again, without the folder."""
    words = ["python benchmarks/variance_speed.py"]
    for name, value in vars(options).items():
        if name != "out" and value not in (None, False):
            words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return " ".join(words)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = described_parser(__doc__)
    parser.add_argument("--num-samples", type=int, help="of a replicate (10,000)")
    parser.add_argument("--num-replicates", type=int, help="of a pass (1,000)")
    parser.add_argument("--rounds", type=int, help="that medians are taken over (7)")
    parser.add_argument("--large-samples", type=int, help="of a replicate in the large passes (1,000,000)")
    parser.add_argument("--large-rounds", type=int, help="of the large passes (3)")
    parser.add_argument("--device-flops", type=float, help="float32 operations a second, for the share of the roofline")
    add_quick_and_out(parser)
    return parser.parse_args(arguments)


def _sizes(options: argparse.Namespace) -> Sizes:
    standard = QUICK if options.quick else FULL
    given = {name: value for name, value in vars(options).items() if name in asdict(standard) and value is not None}
    return replace(standard, **given)


if __name__ == "__main__":
    main(_parse(None))
