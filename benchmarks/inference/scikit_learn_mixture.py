"""The normal-Wishart mixture compared with scikit-learn's `BayesianGaussianMixture`, sweep by sweep from one start."""

import statistics
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.mixture import BayesianGaussianMixture

from benchmarks.interleaved_timing import interleaved, ratios
from vae_jax.inference import cavi

NUM_COMPONENTS, NUM_DIMENSIONS, NUM_SWEEPS = 10, 2, 10


class _FromGiven(BayesianGaussianMixture):
    """Scikit-learn's mixture from given responsibilities [N, K]."""

    responsibilities: Any = None

    def _initialize_parameters(self, X: Any, random_state: Any, xp: Any = None) -> None:  # noqa: N803
        self._initialize(X, self.responsibilities)


def normal_wishart(num_points: int, rounds: int) -> dict[str, Any]:
    """Times the sweeps of both (float32 here, float64 there) and compares how their bounds rise."""
    positions, responsibilities = _simulated_points(num_points)
    data = cavi.points(positions)
    model = cavi.normal_wishart_mixture(data, NUM_COMPONENTS)
    peer = _peer_of(model, responsibilities)

    def theirs() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.fit(positions)

    @jax.jit
    def sweep(start: Array, data: cavi.Points) -> tuple[Any, Array]:
        def step(state: Any, _: None) -> tuple[Any, Array]:
            state, info = model.step(state, data)
            return state, info.elbo

        return jax.lax.scan(step, model.update(start, data), length=NUM_SWEEPS)

    start = jnp.asarray(responsibilities.T, jnp.float32)
    seconds = interleaved({"vae_jax": lambda: sweep(start, data), "scikit_learn": theirs}, rounds)
    return {
        "points": num_points,
        "sweeps": NUM_SWEEPS,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "scikit_learn_over_vae_jax": ratios(seconds["scikit_learn"], seconds["vae_jax"]),
        "largest_difference_of_rises": _difference_of_rises(positions, peer),
    }


def _simulated_points(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in clusters [N, D], and responsibilities at random [N, K]."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, NUM_COMPONENTS, num_points)
    loc = 3 * generator.normal(size=(NUM_COMPONENTS, NUM_DIMENSIONS))
    positions = loc[labels] + generator.normal(size=(num_points, NUM_DIMENSIONS))
    return positions, np.eye(NUM_COMPONENTS)[generator.permutation(labels)]


def _peer_of(model: cavi.NormalWishartMixture, responsibilities: np.ndarray) -> _FromGiven:
    """The same model in scikit-learn."""
    peer = _FromGiven(
        n_components=NUM_COMPONENTS,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=1.0,
        mean_precision_prior=float(model.prior_count),
        mean_prior=np.asarray(model.prior_loc, float),
        degrees_of_freedom_prior=float(model.degrees),
        covariance_prior=np.asarray(model.inverse_scale, float),
        reg_covar=0,
        tol=0,
        max_iter=NUM_SWEEPS,
    )
    peer.responsibilities = responsibilities
    return peer


def _difference_of_rises(positions: np.ndarray, peer: _FromGiven) -> float:
    """The largest difference between the rises of the two bounds (nats) from sweep to sweep, both in float64."""
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = cavi.points(positions)
        model = cavi.normal_wishart_mixture(data, NUM_COMPONENTS)
        state = model.update(jnp.asarray(peer.responsibilities.T), data)
        stepwise = _peer_of(model, peer.responsibilities)
        stepwise.set_params(max_iter=1, warm_start=True)
        ours, theirs = [], []
        step = jax.jit(model.step)
        for _ in range(NUM_SWEEPS):
            state, info = step(state, data)
            stepwise.fit(positions)
            ours.append(float(info.elbo))
            theirs.append(stepwise.lower_bound_)
    return float(np.abs(np.diff(ours) - np.diff(theirs)).max())
