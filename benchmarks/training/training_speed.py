"""Speed of training VAEs, compared with PyTorch, a jitted step and NumPyro; speed of log p(x) and of the start.

    python -m benchmarks.training.training_speed --data FOLDER --quality

The model is 784-256-50 and its mirror, with Bernoulli pixels that are binarized afresh in every batch, within the time,
on every side. All contenders train on the same images, kept in memory as uint8 unless stated otherwise, by Adam
at 1e-3, in full batches; an epoch's last and smaller one is left out.

- ours: `vae_jax.vae.make_train`, an epoch in one compiled loop. One seed has one CPU device, which uses every
  core; many seeds are sharded over a device for each core, and one seed is timed on one of those too.
- torch eager: `torch.optim.Adam` on a module, a permutation of tensors in memory, no loader, all threads; bfloat16 by
  `torch.autocast`, many seeds by `torch.vmap` on stacked parameters. Then the same with the fused Adam, and with the
  module compiled too.
- jitted step: a Flax module, one dispatch from Python a step, the images on the device; many seeds by `vmap`. And with
  host batches: every batch comes from NumPy and every key is split in Python, as Flax's example does it.
- numpyro: its example's SVI, one `fori_loop` an epoch on float images on the device; many seeds by `vmap`.

Each family has a process of its own, because the number of CPU devices and of threads belongs to a process. The
processes stay alive and work one at a time: a round has every contender do an epoch (with many seeds a quarter of one)
once. A ratio is the median over rounds of the ratio within a round. The peers are an extra,
`pip install -e '.[peers]'`; a contender that fails is reported and left out.
"""

import argparse
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.result_tables import print_tables
from benchmarks.saved_results import described_environment, save_results
from benchmarks.training.task_worker import FAMILIES, started
from benchmarks.training.training_sections import (
    PRECISIONS,
    Setting,
    importance_sampling,
    memory,
    products,
    quality,
    start,
    trainings,
)
from benchmarks.training.training_tables import training_tables
from benchmarks.training.training_targets import training_targets
from benchmarks.training.training_work import BINARIZATION_SEED, load_work

PEER_PACKAGES = ("torch", "flax", "optax")


@dataclass(frozen=True)
class TrainingSizes:
    """TrainingSizes and numbers of runs."""

    rounds: int
    num_images: int | None
    """Training images; None is all."""
    most_steps: int | None
    """Steps in a round; None is an epoch."""
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    product_batch_sizes: tuple[int, ...]
    product_repeats: int
    test_images: int
    """Images whose log p(x) is estimated."""
    importance_samples: int
    slow_rounds: int
    """Rounds of log p(x) and of starts."""
    memory_images: tuple[int, ...]
    quality_seeds: int
    quality_epochs: int


FULL = TrainingSizes(7, None, None, (64, 128), (1, 8), (64, 128, 512), 300, 1_000, 5_000, 3, (60_000, 600_000), 3, 5)
QUICK = TrainingSizes(2, 2_000, 5, (64,), (1, 2), (64,), 5, 4, 100, 1, (1_000, 60_000), 2, 1)


def main(options: argparse.Namespace) -> None:
    """Measures everything, prints the tables and saves the results."""
    sizes = replace(QUICK if options.quick else FULL, **({"rounds": options.rounds} if options.rounds else {}))
    work = load_work(options.data, sizes.num_images)
    settings = [
        Setting(batch_size, precision, num_seeds)
        for num_seeds in sizes.seeds
        for batch_size in sizes.batch_sizes
        for precision in PRECISIONS
    ]
    with ExitStack() as processes:
        workers = {
            family: processes.enter_context(started(family, options.data, sizes.num_images)) for family in FAMILIES
        }
        results: dict[str, Any] = {
            "trainings": trainings(workers, settings, len(work.pixels), sizes.rounds, sizes.most_steps),
            "products": products(workers, sizes.product_batch_sizes, sizes.product_repeats, sizes.rounds),
            "log_evidence": importance_sampling(
                workers, sizes.test_images, sizes.importance_samples, sizes.slow_rounds
            ),
            "quality": quality(workers, sizes.batch_sizes[0], sizes.quality_seeds, sizes.quality_epochs)
            if options.quality
            else [],
        }
    results["start"] = start(options.data, sizes.slow_rounds)
    results["memory"] = memory(sizes.memory_images, work.num_pixels)
    # The targets are stated for the full sizes.
    results["targets"] = [] if options.quick else training_targets(results)
    method = {"warm_up_rounds": 1, "num_images": len(work.pixels), "num_pixels": work.num_pixels, **asdict(sizes)}
    results = {
        "command": _command(options),
        "environment": described_environment(BINARIZATION_SEED, PEER_PACKAGES),
        "method": method,
        **results,
    }
    print_tables(training_tables(results))
    save_results(results, out_folder(options), f"training_speed_{results['environment']['device']['platform']}.json")


def _command(options: argparse.Namespace) -> str:
    """The command that runs this again, without the folders."""
    words = ["python -m benchmarks.training.training_speed"]
    words += [f"--{name}" for name in ("quick", "quality") if getattr(options, name)]
    words += [f"--rounds {options.rounds}"] if options.rounds else []
    return " ".join(words)


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", default="mnist", help="name of a dataset or folder of IDX files (mnist)")
    parser.add_argument("--rounds", type=int, help="rounds that medians are taken over (7)")
    parser.add_argument("--quality", action="store_true", help="also compare the test ELBO after some epochs")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
