"""When the rise of a noisy ELBO is over, as far as its noise lets one see."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vae_jax.typing import Scalar


class WindowMean(NamedTuple):
    """The mean of the ELBO's estimates in a window of steps, and its standard error (nats)."""

    mean: Scalar
    mean_se: Scalar


def window_mean(elbos: Float[Array, " W"]) -> WindowMean:
    """The mean of the ELBO's estimates at W steps in a row.

    The noise is measured by the differences of neighbours, half the mean square of which is its variance. So a trend,
    which moves neighbours alike, does not pass for noise.

    Reference: von Neumann, Kent, Bellinson & Hart (1941).
    """
    variance = jnp.mean(jnp.diff(elbos) ** 2) / 2
    return WindowMean(elbos.mean(), jnp.sqrt(variance / elbos.shape[0]))


@dataclass(frozen=True)
class ElboPlateau:
    """Rule that stops a fit once the ELBO no longer rises by more than its noise.

    Steps are grouped into windows. A window is flat if its mean exceeds the mean of the window before by at most
    `num_errors` standard errors of the difference plus `tolerance` nats. The rise is over after `patience` flat windows
    in a row.

    Once the ELBO is level, a window is flat with probability 0.84 at one standard error. An ELBO that still rises by 3
    standard errors a window is taken for level twice in a row with probability 0.0005 (without a tolerance). A slower
    rise cannot be seen: use longer windows, or more samples a step.

    Args:
        num_errors: number of standard errors of the difference between two windows' means.
        tolerance: largest rise a window (nats) that is not worth more steps.
        patience: number of flat windows in a row.

    Raises:
        ValueError: an argument is out of range.

    Example:
        A rise of 0.1 nats is not visible where each of the two means has a standard error of 0.1 nats:

        >>> import jax.numpy as jnp
        >>> from vae_jax.inference import ElboPlateau
        >>> from vae_jax.inference.fit.elbo_plateau import WindowMean
        >>> before, now = (WindowMean(jnp.asarray(mean), jnp.asarray(0.1)) for mean in (-5.0, -4.9))
        >>> bool(ElboPlateau().flat(before, now)), bool(ElboPlateau(num_errors=0.0).flat(before, now))
        (True, False)
    """

    num_errors: float = 1.0
    tolerance: float = 0.01
    patience: int = 2

    def __post_init__(self) -> None:
        for name, value in (("num_errors", self.num_errors), ("tolerance", self.tolerance)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, got {value}: change it")
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}: raise it")

    def flat(self, before: WindowMean, now: WindowMean) -> Bool[Array, ""]:
        """Whether the ELBO has not risen visibly from one window to the next."""
        rise, error = rise_of(before, now)
        rounding = 8 * jnp.finfo(now.mean.dtype).eps * jnp.abs(now.mean)
        return rise <= self.num_errors * error + self.tolerance + rounding

    def is_over(self, num_flat: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether this number of flat windows in a row ends the fit."""
        return num_flat >= self.patience


def rise_of(before: WindowMean, now: WindowMean) -> tuple[Scalar, Scalar]:
    """The rise of the mean (nats) and its standard error."""
    return now.mean - before.mean, jnp.hypot(now.mean_se, before.mean_se)
