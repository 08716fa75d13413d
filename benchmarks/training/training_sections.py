"""The sections of the results: each asks the workers for its measurements."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.interleaved_timing import ratios, summary
from benchmarks.saved_results import Record
from benchmarks.training.first_training_step import first_step, memory_of_first_step
from benchmarks.training.layer_products import CONTRACTED
from benchmarks.training.task_rounds import Entry, mean_and_error, run_rounds
from benchmarks.training.task_worker import TaskFailed, Worker
from benchmarks.training.training_work import PRESET

PEERS = {
    "torch eager": "torch",
    "torch eager, fused Adam": "torch",
    "torch compiled, fused Adam": "torch",
    "jitted step": "jax",
    "jitted step, host batches": "jax",
    "numpyro": "jax",
}
"""The family of each contender."""

ON_ONE_DEVICE = "ours, one device of several"
"""One seed in the process whose devices share many seeds."""

OF_ONE_SEED = ("torch compiled, fused Adam", "jitted step, host batches")

SHARE_OF_MANY = 4
"""With many seeds a round is a quarter of an epoch."""

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Setting:
    """The settings of a training."""

    batch_size: int
    precision: str
    num_seeds: int


def trainings(
    workers: Mapping[str, Worker], settings: Sequence[Setting], num_images: int, rounds: int, most_steps: int | None
) -> list[dict[str, Any]]:
    """Every contender's speed in every setting that it supports."""
    entries: dict[tuple[str, Setting], Entry] = {}
    for setting in settings:
        num_steps = num_images // setting.batch_size // (1 if setting.num_seeds == 1 else SHARE_OF_MANY)
        arguments = asdict(setting) | {"num_steps": max(1, min(num_steps, most_steps or num_steps))}
        ours = "ours" if setting.num_seeds == 1 else "ours on all devices"
        entries["ours", setting] = Entry(ours, "ours", arguments)
        if setting.num_seeds == 1:
            entries[ON_ONE_DEVICE, setting] = Entry("ours on all devices", "ours", arguments)
        for name, family in PEERS.items():
            if setting.num_seeds == 1 or name not in OF_ONE_SEED:
                entries[name, setting] = Entry(family, name, arguments)
    print(f"training: {len(entries)} contenders, {rounds} rounds ... ", end="", flush=True)
    run_rounds(workers, list(entries.values()), rounds)
    return [_training_row(name, setting, entries) for name, setting in entries]


def _training_row(name: str, setting: Setting, entries: Mapping[tuple[str, Setting], Entry]) -> dict[str, Any]:
    entry = entries[name, setting]
    row = {"contender": name, **entry.arguments, "status": entry.status}
    if entry.failures:
        return row
    rates = entry.rates("images")

    def over(other: Entry | None) -> dict[str, float] | None:
        return None if other is None or other.failures else ratios(rates, other.rates("images"))

    in_float32 = Setting(setting.batch_size, "float32", setting.num_seeds)
    of_one = Setting(setting.batch_size, setting.precision, 1)
    ours, is_many = entries["ours", setting], setting.num_seeds > 1
    return row | {
        "images_per_second": summary(rates),
        "seconds": summary(entry.seconds),
        "first_seconds": entry.answers[0]["seconds"],
        "ours_over_it": None if ours.failures else ratios(ours.rates("images"), rates),
        "over_float32": over(entries.get((name, in_float32))) if setting.precision != "float32" else None,
        "over_one_seed": over(entries.get((name, of_one))) if is_many else None,
        "over_one_device": over(entries.get((ON_ONE_DEVICE, of_one))) if name == "ours" and is_many else None,
    }


def products(
    workers: Mapping[str, Worker], batch_sizes: Sequence[int], num_repeats: int, rounds: int
) -> list[dict[str, Any]]:
    """The gain of bfloat16 in each matrix product of the layer next to the pixels."""
    cells = [(kind, batch_size) for batch_size in batch_sizes for kind in CONTRACTED]
    entries = {
        (*cell, precision): Entry("ours", "product", _product_arguments(*cell, precision, num_repeats))
        for cell in cells
        for precision in PRECISIONS
    }
    print(f"matrix products: {rounds} rounds ... ", end="", flush=True)
    run_rounds(workers, list(entries.values()), rounds)
    return [_product_row(*cell, *(entries[*cell, precision] for precision in PRECISIONS)) for cell in cells]


def _product_arguments(kind: str, batch_size: int, precision: str, num_repeats: int) -> dict[str, Any]:
    return {"kind": kind, "batch_size": batch_size, "precision": precision, "num_repeats": num_repeats}


def _product_row(kind: str, batch_size: int, in_float32: Entry, in_bfloat16: Entry) -> dict[str, Any]:
    failed = next((entry for entry in (in_float32, in_bfloat16) if entry.failures), None)
    row = {"kind": kind, "batch_size": batch_size, "status": "measured" if failed is None else failed.status}
    if failed is not None:
        return row
    rates = [entry.rates("products") for entry in (in_float32, in_bfloat16)]
    return row | {
        "float32_seconds": summary([1 / rate for rate in rates[0]]),
        "bfloat16_seconds": summary([1 / rate for rate in rates[1]]),
        "bfloat16_gain": ratios(rates[1], rates[0]),
    }


def importance_sampling(
    workers: Mapping[str, Worker], num_images: int, num_importance_samples: int, rounds: int
) -> list[dict[str, Any]]:
    """log p(x) of test images in float32, compared with the arithmetic rate of its matrix products alone."""
    arguments = {"num_images": num_images, "num_importance_samples": num_importance_samples}
    whole, alone = (Entry("ours", task, arguments) for task in ("log_evidence", "decoder_products"))
    print(f"log p(x): {rounds} rounds ... ", end="", flush=True)
    run_rounds(workers, [whole, alone], rounds)
    failed = next((entry for entry in (whole, alone) if entry.failures), None)
    if failed is not None:
        return [{**arguments, "status": failed.status}]
    rates, products_rates = whole.rates("operations"), alone.rates("operations")
    return [
        {
            **arguments,
            "status": "measured",
            "seconds": summary(whole.seconds),
            "operations_per_second": summary(rates),
            "products_operations_per_second": summary(products_rates),
            "products_rows": alone.answers[0]["rows"],
            "share_of_products_rate": ratios(rates, products_rates),
        }
    ]


def quality(workers: Mapping[str, Worker], batch_size: int, num_seeds: int, num_epochs: int) -> list[dict[str, Any]]:
    """The mean test ELBO of some seeds, from the same distribution of initial values."""
    contenders = (("ours", "ours", "float32"), ("ours", "ours", "bfloat16"), ("torch eager", "torch", "float32"))
    print(f"test ELBO after {num_epochs} epochs: {num_seeds} seeds ... ", end="", flush=True)
    rows = []
    for name, family, precision in contenders:
        row = {"contender": name, "precision": precision, "batch_size": batch_size, "num_epochs": num_epochs}
        try:
            elbos = list(_elbos(workers[family], batch_size, precision, num_seeds, num_epochs))
        except TaskFailed as failure:
            rows.append(row | {"status": f"failed: {failure}", "over_ours": None})
            continue
        found = mean_and_error(elbos)
        rows.append(row | {"status": "measured", "elbos": elbos, **found, "over_ours": _difference(found, rows)})
    print("done")
    return rows


def _elbos(worker: Worker, batch_size: int, precision: str, num_seeds: int, num_epochs: int) -> Iterator[float]:
    for seed in range(num_seeds):
        arguments = {"batch_size": batch_size, "precision": precision, "seed": seed, "num_epochs": num_epochs}
        yield worker.ask("quality", **arguments)["elbo"]


def _difference(found: Record, rows: Sequence[Record]) -> dict[str, float | None] | None:
    """The difference to our mean in float32, which is the first row."""
    if not rows or rows[0]["status"] != "measured":
        return None
    ours = rows[0]
    errors = (found["se"], ours["se"])
    return {
        "mean": found["mean"] - ours["mean"],
        "se": None if None in errors else math.hypot(*errors),
    }


def start(data: str, rounds: int) -> list[dict[str, Any]]:
    """Seconds from the start of `vae-jax train` to the end of its first step, in a process each."""
    print(f"start to first step: {rounds} rounds ... ", end="", flush=True)
    seconds: dict[str, list[float]] = {"empty": [], "full": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            # The first process of a round meets an empty cache of compiled programs, the second one what it left.
            for cache, each in seconds.items():
                each.append(first_step(data, Path(folder) / f"cache-{number}")["seconds"])
                print("." if cache == "full" else "", end="", flush=True)
    print()
    return [{"preset": PRESET.data.data, "cache": cache, **summary(each)} for cache, each in seconds.items()]


def memory(image_counts: Sequence[int], num_pixels: int) -> dict[str, Any]:
    """Peak memory of `vae-jax train` up to its first step above its imports, and how it grows with the images."""
    print("memory: a process each ...", flush=True)
    cases = [{"num_images": count, **memory_of_first_step(count, num_pixels)} for count in image_counts]
    small, large = cases[0], cases[-1]
    more_bytes = large["image_bytes"] - small["image_bytes"]
    growth = {
        name: None if small[name] is None else (large[name] - small[name]) / more_bytes
        for name in ("peak_resident_bytes_above_imports", "peak_device_bytes")
    }
    on_device = growth["peak_device_bytes"]
    return {
        "cases": cases,
        "bytes_an_image_byte": growth["peak_resident_bytes_above_imports"] if on_device is None else on_device,
    }
