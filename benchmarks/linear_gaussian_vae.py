"""A VAE whose likelihood is known exactly, trained until its ELBO reaches it.

    python benchmarks/linear_gaussian_vae.py

Without hidden layers and with a Gaussian likelihood of learned scale the model is probabilistic principal component
analysis: x = W z + b + noise, so that log p(x) is a Gaussian's, and its largest value over the training images is known
in closed form (Tipping & Bishop 1999). Trained on scikit-learn's 8x8 digits, the script compares

- the ELBO with the exact log p(x) of the same parameters, and both with the largest;
- log p(x) with ELBO + KL(q || posterior) as q moves, where the sum must not.

Writes results/linear_gaussian_vae.json and .png.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from command_line import DEFAULT_OUT, described_parser
from vae_jax import plotting
from vae_jax.divergences import kl_gaussian, kl_standard_normal
from vae_jax.files import write_json
from vae_jax.runtime import environment
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, TrainingConfig
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.data.visible_images import visible_images
from vae_jax.vae.results.trained_model import TrainedModel, load_trained
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.runs.training_run import Run
from vae_jax.vae.training.image_scores import make_score

LATENTS = 5


def experiment(num_epochs: int) -> Experiment:
    return Experiment(
        data=DataConfig("digits", binarization="none"),
        model=ModelConfig(latent_size=LATENTS, hidden_sizes=(), likelihood="gaussian"),
        training=TrainingConfig(num_epochs=num_epochs, learning_rate=1e-2, learning_rate_schedule="cosine"),
    )


def main(options: argparse.Namespace) -> None:
    config = experiment(options.num_epochs)
    images = load_images("digits")
    with tempfile.TemporaryDirectory() as folder:
        run_folder = RunFolder(Path(folder))
        facts = {"shape": images.shape, "num_train": len(images.train.images)}
        run_folder.write_config(config, {"images": facts})
        run = Run(config, images, run_folder)
        run.train(run.start())
        trained = load_trained(run_folder, which="latest", on_damage=print)
    splits = {name: visible_images(config, getattr(images, name), name) for name in ("train", "test")}
    model = Exact(trained)
    largest = largest_log_likelihood(splits["train"] / 255.0)
    results: dict[str, Any] = {"environment": environment("float32", config.seed), "num_epochs": options.num_epochs}
    for name, pixels in splits.items():
        results[name] = compared(trained, model, pixels)
        print(name, {key: round(value, 4) for key, value in results[name].items()})
    results["largest_train_log_likelihood"] = largest
    print(f"largest log p(x) of the training images by any parameters: {largest:.4f}")
    results["identity"] = identity(model, splits["test"][0] / 255.0, options.out)
    print("ELBO + KL(q || posterior) - log p(x), at most:", results["identity"]["largest_gap"])
    write_json(options.out / "linear_gaussian_vae.json", results)


class Exact:
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
        return self.posterior_covariance @ self.weights.T @ (x - self.loc) / self.variance

    def elbo(self, x: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> float:
        """E_q[log p(x|z)] - KL(q || p) of a diagonal Gaussian q, exactly."""
        residual = x - self.weights @ loc - self.loc
        spread = ((self.weights * scale) ** 2).sum()
        log_norm = len(x) * np.log(2 * np.pi * self.variance) / 2
        expected = -(residual @ residual + spread) / (2 * self.variance) - log_norm
        return expected - float(kl_standard_normal(jnp.asarray(loc), jnp.asarray(scale)))

    def kl_to_posterior(self, x: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> float:
        tril = np.linalg.cholesky(self.posterior_covariance)
        return float(kl_gaussian(*map(jnp.asarray, (loc, np.diag(scale), self.posterior_mean(x), tril))))


def compared(trained: TrainedModel, model: Exact, pixels: np.ndarray) -> dict[str, float]:
    """The model's ELBO and its exact log p(x), averaged over images."""
    scores = make_score(trained.architecture, pixels, num_samples=100)(jax.random.key(0), trained.params)
    exact = model.log_evidence(pixels / 255.0)
    gaps = exact - np.asarray(scores.elbo, float)
    return {
        "log_evidence": float(exact.mean()),
        "elbo": float(scores.elbo.mean()),
        "gap": float(gaps.mean()),
        "gap_se": float(gaps.std(ddof=1) / np.sqrt(len(gaps))),
    }


def largest_log_likelihood(x: np.ndarray) -> float:
    """The mean log p(x) of the best parameters (Tipping & Bishop 1999, eq. 3.7 with their estimates)."""
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    kept, left = eigenvalues[:LATENTS], eigenvalues[LATENTS:]
    num_pixels = x.shape[1]
    logs = np.log(kept).sum() + len(left) * np.log(left.mean())
    return float(-(num_pixels * np.log(2 * np.pi) + logs + num_pixels) / 2)


def identity(model: Exact, x: np.ndarray, out: Path) -> dict[str, Any]:
    """log p(x) against ELBO + KL(q || posterior) as q's mean goes through the posterior's."""
    scale = 1 / np.sqrt(np.diag(np.linalg.inv(model.posterior_covariance)))
    steps = np.linspace(-4, 4, 81)
    direction = scale / np.sqrt(LATENTS)
    with jax.enable_x64(True):
        places = [model.posterior_mean(x) + step * direction for step in steps]
        elbo = np.array([model.elbo(x, loc, scale) for loc in places])
        kl = np.array([model.kl_to_posterior(x, loc, scale) for loc in places])
    log_evidence = float(model.log_evidence(x))
    figure = plotting.bound_gap(
        steps, elbo, kl, log_evidence, xlabel="mean of q from the posterior's, in standard deviations"
    )
    figure.savefig(out / "linear_gaussian_vae.png", dpi=200)
    return {
        "steps": steps.tolist(),
        "elbo": elbo.tolist(),
        "kl_to_posterior": kl.tolist(),
        "log_evidence": log_evidence,
        "largest_gap": float(np.abs(elbo + kl - log_evidence).max()),
    }


if __name__ == "__main__":
    parser = described_parser(__doc__)
    parser.add_argument("--num-epochs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    main(parser.parse_args())
