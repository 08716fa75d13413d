"""The results of training_speed.py as tables of at most 80 columns."""

from collections.abc import Iterator

from rich.table import Table

from benchmarks.result_tables import framed_table, megabytes, shown_range, targets_table
from benchmarks.saved_results import Record


def training_tables(results: Record) -> Iterator[Table]:
    """Returns one table a section."""
    for num_seeds in sorted({row["num_seeds"] for row in results["trainings"]}):
        yield _trainings([row for row in results["trainings"] if row["num_seeds"] == num_seeds], num_seeds)
    yield _gains(results)
    yield framed_table(
        "Matrix products of the first layer: time in float32 over bfloat16",
        ("for", "batch", "float32", "bfloat16", "gain", "range"),
        [[row["kind"], str(row["batch_size"]), *_product(row)] for row in results["products"]],
    )
    yield framed_table(
        "log p(x) by importance sampling, float32",
        ("images", "k", "time", "Gflop/s", "products alone", "share"),
        [_log_evidence(row) for row in results["log_evidence"]],
    )
    yield framed_table(
        "Mean test ELBO (nats)",
        ("contender", "precision", "ELBO", "over ours"),
        [[row["contender"], row["precision"], *_elbo(row)] for row in results["quality"]],
    )
    yield framed_table(
        "Start of vae-jax train to its first step",
        ("compilation cache", "median", "range"),
        [[row["cache"], f"{row['median']:.2f} s", shown_range(row)] for row in results["start"]],
    )
    yield framed_table(
        "Peak memory above the imports (MB)",
        ("images", "their bytes", "resident", "device"),
        [
            [
                f"{case['num_images']:,}",
                megabytes(case["image_bytes"]),
                megabytes(case["peak_resident_bytes_above_imports"]),
                megabytes(case["peak_device_bytes"]),
            ]
            for case in results["memory"]["cases"]
        ],
    )
    yield targets_table(results["targets"])


def _trainings(rows: list[Record], num_seeds: int) -> Table:
    """Returns a row for each contender and a column for each setting."""
    settings = list(dict.fromkeys((row["batch_size"], row["precision"]) for row in rows))
    cells = {(row["contender"], row["batch_size"], row["precision"]): row for row in rows}
    names = dict.fromkeys(row["contender"] for row in rows)
    return framed_table(
        f"{num_seeds} {'seed' if num_seeds == 1 else 'seeds'}: thousands of images/s, and ours over it",
        ("contender", *(f"{batch_size} {_short(precision)}" for batch_size, precision in settings)),
        [[name, *(_training(cells[name, *setting]) for setting in settings)] for name in names],
    )


def _training(row: Record) -> str:
    if row["status"] != "measured":
        return "failed"
    ours = row["ours_over_it"]
    return f"{row['images_per_second']['median'] / 1e3:.1f} " + (f"{ours['median']:.2f}x" if ours else "")


def _gains(results: Record) -> Table:
    """The gains of bfloat16 and of many seeds in our rows."""
    rows = [row for row in results["trainings"] if row["contender"] == "ours" and row["status"] == "measured"]
    return framed_table(
        "Ours: what bfloat16 and many seeds gain",
        ("batch", "precision", "seeds", "over f32", "range", "over one", "range"),
        [
            [
                str(row["batch_size"]),
                row["precision"],
                str(row["num_seeds"]),
                *_gain(row["over_float32"]),
                *_gain(row["over_one_seed"]),
            ]
            for row in rows
        ],
    )


def _gain(ratio: Record | None) -> list[str]:
    return ["-", "-"] if ratio is None else [f"{ratio['median']:.2f}", shown_range(ratio)]


def _product(row: Record) -> list[str]:
    if row["status"] != "measured":
        return ["failed", "", "", ""]
    times = (f"{row[f'{name}_seconds']['median'] * 1e6:,.0f} us" for name in ("float32", "bfloat16"))
    return [*times, *_gain(row["bfloat16_gain"])]


def _log_evidence(row: Record) -> list[str]:
    sizes = [f"{row['num_images']:,}", f"{row['num_importance_samples']:,}"]
    if row["status"] != "measured":
        return [*sizes, "failed", "", "", ""]
    rates = (
        f"{row[name]['median'] / 1e9:,.1f}" for name in ("operations_per_second", "products_operations_per_second")
    )
    return [*sizes, f"{row['seconds']['median']:.1f} s", *rates, f"{row['share_of_products_rate']['median']:.0%}"]


def _elbo(row: Record) -> list[str]:
    if row["status"] != "measured":
        return ["failed", ""]
    difference = row["over_ours"]
    return [_with_error(row), "" if difference is None else _with_error(difference)]


def _with_error(value: Record) -> str:
    return f"{value['mean']:.2f}" + ("" if value["se"] is None else f" ± {value['se']:.2f}")


def _short(precision: str) -> str:
    return {"float32": "f32", "bfloat16": "bf16"}[precision]
