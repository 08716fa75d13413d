"""Problems with one latent, whose q is a normal with the parameters loc and scale."""

from collections.abc import Mapping
from typing import Any

import numpyro.distributions as dist

from vae_jax.problems.parameter_checks import check_finite, check_names, check_positive
from vae_jax.typing import Distributions


class NormalLatent:
    """A problem whose q is Normal(loc, scale)."""

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError for missing or unknown names and for values that are no loc and scale."""
        check_names(params, ("loc", "scale"))
        check_finite(params)
        check_positive({"scale": params["scale"]})

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """Normal(loc, scale)."""
        return dist.Normal(params["loc"], params["scale"])
