"""The results of `vae-jax cavi`, and how they are saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from vae_jax.cli.output_folder import save_figure
from vae_jax.files import write_csv, write_json
from vae_jax.inference.cavi import Candidate, Component, Recovery, Selection, effective_num_components


class CaviResults(NamedTuple):
    """All that is printed, drawn and saved."""

    selection: Selection
    positions: Float[np.ndarray, "N D"]
    counts: Num[np.ndarray, " N"] | None
    responsibilities: Float[np.ndarray, "K N"]
    """For the best number of components."""
    components: tuple[Component, ...]
    recovery: Recovery | None
    """The truth of a simulation, and the components that were matched to it."""
    position_names: tuple[str, ...]
    count_name: str | None
    max_steps: int
    """Largest number of sweeps from a start."""


def save_results(results: CaviResults, folder: Path, environment: Mapping[str, Any]) -> None:
    """Writes the tables, the responsibilities and the figures."""
    rows = [_row(each) for each in results.selection.candidates]
    of_components = [_component(each, results.position_names) for each in results.components]
    best = results.selection.best
    content: dict[str, Any] = {
        "environment": environment,
        "num_events": len(results.positions),
        "best_num_components": best.num_components,
        "range_ends_at_best": results.selection.ends_at_best,
        "hyperparameters": {
            name: np.asarray(value, np.float64).tolist()
            for name, value in best.model._asdict().items()
            if name != "weights"
        }
        | {f"weight_{name}": np.asarray(value).tolist() for name, value in best.model.weights._asdict().items()},
        "rows": [row | _histories(each) for row, each in zip(rows, results.selection.candidates, strict=True)],
        "components": of_components,
    }
    if results.recovery is not None:
        content["recovery"] = _recovery(results.recovery)
        write_csv(folder / "events.csv", _events(results, results.recovery))
    write_json(folder / "cavi.json", content)
    write_csv(folder / "cavi.csv", rows)
    write_csv(folder / "components.csv", of_components)
    _save_responsibilities(results, folder)
    _save_figures(results, folder)


def _row(candidate: Candidate) -> dict[str, Any]:
    ends = np.asarray(candidate.ascent.restart_elbos, np.float64)
    return {
        "num_components": candidate.num_components,
        "elbo": candidate.elbo,
        "log_symmetries": candidate.log_symmetries,
        "elbo_plus_log_symmetries": candidate.score,
        "num_empty": candidate.num_empty,
        "num_restarts": len(ends),
        "num_restarts_at_best": candidate.num_at_best,
        "median_restart_elbo": float(np.median(ends)),
        "worst_restart_elbo": float(ends.min()),
        "num_steps": int(candidate.ascent.num_steps),
        "converged": bool(candidate.ascent.converged),
        "effective_num_components": effective_num_components(candidate.model, candidate.ascent.state),
    }


def _histories(candidate: Candidate) -> dict[str, Any]:
    return {
        "elbo_history": candidate.elbo_history.tolist(),
        "restart_elbos": np.asarray(candidate.ascent.restart_elbos).tolist(),
    }


def _component(component: Component, names: tuple[str, ...]) -> dict[str, Any]:
    """A row, whose columns have the names of the positions."""
    row: dict[str, Any] = {
        "component": component.number,
        "num_events": component.num_events,
        "empty": component.is_empty,
        "weight": component.weight,
        "weight_std": component.weight_std,
    }
    for name, loc, loc_std in zip(names, component.loc, component.loc_std, strict=True):
        row |= {name: loc, f"{name}_std": loc_std}
    for i, first in enumerate(names):
        row |= {f"cov_{first}_{second}": component.covariance[i][j] for j, second in enumerate(names) if j >= i}
    if component.rate is not None:
        row |= {"rate": component.rate, "rate_std": component.rate_std, "count_dispersion": component.dispersion}
    return row


def _recovery(found: Recovery) -> dict[str, Any]:
    truth = found.truth
    return {
        "share_labelled_right": found.share_right,
        "share_attainable": found.share_attainable,
        "num_intervals": found.num_intervals,
        "num_intervals_holding_truth": found.num_inside,
        "components": [
            {
                "loc": np.asarray(truth.loc[k], np.float64).tolist(),
                "rate": float(truth.rate[k]),
                "weight": float(truth.weights[k]),
                "num_events": int((np.asarray(truth.labels) == k).sum()),
                "matched_component": int(match) + 1 if match >= 0 else None,
                "loc_inside": found.loc_inside[k].tolist(),
                "rate_inside": bool(found.rate_inside[k]),
            }
            for k, match in enumerate(found.matches)
        ],
    }


def _events(results: CaviResults, found: Recovery) -> list[dict[str, Any]]:
    """The simulated events, as a file that the command reads."""
    names = (*results.position_names, results.count_name or "count", "true_component")
    truth = found.truth
    columns = (*results.positions.T, np.asarray(truth.data.counts).astype(int), np.asarray(truth.labels) + 1)
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _save_responsibilities(results: CaviResults, folder: Path) -> None:
    arrays: dict[str, Any] = {
        "responsibilities": results.responsibilities.T,
        "component": results.responsibilities.argmax(0) + 1,
        "positions": results.positions,
    }
    if results.counts is not None:
        arrays["counts"] = results.counts
    np.savez_compressed(folder / "responsibilities.npz", **arrays)


def _save_figures(results: CaviResults, folder: Path) -> None:
    from vae_jax.plotting import cavi as figures

    if results.positions.shape[1] == 2:
        figure = figures.responsibility_map(
            results.positions,
            results.responsibilities,
            results.components,
            names=results.position_names,
            counts=results.counts,
            count_name=results.count_name,
        )
        save_figure(folder, "map", figure)
    if results.counts is not None:
        figure = figures.counts_by_component(
            results.counts, results.responsibilities, results.components, name=results.count_name or "count"
        )
        save_figure(folder, "counts", figure)
    save_figure(folder, "elbo_by_sweep", figures.elbo_by_sweep(results.selection))
    if len(results.selection.candidates) > 1:
        save_figure(folder, "elbo_by_num_components", figures.elbo_by_num_components(results.selection))
