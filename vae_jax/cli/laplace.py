"""`vae-jax laplace`: Laplace's approximation where the answer is known."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.options import Debug, Out, check_options, optional, settings_of
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import Range

if TYPE_CHECKING:
    from vae_jax.inference import FactorialApproximation

LARGEST = 10**9
"""The largest N. The error is below the rounding of float64 long before."""

DTYPE = "float64"
"""The error is below the rounding of float32 from N = 100 on."""

WRITTEN_OUT = 1e6
"""The smallest N! that is shown with its power of ten."""


@dataclass(frozen=True)
class LaplaceCommand:
    """Approximates N! by Laplace's method, and compares it with the exact value.

    N! is the integral of exp(N log t - t) over t > 0. The method gives Stirling's sqrt(2 pi N) (N / e)^N. Everything is
    computed in float64. Prints a table, and saves it with its figure as laplace.json, laplace.csv, laplace.png (and
    .pdf) and config.json.
    """

    factorial: Annotated[tuple[int, ...], Range(1, LARGEST), optional("INT [INT ...]")] = ()
    """One or more N, as in --factorial 5 10 100. (required)"""
    out: Out = Path("vae-jax-laplace")
    debug: Debug = False

    def run(self) -> None:
        """Approximates, prints and saves.

        Raises:
            Misuse: no number, or one that is out of range.
        """
        check_options(self)
        if not self.factorial:
            raise Misuse("--factorial must have at least one number, got none: write --factorial 5 10 100")
        start_jax(DTYPE, num_cpu_devices=1)
        from vae_jax.inference import approximate_factorial

        with staged(self.out) as folder:
            approximations = [approximate_factorial(number) for number in self.factorial]
            self._save(approximations, folder)
        _print(approximations, self.out)

    def _save(self, approximations: "Sequence[FactorialApproximation]", folder: Path) -> None:
        from vae_jax.plotting.factorial_errors import factorial_errors

        rows = [asdict(each) for each in approximations]
        save_table(folder, "laplace", rows, {"environment": environment(DTYPE, seed=0)})
        save_config(folder, "laplace", settings_of(self))
        save_figure(folder, "laplace", factorial_errors(approximations))


def _print(approximations: "Sequence[FactorialApproximation]", out: Path) -> None:
    from rich.console import Console

    from vae_jax.cli.terminal_tables import add_numbers, plain_table, print_saved

    console = Console(highlight=False)
    console.print("N! approximated by Laplace's method", style="bold")
    table = plain_table()
    add_numbers(table, "N", "N! approx.", "its log", "lgamma(N + 1)", "error", "12N x error")
    for each in approximations:
        table.add_row(
            str(each.number),
            _exponential(each.log_approximation),
            f"{each.log_approximation:.9g}",
            f"{each.log_factorial:.9g}",
            f"{each.error:.3g}" if each.reliable else "rounding",
            _resolved(each) if each.reliable else "",
        )
    console.print(table)
    console.print("The error is the logarithm's. It falls as 1 / (12 N), so that the last column tends to 1.")
    if not all(each.reliable for each in approximations):
        console.print("rounding: the error is below what float64 resolves in numbers so large.")
    print_saved(console, out, "laplace.json", "laplace.csv", "laplace.png", "config.json")


def _resolved(approximation: "FactorialApproximation") -> str:
    """The scaled error, in the digits that rounding leaves."""
    decimals = math.floor(-math.log10(approximation.resolution / approximation.error))
    return f"{approximation.scaled_error:.{min(decimals, 5)}f}"


def _exponential(log: float) -> str:
    """exp(log), which may be too large for a float."""
    if log < math.log(WRITTEN_OUT):
        return f"{math.exp(log):.6g}"
    fraction, power = math.modf(log / math.log(10))
    mantissa = round(10**fraction, 3)
    if mantissa == 10:
        mantissa, power = 1, power + 1
    return f"{mantissa:.3f}e+{power:.0f}"
