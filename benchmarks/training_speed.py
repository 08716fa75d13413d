"""How fast VAEs train here, beside PyTorch, a jitted step and NumPyro; and how fast log p(x) is, and the start.

    python benchmarks/training_speed.py --data FOLDER --quality

The model is 784-256-50 and its mirror, with Bernoulli pixels that are binarized afresh in every batch, within the time,
on every side. All contenders train on the same images, kept in memory as uint8 unless it is said, by Adam at 1e-3, in
full batches; an epoch's last and smaller one is left out.

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
once. A ratio is the median over rounds of the ratio within a round. The peers are in an extra of their own,
`pip install -e '.[peers]'`; what fails is reported and left out.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from command_line import add_quick_and_out, described_parser, out_folder
from saving import environment_with, save_results
from training.sections import PRECISIONS, Setting, importance_sampling, memory, products, quality, start, trainings
from training.table import print_tables
from training.targets import targets
from training.work import BINARIZATION_SEED, load_work
from training.worker import FAMILIES, started

PEER_PACKAGES = ("torch", "flax", "optax")


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    rounds: int
    num_images: int | None
    """For training; None is all."""
    most_steps: int | None
    """Of a round; None is an epoch."""
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    product_batch_sizes: tuple[int, ...]
    product_repeats: int
    test_images: int
    """Of which log p(x) is estimated."""
    importance_samples: int
    slow_rounds: int
    """Of log p(x) and of starts."""
    memory_images: tuple[int, ...]
    quality_seeds: int
    quality_epochs: int


FULL = Sizes(7, None, None, (64, 128), (1, 8), (64, 128, 512), 300, 1_000, 5_000, 3, (60_000, 600_000), 3, 5)
QUICK = Sizes(2, 2_000, 5, (64,), (1, 2), (64,), 5, 4, 100, 1, (1_000, 60_000), 2, 1)


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
            "log_marginals": importance_sampling(
                workers, sizes.test_images, sizes.importance_samples, sizes.slow_rounds
            ),
            "quality": quality(workers, sizes.batch_sizes[0], sizes.quality_seeds, sizes.quality_epochs)
            if options.quality
            else [],
        }
    results["start"] = start(options.data, sizes.slow_rounds)
    results["memory"] = memory(sizes.memory_images, work.num_pixels)
    # The targets are stated for the full sizes.
    results["targets"] = [] if options.quick else targets(results)
    method = {"warm_up_rounds": 1, "num_images": len(work.pixels), "num_pixels": work.num_pixels, **asdict(sizes)}
    results = {
        "command": _command(options),
        "environment": environment_with(PEER_PACKAGES, BINARIZATION_SEED),
        "method": method,
        **results,
    }
    print_tables(results)
    out = out_folder(options)
    if out is not None:
        save_results(results, out / f"training_speed_{results['environment']['device']['platform']}.json")


def _command(options: argparse.Namespace) -> str:
    """How to run this again, without the folders."""
    words = ["python benchmarks/training_speed.py"]
    words += [f"--{name}" for name in ("quick", "quality") if getattr(options, name)]
    words += [f"--rounds {options.rounds}"] if options.rounds else []
    return " ".join(words)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = described_parser(__doc__)
    parser.add_argument("--data", default="mnist", help="name of a dataset or folder of IDX files (mnist)")
    parser.add_argument("--rounds", type=int, help="that medians are taken over (7)")
    parser.add_argument("--quality", action="store_true", help="compare the test ELBO after some epochs too")
    add_quick_and_out(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(_parse(None))
