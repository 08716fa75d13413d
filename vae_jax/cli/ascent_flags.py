"""The stochastic ascent of `fit` and `regress`, as flags."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.options import optional
from vae_jax.settings import (
    AT_LEAST_0,
    AT_LEAST_1,
    AT_LEAST_2,
    FINITE_AND_NOT_NEGATIVE,
    FINITE_AND_POSITIVE,
    documented,
)

if TYPE_CHECKING:
    from vae_jax.inference.fit import Fit

COSINE_PATIENCE = 0
COSINE_TOLERANCE = 0.05


@dataclass(frozen=True)
@documented
class AscentFlags:
    """The stochastic ascent on the ELBO."""

    estimator: str = "pathwise"
    """Gradient estimator; the family must support it. vae-jax variance compares them."""
    num_samples: Annotated[int, AT_LEAST_1] = 64
    """Samples that each step's estimate averages."""
    num_steps: Annotated[int, AT_LEAST_1] = 10_000
    """Largest number of steps, a multiple of --window."""
    learning_rate: Annotated[float, FINITE_AND_POSITIVE] = 0.01
    """Learning rate of Adam."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of the learning rate. The cosine decays to 0 over all steps."""
    window: Annotated[int, AT_LEAST_2] = 1000
    """Steps over which the parameters and the ELBO's history are averaged."""
    patience: Annotated[int | None, AT_LEAST_0, optional("INT")] = None
    """Stop after this many flat windows in a row, whose mean ELBO rises by at most the standard error of the difference
    plus --tolerance. 0 runs all steps. By default 2 with a constant learning rate, and 0 with a cosine."""
    tolerance: Annotated[float | None, FINITE_AND_NOT_NEGATIVE, optional("FLOAT")] = None
    """Largest rise beyond the standard error (nats) that counts as flat, for --patience and in the report of
    convergence. By default 0.01, and 0.05 with a cosine, under which the ELBO rises to the end."""
    num_restarts: Annotated[int, AT_LEAST_1] = 4
    """Fits with different random numbers, run side by side. The best is kept; their spread is reported as
    the error."""

    def stopping(self) -> dict[str, Any]:
        """The settings of the stopping rule, those left to the schedule filled in."""
        from vae_jax.inference.fit import ElboPlateau

        is_constant = self.learning_rate_schedule == "constant"
        patience = ElboPlateau.patience if is_constant else COSINE_PATIENCE
        tolerance = ElboPlateau.tolerance if is_constant else COSINE_TOLERANCE
        return {
            "patience": patience if self.patience is None else self.patience,
            "tolerance": tolerance if self.tolerance is None else self.tolerance,
        }

    def ascend(self, log_joint: Any, family: Any, seed: int) -> "Fit":
        """Fits the family to the log joint, with a progress bar.

        Raises:
            Misuse: an unknown estimator, or what the fit refuses.
        """
        import jax
        import optax

        from vae_jax.cli.progress_bars import shown_progress
        from vae_jax.estimators import estimator_named
        from vae_jax.inference.fit import ElboPlateau, fit

        with refusals_are_misuse():
            estimator = estimator_named(self.estimator)
        rate: Any = self.learning_rate
        if self.learning_rate_schedule == "cosine":
            rate = optax.cosine_decay_schedule(rate, self.num_steps)
        rule = self.stopping()
        with refusals_are_misuse(), shown_progress(f"{self.num_restarts:,} runs of at most {self.num_steps:,} steps"):
            return fit(
                log_joint,
                family,
                jax.random.key(seed),
                optimizer=optax.adam(rate),
                num_steps=self.num_steps,
                num_samples=self.num_samples,
                estimator=estimator,
                num_restarts=self.num_restarts,
                window=self.window,
                stopping=ElboPlateau(**rule) if rule["patience"] else None,
                criterion=ElboPlateau(tolerance=rule["tolerance"]),
            )
