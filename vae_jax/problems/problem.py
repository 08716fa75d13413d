"""What every problem with exact answers offers."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from vae_jax.problems.exact_moments import MomentsByParameter
from vae_jax.typing import Distributions, Estimator, Latents, PRNGKey, Scalar


@runtime_checkable
class Problem(Protocol):
    """An expectation under a distribution, as a stochastic loss of its parameters, and the truth of it."""

    @property
    def name(self) -> str: ...

    @property
    def value_name(self) -> str:
        """What the expectation is called in tables: "elbo" or "cost"."""
        ...

    @property
    def default_params(self) -> dict[str, Any]:
        """Of q: a number, or a tuple of numbers, by name."""
        ...

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError for parameters that the problem is not defined at."""
        ...

    def q(self, params: Mapping[str, Any]) -> Distributions: ...

    def objective(self, latents: Latents, q: Distributions) -> Scalar: ...

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """An estimate of the expectation, whose gradient is the estimator's."""
        ...

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the value and of the gradient under an estimator, by its name in `ESTIMATORS`.

        A vector parameter has one entry for each element, named "logits[0]" and so on. What is not known is said to be
        unknown; means are known under every unbiased estimator.
        """
        ...
