"""A VAE whose likelihood is known exactly, trained until its ELBO reaches it.

    python -m benchmarks.studies.linear_gaussian_vae

Without hidden layers and with a Gaussian likelihood of learned scale the model is probabilistic principal component
analysis: x = W z + b + noise, so that log p(x) is a Gaussian's, and its largest value over the training images is known
in closed form (Tipping & Bishop 1999). Trained on scikit-learn's 8x8 digits, the script compares

- the ELBO with the exact log p(x) of the same parameters, and both with the largest;
- log p(x) with ELBO + KL(q || posterior) as q moves, where the sum must stay.

Writes results/linear_gaussian_vae.json and .png.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import multivariate_normal

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.figure_drawing import save_png
from benchmarks.saved_results import Record, described_environment, save_results
from vae_jax import plotting
from vae_jax.divergences import kl_gaussian, kl_standard_normal
from vae_jax.statistics import mean_se
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, TrainingConfig
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.data.image_data import ImageData
from vae_jax.vae.data.visible_images import visible_images
from vae_jax.vae.results.trained_model import TrainedModel, load_trained
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.runs.training_run import Run
from vae_jax.vae.training.image_scores import make_score

LATENTS = 5

FULL_EPOCHS, QUICK_EPOCHS = 1_000, 3


def main(options: argparse.Namespace) -> None:
    """Trains the model, compares its ELBO with log p(x) and saves the results."""
    num_epochs = options.num_epochs or (QUICK_EPOCHS if options.quick else FULL_EPOCHS)
    config, images = _experiment(num_epochs), load_images("digits")
    trained = _trained(config, images)
    splits = {name: visible_images(config, getattr(images, name), name) for name in ("train", "test")}
    model = LinearGaussianDensities(trained)
    results: dict[str, Any] = {
        "environment": described_environment(config.seed),
        "num_epochs": num_epochs,
        **{name: _compared(trained, model, pixels) for name, pixels in splits.items()},
        "largest_train_log_likelihood": _largest_log_likelihood(splits["train"] / 255.0),
        "identity": _identity(model, splits["test"][0] / 255.0),
    }
    _print(results)
    out = out_folder(options)
    save_results(results, out, "linear_gaussian_vae.json")
    save_png(_figure(results["identity"]), out, "linear_gaussian_vae.png")


def _experiment(num_epochs: int) -> Experiment:
    return Experiment(
        data=DataConfig("digits", binarization="none"),
        model=ModelConfig(latent_size=LATENTS, hidden_sizes=(), likelihood="gaussian"),
        training=TrainingConfig(num_epochs=num_epochs, learning_rate=1e-2, learning_rate_schedule="cosine"),
    )


def _trained(config: Experiment, images: ImageData) -> TrainedModel:
    with tempfile.TemporaryDirectory() as folder:
        run_folder = RunFolder(Path(folder))
        facts = {"shape": images.shape, "num_train": len(images.train.images)}
        run_folder.write_config(config, {"images": facts})
        run = Run(config, images, run_folder)
        run.train(run.start())
        return load_trained(run_folder, which="latest", on_damage=print)


def _print(results: Record) -> None:
    for name in ("train", "test"):
        print(name, {key: round(value, 4) for key, value in results[name].items()})
    largest = results["largest_train_log_likelihood"]
    print(f"largest log p(x) of the training images by any parameters: {largest:.4f}")
    print("ELBO + KL(q || posterior) - log p(x), at most:", results["identity"]["largest_gap"])


class LinearGaussianDensities:
    """The Gaussians of a linear model, in double precision: x = W z + b + noise."""

    def __init__(self, trained: TrainedModel) -> None:
        head = trained.params["decoder"]["head"]
        self.weights = np.asarray(head["kernel"], float).T
        self.loc = np.asarray(head["bias"], float)
        self.variance = float(np.exp(2 * np.asarray(trained.params["log_scale"], float)))
        self.covariance = self.weights @ self.weights.T + self.variance * np.eye(len(self.loc))
        self.posterior_covariance = np.linalg.inv(np.eye(LATENTS) + self.weights.T @ self.weights / self.variance)

    def log_evidence(self, x: np.ndarray) -> np.ndarray:
        """log p(x) (nats)."""
        covariance: Any = self.covariance
        return multivariate_normal.logpdf(x, self.loc, covariance)

    def posterior_mean(self, x: np.ndarray) -> np.ndarray:
        """The mean of p(z | x)."""
        return self.posterior_covariance @ self.weights.T @ (x - self.loc) / self.variance

    def elbo(self, x: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> float:
        """E_q[log p(x|z)] - KL(q || p) of a diagonal Gaussian q, exactly."""
        residual = x - self.weights @ loc - self.loc
        spread = ((self.weights * scale) ** 2).sum()
        log_norm = len(x) * np.log(2 * np.pi * self.variance) / 2
        expected = -(residual @ residual + spread) / (2 * self.variance) - log_norm
        return expected - float(kl_standard_normal(jnp.asarray(loc), jnp.asarray(scale)))

    def kl_to_posterior(self, x: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> float:
        """KL(q || posterior) of a diagonal Gaussian q (nats)."""
        tril = np.linalg.cholesky(self.posterior_covariance)
        return float(kl_gaussian(*map(jnp.asarray, (loc, np.diag(scale), self.posterior_mean(x), tril))))


def _compared(trained: TrainedModel, model: LinearGaussianDensities, pixels: np.ndarray) -> dict[str, float]:
    """The model's ELBO and its exact log p(x), averaged over images."""
    scores = make_score(trained.architecture, pixels, num_samples=100)(jax.random.key(0), trained.params)
    exact = model.log_evidence(pixels / 255.0)
    gaps = exact - np.asarray(scores.elbo, float)
    return {
        "log_evidence": float(exact.mean()),
        "elbo": float(scores.elbo.mean()),
        "gap": float(gaps.mean()),
        "gap_se": float(mean_se(gaps)),
    }


def _largest_log_likelihood(x: np.ndarray) -> float:
    """The mean log p(x) of the best parameters (Tipping & Bishop 1999, eq. 3.7 with their estimates)."""
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    kept, left = eigenvalues[:LATENTS], eigenvalues[LATENTS:]
    num_pixels = x.shape[1]
    logs = np.log(kept).sum() + len(left) * np.log(left.mean())
    return float(-(num_pixels * np.log(2 * np.pi) + logs + num_pixels) / 2)


def _identity(model: LinearGaussianDensities, x: np.ndarray) -> dict[str, Any]:
    """log p(x) and ELBO + KL(q || posterior) of one image as q's mean goes through the posterior's."""
    scale = 1 / np.sqrt(np.diag(np.linalg.inv(model.posterior_covariance)))
    steps = np.linspace(-4, 4, 81)
    direction = scale / np.sqrt(LATENTS)
    with jax.enable_x64(True):
        places = [model.posterior_mean(x) + step * direction for step in steps]
        elbo = np.array([model.elbo(x, loc, scale) for loc in places])
        kl = np.array([model.kl_to_posterior(x, loc, scale) for loc in places])
    log_evidence = float(model.log_evidence(x))
    return {
        "steps": steps.tolist(),
        "elbo": elbo.tolist(),
        "kl_to_posterior": kl.tolist(),
        "log_evidence": log_evidence,
        "largest_gap": float(np.abs(elbo + kl - log_evidence).max()),
    }


def _figure(identity: Record) -> Figure:
    steps, elbo, kl = (np.asarray(identity[name]) for name in ("steps", "elbo", "kl_to_posterior"))
    xlabel = "mean of q from the posterior's, in standard deviations"
    return plotting.bound_gap(steps, elbo, kl, identity["log_evidence"], xlabel=xlabel)


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, quick=f"{QUICK_EPOCHS} epochs")
    parser.add_argument("--num-epochs", type=int, help=f"epochs of training ({FULL_EPOCHS:,})")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
