"""The results as tables of at most 80 columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from speed.table import _number, _table, megabytes

Results = Mapping[str, Any]


def print_tables(results: Results) -> None:
    """Prints one table a section."""
    console = Console(width=80)
    for table in _tables(results):
        if table.rows:
            console.print(table)


def _tables(results: Results) -> Iterator[Table]:
    for num_seeds in sorted({row["num_seeds"] for row in results["trainings"]}):
        yield _trainings([row for row in results["trainings"] if row["num_seeds"] == num_seeds], num_seeds)
    yield _gains(results)
    yield _table(
        "Matrix products of the first layer: time in float32 over bfloat16",
        ("for", "batch", "float32", "bfloat16", "gain", "range"),
        [[row["kind"], str(row["batch_size"]), *_product(row)] for row in results["products"]],
    )
    yield _table(
        "log p(x) by importance sampling, float32",
        ("images", "k", "time", "Gflop/s", "products alone", "share"),
        [_log_marginals(row) for row in results["log_marginals"]],
    )
    yield _table(
        "Mean test ELBO (nats)",
        ("contender", "precision", "ELBO", "over ours"),
        [[row["contender"], row["precision"], *_elbo(row)] for row in results["quality"]],
    )
    yield _table(
        "Start of vae-jax train to its first step",
        ("compilation cache", "median", "range"),
        [[row["cache"], f"{row['median']:.2f} s", _range(row, ".2f")] for row in results["start"]],
    )
    yield _table(
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
    yield _table(
        "Targets",
        ("target", "limit", "worst", "met"),
        [
            [row["target"], _number(row["limit"]), _number(row["worst"]), _yes_or_no(row["met"])]
            for row in results["targets"]
        ],
    )


def _trainings(rows: list[Results], num_seeds: int) -> Table:
    """A row for each contender and a column for each setting."""
    settings = list(dict.fromkeys((row["batch_size"], row["precision"]) for row in rows))
    cells = {(row["contender"], row["batch_size"], row["precision"]): row for row in rows}
    names = dict.fromkeys(row["contender"] for row in rows)
    return _table(
        f"{num_seeds} {'seed' if num_seeds == 1 else 'seeds'}: thousands of images/s, and ours over it",
        ("contender", *(f"{batch_size} {_short(precision)}" for batch_size, precision in settings)),
        [[name, *(_training(cells[name, *setting]) for setting in settings)] for name in names],
    )


def _training(row: Results) -> str:
    if row["status"] != "measured":
        return "failed"
    ours = row["ours_over_it"]
    return f"{row['images_per_second']['median'] / 1e3:.1f} " + (f"{ours['median']:.2f}x" if ours else "")


def _gains(results: Results) -> Table:
    """Of our rows."""
    rows = [row for row in results["trainings"] if row["contender"] == "ours" and row["status"] == "measured"]
    return _table(
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


def _gain(ratio: Mapping[str, float] | None) -> list[str]:
    return ["-", "-"] if ratio is None else [f"{ratio['median']:.2f}", _range(ratio, ".2f")]


def _product(row: Results) -> list[str]:
    if row["status"] != "measured":
        return ["failed", "", "", ""]
    times = (f"{row[f'{name}_seconds']['median'] * 1e6:,.0f} us" for name in ("float32", "bfloat16"))
    return [*times, *_gain(row["bfloat16_gain"])]


def _log_marginals(row: Results) -> list[str]:
    sizes = [f"{row['num_images']:,}", f"{row['num_importance_samples']:,}"]
    if row["status"] != "measured":
        return [*sizes, "failed", "", "", ""]
    rates = (
        f"{row[name]['median'] / 1e9:,.1f}" for name in ("operations_per_second", "products_operations_per_second")
    )
    return [*sizes, f"{row['seconds']['median']:.1f} s", *rates, f"{row['share_of_products_rate']['median']:.0%}"]


def _elbo(row: Results) -> list[str]:
    if row["status"] != "measured":
        return ["failed", ""]
    difference = row["over_ours"]
    return [_with_error(row), "" if difference is None else _with_error(difference)]


def _with_error(value: Results) -> str:
    return f"{value['mean']:.2f}" + ("" if value["se"] is None else f" ± {value['se']:.2f}")


def _range(values: Results, form: str) -> str:
    return f"{values['min']:{form}}-{values['max']:{form}}"


def _yes_or_no(met: bool | None) -> str:
    return {True: "yes", False: "NO", None: "-"}[met]


def _short(precision: str) -> str:
    return {"float32": "f32", "bfloat16": "bf16"}[precision]
