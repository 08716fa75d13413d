"""The joint density of the Poisson-Gamma model through the sums of its data."""

from typing import Any, NamedTuple


class PoissonGammaDensity(NamedTuple):
    """log p(x, u, v) = power_u log u + power_v log v - rate_u u - rate_v v - num_counts u v + log_constant (nats)."""

    power_u: float
    """The sum of the counts and the prior's concentration, less one."""
    power_v: float
    rate_u: float
    rate_v: float
    num_counts: int
    log_constant: float
    """The part that depends on neither latent."""

    def log_joint(self, u: Any, v: Any, log_u: Any, log_v: Any) -> Any:
        """The log of the density, for latents of NumPy or JAX and their logarithms."""
        return (
            self.power_u * log_u
            + self.power_v * log_v
            - self.rate_u * u
            - self.rate_v * v
            - self.num_counts * u * v
            + self.log_constant
        )

    def power(self, latent: str) -> float:
        """The power of "u" or "v"."""
        return self.power_u if latent == "u" else self.power_v

    def rate(self, latent: str) -> float:
        """The rate of the prior of "u" or "v"."""
        return self.rate_u if latent == "u" else self.rate_v
