"""Poisson counts whose rate is the product of two Gamma latents, under a mean-field family of two factors."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vae_jax.distributions import LOWEST_LOC, LocationScalePositiveNormal, PositiveNormal
from vae_jax.problems.exact_moments import MomentsByParameter
from vae_jax.problems.parameter_checks import check_finite, check_names
from vae_jax.problems.poisson_gamma.poisson_gamma_density import PoissonGammaDensity
from vae_jax.problems.poisson_gamma.poisson_gamma_moments import NODES, exact_moments
from vae_jax.problems.problem import EvidenceLowerBound
from vae_jax.typing import Distributions, Latents, Scalar

PUBLISHED_COUNTS = (3, 4, 3, 9, 10, 3, 2, 3, 3, 2)

PUBLISHED_PARAMS = {"loc_u": 5.0, "scale_u": 0.5, "loc_v": 1.0, "scale_v": 0.2}

LARGEST_COUNT = 10**9

RESOLVED_STEPS = 1_000
"""Representable numbers that a scale must span at loc: fewer, and rounding shapes the draws."""


class GammaPrior(NamedTuple):
    """A Gamma prior, whose mean is concentration / rate.

    Example:
        >>> import vae_jax as vj
        >>> prior = vj.problems.GammaPrior(concentration=2.0, rate=1.0)
        >>> vj.problems.PoissonGamma(counts=[3, 4], prior_u=prior).power_u  # 3 + 4 + 2 - 1
        8.0
    """

    concentration: float
    rate: float


PUBLISHED_PRIOR_U = GammaPrior(5.0, 1.0)
PUBLISHED_PRIOR_V = GammaPrior(4.0, 4.0)


@dataclass(frozen=True)
class PoissonGamma(EvidenceLowerBound):
    """Poisson counts x_i ~ Poisson(u v) with u ~ Gamma(5, rate 1), v ~ Gamma(4, rate 4) and q(u, v) = q(u) q(v).

    The parameters are a dict with the keys loc_u, scale_u, loc_v and scale_v. Under the "normal" family q(u) and q(v)
    are normals given that they are positive (`vae_jax.distributions.PositiveNormal`): a plain normal puts mass below
    zero, where the model has no density. Under the "log_normal" family the parameters are the loc and scale of log u
    and log v. "location_scale_normal" has the draws of "normal" and a biased path
    (`vae_jax.distributions.LocationScalePositiveNormal`).

    Args:
        counts: the data, natural numbers.
        prior_u, prior_v: the priors of u and v.
        family: the family of q(u) and q(v), "normal", "log_normal" or "location_scale_normal".

    Raises:
        ValueError: no counts, a count that is not a natural number, a prior that is not positive, or an unknown family.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.PoissonGamma(counts=[3, 4, 5])
        >>> params = problem.default_params
        >>> elbo = jax.jit(lambda key: problem.estimate(params, key, 10_000, estimator=vj.pathwise))(jax.random.key(0))
        >>> exact = problem.exact(params, "pathwise")(10_000)["elbo"]
        >>> abs(float(elbo) - exact.mean.value) < 5 * exact.std.value
        True
    """

    counts: Sequence[int | float] | np.ndarray = PUBLISHED_COUNTS
    prior_u: GammaPrior = PUBLISHED_PRIOR_U
    prior_v: GammaPrior = PUBLISHED_PRIOR_V
    family: str = "normal"

    name: ClassVar[str] = "poisson-gamma"
    families: ClassVar[Mapping[str, Callable[[Any, Any], Any]]] = {
        "normal": PositiveNormal,
        "log_normal": dist.LogNormal,
        "location_scale_normal": LocationScalePositiveNormal,
    }

    def __post_init__(self) -> None:
        if len(self.counts) == 0:
            raise ValueError("counts must have at least one value, got none: give some, or leave them out")
        for number, count in enumerate(self.counts, start=1):
            if not (0 <= count <= LARGEST_COUNT and float(count).is_integer()):
                raise ValueError(
                    f"counts must be integers from 0 to {LARGEST_COUNT:,}, got {count} as value {number}: fix the data"
                )
        for name, prior in (("prior_u", self.prior_u), ("prior_v", self.prior_v)):
            for field, value in zip(GammaPrior._fields, prior, strict=True):
                if not 0 < value < math.inf:
                    raise ValueError(f"{name} must have a positive, finite {field}, got {value}: change it")
        # Any sequences are taken, and kept as what can be hashed.
        object.__setattr__(self, "counts", tuple(int(count) for count in self.counts))
        object.__setattr__(self, "prior_u", GammaPrior(*self.prior_u))
        object.__setattr__(self, "prior_v", GammaPrior(*self.prior_v))
        if self.family not in self.families:
            raise ValueError(f"family must be one of {', '.join(self.families)}, got {self.family}")

    @property
    def power_u(self) -> float:
        """The power of u in the joint density: the sum of the counts and the prior's concentration, less one."""
        return sum(self.counts) + self.prior_u.concentration - 1

    @property
    def power_v(self) -> float:
        """The power of v in the joint density."""
        return sum(self.counts) + self.prior_v.concentration - 1

    @property
    def log_constant(self) -> float:
        """The part of the log joint density that depends on neither latent (nats)."""
        priors = (self.prior_u, self.prior_v)
        return sum(p.concentration * math.log(p.rate) - math.lgamma(p.concentration) for p in priors) - sum(
            math.lgamma(count + 1) for count in self.counts
        )

    @property
    def density(self) -> PoissonGammaDensity:
        """All that the joint density depends on."""
        return PoissonGammaDensity(
            self.power_u, self.power_v, self.prior_u.rate, self.prior_v.rate, len(self.counts), self.log_constant
        )

    @property
    def default_params(self) -> dict[str, float]:
        """The published q(u) = Normal(5, 0.5), q(v) = Normal(1, 0.2), or the log-normals of equal mean and variance."""
        if self.family != "log_normal":
            return dict(PUBLISHED_PARAMS)
        params = {}
        for latent in ("u", "v"):
            mean, std = PUBLISHED_PARAMS[f"loc_{latent}"], PUBLISHED_PARAMS[f"scale_{latent}"]
            squared_scale = math.log1p((std / mean) ** 2)
            params[f"loc_{latent}"] = math.log(mean) - squared_scale / 2
            params[f"scale_{latent}"] = math.sqrt(squared_scale)
        return params

    def check_params(self, params: Mapping[str, float]) -> None:
        """Raises ValueError for missing or unknown names, and for values that the family or the precision refuses."""
        check_names(params, PUBLISHED_PARAMS)
        check_finite(params)
        precision = jnp.finfo(jnp.result_type(float))
        for latent in ("u", "v"):
            loc, scale = params[f"loc_{latent}"], params[f"scale_{latent}"]
            if scale <= 0:
                raise ValueError(f"scale_{latent} must be positive, got {scale}: raise it")
            if scale < RESOLVED_STEPS * precision.eps * abs(loc):
                raise ValueError(
                    f"scale_{latent} must be at least {RESOLVED_STEPS * precision.eps:.1g} of loc_{latent} in "
                    f"{precision.dtype}, got {scale}: raise it, or use float64"
                )
            if self.family != "log_normal" and loc < LOWEST_LOC * scale:
                raise ValueError(
                    f"loc_{latent} must be at least {LOWEST_LOC:g} scale_{latent} = {LOWEST_LOC * scale:g} for a "
                    f"normal truncated at zero, got {loc}: raise it, or use the log_normal family"
                )

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """The mean-field family at `params`: independent distributions of u and v."""
        distribution = self.families[self.family]
        return {latent: distribution(params[f"loc_{latent}"], params[f"scale_{latent}"]) for latent in ("u", "v")}

    def log_joint(self, latents: Latents) -> Scalar:
        """log p(x, u, v) in nats, through the sum and the number of the counts: two logarithms a sample."""
        u, v = latents["u"], latents["v"]
        return self.density.log_joint(u, v, jnp.log(u), jnp.log(v))

    def exact(self, params: Mapping[str, float], estimator: str) -> MomentsByParameter:
        """The exact moments of the ELBO and its gradient; see `poisson_gamma_moments.exact_moments`.

        Raises:
            ValueError: invalid parameters; later, fewer samples than the estimator needs.
        """
        self.check_params(params)
        return exact_moments(self.density, params, estimator, NODES[self.family])
