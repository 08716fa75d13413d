"""`vae-jax cavi`: clusters of events by coordinate ascent, and how many there are."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vae_jax.cli.cavi.mixture_flags import GAUSSIAN_POISSON, NORMAL_WISHART, WITH_COUNTS, MixtureName, PriorFlags
from vae_jax.cli.csv_numbers import read_columns
from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import Debug, Dtype, Out, Seed, check_options, optional, settings_of
from vae_jax.cli.output_folder import save_config, staged
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_1, FINITE_AND_NOT_NEGATIVE, GIVEN, AppliesWith, documented

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.cli.cavi.cavi_results import CaviResults
    from vae_jax.inference.cavi import Selection, Simulation

MOST_COMPONENTS = 12
"""The end of the range that is tried by default."""

TRUE_NUM_COMPONENTS = 4
"""Components that are simulated by default."""


@dataclass(frozen=True)
@documented
class CaviCommand:
    """Clusters events by a mixture model and coordinate ascent, and compares numbers of clusters.

    The components of the gaussian-poisson model are round, of one known width, and have Poisson counts with a rate
    each; those of normal-wishart have covariances of their own, and no counts. Each number K of components gets many
    starts. The numbers are compared by their best ELBO + log K!, as the labels have K! equal orders. Prints two tables,
    and saves them with the figures: cavi.json, cavi.csv, components.csv, responsibilities.npz, config.json, and map,
    counts, elbo_by_sweep and elbo_by_num_components (.png and .pdf).
    """

    csv: Annotated[tyro.conf.Positional[Path | None], optional("[FILE.csv]")] = None
    """File of events whose first line names its columns. Needed, with --position, unless --simulate is given."""
    position: Annotated[tuple[str, ...] | None, optional("STR [STR ...]")] = None
    """One or more columns with the events' positions. Two are drawn as a map. The gaussian-poisson model's clusters are
    round, so its columns must have the same unit."""
    count: Annotated[str | None, WITH_COUNTS, optional("STR")] = None
    """Column with the count of each event, 0 or more. The model needs one."""
    simulate: Annotated[int | None, AT_LEAST_1, WITH_COUNTS, optional("INT")] = None
    """Number of events to simulate from the model's prior, in place of a file. The results show the truth too."""
    true_num_components: Annotated[int | None, AT_LEAST_1, AppliesWith(simulate=GIVEN), optional("INT")] = None
    """Number of simulated components. By default 4, or as many as --weights."""
    model: MixtureName = GAUSSIAN_POISSON
    """The mixture model."""
    num_components: Annotated[tuple[str, ...], optional("[INT|INT:INT ...]")] = ()
    """Numbers of components to compare, or ranges that include both ends: 6, or 2 4 8, or 1:12. By default 1:12, or as
    many as --weights."""
    prior: PriorFlags = field(default_factory=PriorFlags)
    """Hyperparameters. v is the variance of the positions, averaged over their columns."""
    num_restarts: Annotated[int, AT_LEAST_1] = 100
    """Random starts (k-means++) for each number of components. The best is kept."""
    max_steps: Annotated[int, AT_LEAST_1] = 1000
    """Largest number of sweeps from a start."""
    tolerance: Annotated[float, FINITE_AND_NOT_NEGATIVE] = 1e-8
    """Sweeps stop when one raises the ELBO by less than this fraction of it."""
    seed: Seed = 0
    dtype: Dtype = "float32"
    out: Out = Path("vae-jax-cavi")
    debug: Debug = False

    def run(self) -> None:
        """Fits, prints and saves.

        Raises:
            Misuse: an argument or a file is refused.
        """
        check_options(self)
        self._check()
        columns = None if self.csv is None else self._read(self.csv)
        start_jax(self.dtype, num_cpu_devices=1)
        from vae_jax.cli.cavi.cavi_results import save_results
        from vae_jax.cli.cavi.cavi_tables import print_results

        with staged(self.out) as folder:
            results = self._fit(columns)
            save_results(results, folder, environment(self.dtype, self.seed))
            save_config(folder, "cavi", settings_of(self), positional=("csv",))
        print_results(results, self.out)

    @property
    def position_names(self) -> tuple[str, ...]:
        """Names of the columns of places, or of the simulated places."""
        return self.position if self.position is not None else ("x", "y")

    @property
    def count_name(self) -> str | None:
        """Name of the counts, if there are any."""
        return self.count or ("count" if self.simulate is not None else None)

    def _check(self) -> None:
        if (self.csv is None) == (self.simulate is None):
            got = "neither" if self.csv is None else "both"
            raise Misuse(f"the events must come from one CSV file or from --simulate, got {got}: name one of them")
        if self.csv is not None and not self.position:
            raise Misuse("--position must name the columns of the places, got none: write --position long lat")
        if self.csv is not None and self.model == GAUSSIAN_POISSON and self.count is None:
            raise Misuse(
                f"--count must name the column of the counts, got none: add it, or choose --model {NORMAL_WISHART}"
            )
        names = [*self.position_names, *([self.count] if self.count else [])]
        if len(set(names)) < len(names):
            raise Misuse(f"--position and --count must name different columns, got {' '.join(names)}: name each once")
        self._ranges()

    def _read(self, path: Path) -> "dict[str, np.ndarray]":
        counts = (self.count,) if self.count else ()
        columns = read_columns(path, (*self.position_names, *counts), counts=counts)
        places = {name: columns[name] for name in self.position_names}
        self.prior.check_places(self.model, places, path)
        return columns

    def _ranges(self) -> list[range]:
        """The numbers of components to compare, as they are written.

        Raises:
            Misuse: what is no number or range.
        """
        ranges = []
        for text in self.num_components:
            match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
            least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= least <= most:
                raise Misuse(f"--num-components must be numbers from 1 or ranges as 1:12, got {text}: change it")
            ranges.append(range(least, most + 1))
        return ranges

    def _numbers(self, num_events: int) -> list[int]:
        """The numbers of components to compare, each once, in rising order.

        Raises:
            Misuse: one is above the number of events.
        """
        if not self.num_components:
            weights = self.prior.weights
            return list(range(1, min(MOST_COMPONENTS, num_events) + 1)) if weights is None else [len(weights)]
        ranges = self._ranges()
        most = max(each[-1] for each in ranges)
        if most > num_events:
            raise Misuse(f"--num-components must be at most the {num_events:,} events, got {most:,}: lower it")
        return sorted(set().union(*ranges))

    def _fit(self, columns: "dict[str, np.ndarray] | None") -> "CaviResults":
        import jax
        import numpy as np

        from vae_jax.cli.cavi.cavi_results import CaviResults
        from vae_jax.inference import cavi

        fit_key, simulation_key = jax.random.split(jax.random.key(self.seed))
        truth, prior = None, self.prior
        with refusals_are_misuse():
            if columns is None:
                truth = self._simulated(simulation_key)
                prior = prior.filled_for_simulation(len(self.position_names))
                positions, counts = np.asarray(truth.data.positions), np.asarray(truth.data.counts)
            else:
                positions = np.stack([columns[name] for name in self.position_names], 1)
                counts = columns[self.count] if self.count else None
            data = cavi.points(positions) if counts is None else cavi.located_counts(positions, counts)
            selection = self._select(prior, data, len(positions), fit_key)
        best = selection.best
        if not math.isfinite(best.elbo):
            raise Misuse(
                f"the ELBO must be finite, got {best.elbo} at best: choose --dtype float64, or hyperparameters nearer "
                "to the data's scale"
            )
        responsibilities = np.asarray(best.model.responsibilities(best.ascent.state, data))
        return CaviResults(
            selection,
            positions,
            counts,
            responsibilities,
            cavi.components(best.model, best.ascent.state, responsibilities, data),
            None if truth is None else cavi.recovery(best.model, best.ascent.state, responsibilities, truth),
            self.position_names,
            self.count_name,
            self.max_steps,
        )

    def _select(self, prior: PriorFlags, data: Any, num_events: int, key: Any) -> "Selection":
        """The fits of every number of components."""
        from vae_jax.cli.progress_bars import shown_steps
        from vae_jax.inference import cavi

        numbers = self._numbers(num_events)
        task = f"{self.num_restarts} restarts each of {len(numbers)} numbers of components"
        with shown_steps() as show:
            return cavi.choose_num_components(
                prior.build(self.model),
                data,
                numbers,
                key,
                num_restarts=self.num_restarts,
                max_steps=self.max_steps,
                tolerance=self.tolerance,
                on_candidate=lambda each: show(task, (numbers.index(each.num_components) + 1) / len(numbers)),
            )

    def _simulated(self, key: Any) -> "Simulation":
        weights = self.prior.weights
        num_components = self.true_num_components or (len(weights) if weights else TRUE_NUM_COMPONENTS)
        return self.prior.simulate(key, self.simulate or 0, num_components, len(self.position_names))
