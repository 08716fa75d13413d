"""Exact mean and variance of the gradient by each estimator."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.studies.two_routes.two_routes_setting import NUM_SAMPLES, PROBS, TARGET, VALUES
from vae_jax.problems.quadrature import panels

PlaceOfSlope = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps the relaxed and the hard sample to the place where the cost is differentiated."""


def exact_gradient() -> np.ndarray:
    """p_k (f_k - E f), in every logit."""
    probs, costs = np.asarray(PROBS), _outcome_costs()
    return probs * (costs - probs @ costs)


@cache
def exact_moments(name: str, temperature: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and variance of the gradient of `NUM_SAMPLES` samples in every logit, the variance where it is known."""
    if name == "gumbel_softmax":
        return relaxed_moments(temperature, lambda relaxed, hard: relaxed)
    if name == "straight_through":
        return relaxed_moments(temperature, lambda relaxed, hard: hard)
    return exact_gradient(), None if name == "rebar" else _leave_one_out_variance()


def _outcome_costs() -> np.ndarray:
    return (np.asarray(VALUES) - TARGET) ** 2


def _leave_one_out_variance() -> np.ndarray:
    """{E[(f - E f)^2 s^2] - (S - 2)/(S - 1) g^2 + Var(f) E[s^2] / (S - 1)} / S, in every logit."""
    probs, costs = np.asarray(PROBS), _outcome_costs()
    centred = costs - probs @ costs
    squared_score = (np.eye(len(PROBS)) - probs) ** 2
    others = NUM_SAMPLES - 1
    coupling = (probs @ centred**2) * (probs @ squared_score) / others
    return (
        (probs * centred**2) @ squared_score - (others - 1) / others * exact_gradient() ** 2 + coupling
    ) / NUM_SAMPLES


def relaxed_moments(temperature: float, place_of_slope: PlaceOfSlope) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the relaxed gradient, by quadrature over differences of noisy logits.

    Where category k is the largest, the others' noisy logits lie y < 0 from it, with the density
    (K - 1)! prod_j p_j exp(-y_j) / (sum_j p_j exp(-y_j))^K, y_k = 0. Within that the integrand is smooth.

    Args:
        temperature: positive.
        place_of_slope: of straight-through the hard sample, of Gumbel-softmax the relaxed one.
    """
    differences, volumes = _grid(temperature)
    mean, square = np.zeros(len(PROBS)), np.zeros(len(PROBS))
    for category, hard in enumerate(np.eye(len(PROBS))):
        noisy = np.insert(differences, category, 0.0, axis=0)
        weights = _weights(noisy, volumes)
        gradients = _relaxed_gradients(noisy, temperature, hard, place_of_slope)
        mean += gradients @ weights
        square += gradients**2 @ weights
    return mean, (square - mean**2) / NUM_SAMPLES


def _grid(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [K - 1, N] of the differences, and the volume of each."""
    steps, widths = panels(panel_edges(temperature))
    nodes = np.stack([grid.ravel() for grid in np.meshgrid(*[-steps] * (len(PROBS) - 1), indexing="ij")])
    volumes = np.prod(np.meshgrid(*[widths] * (len(PROBS) - 1), indexing="ij"), axis=0).ravel()
    return nodes, volumes


def _weights(noisy: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """The nodes' volumes times the density there."""
    rates = np.asarray(PROBS)[:, None] * np.exp(-noisy)
    return volumes * math.factorial(len(PROBS) - 1) * rates.prod(axis=0) / rates.sum(axis=0) ** len(PROBS)


def _relaxed_gradients(
    noisy: np.ndarray, temperature: float, hard: np.ndarray, place_of_slope: PlaceOfSlope
) -> np.ndarray:
    """The gradient in every logit at noisy logits [K, N]."""
    values = np.asarray(VALUES)
    relaxed = np.exp(noisy / temperature)
    relaxed /= relaxed.sum(axis=0)
    slopes = 2 * (values @ place_of_slope(relaxed, hard) - TARGET) * values[:, None]
    return relaxed * (slopes - (relaxed * slopes).sum(axis=0)) / temperature


def panel_edges(temperature: float) -> np.ndarray:
    """Edges of panels that resolve the softmax, whose width is the temperature, and the density, of width one."""
    narrow = [edge for edge in (6 * temperature, 20 * temperature) if edge < 5]
    return np.asarray([0.0, *narrow, 6.0, 14.0, 25.0])
