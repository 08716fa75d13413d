"""The protocol of problems with exact answers, and what expected costs and evidence lower bounds share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from vae_jax.bounds.log_weights import log_weight
from vae_jax.problems.exact_moments import MomentsByParameter
from vae_jax.typing import Distributions, Estimator, Latents, PRNGKey, Scalar


@runtime_checkable
class Problem(Protocol):
    """Interface of problems: an expectation as a stochastic loss of q's parameters, with its exact moments.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.PROBLEMS["square"]()
        >>> isinstance(problem, vj.problems.Problem), problem.name, problem.default_params
        (True, 'square', {'loc': 1.0, 'scale': 1.0})
        >>> gradient = jax.grad(problem.estimate)(problem.default_params, jax.random.key(0), 4, estimator=vj.pathwise)
        >>> sorted(gradient)
        ['loc', 'scale']
    """

    @property
    def name(self) -> str: ...

    @property
    def value_name(self) -> str:
        """The expectation's name in tables: "elbo" or "cost"."""
        ...

    @property
    def default_params(self) -> dict[str, Any]:
        """The parameters of q by name, each a number or a tuple of numbers."""
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

        A vector parameter has one entry for each element, named "logits[0]" and so on. The status of unknown moments
        is "unknown"; means are known under every unbiased estimator.
        """
        ...


class ExpectedCost(ABC):
    """E_q[cost] as a stochastic loss of q's parameters."""

    value_name: ClassVar[str] = "cost"

    @abstractmethod
    def q(self, params: Mapping[str, Any]) -> Distributions:
        """The distribution of the latents."""

    @abstractmethod
    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """The cost of one sample."""

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """An estimate of the expected cost, whose gradient is the estimator's."""
        return estimator(self.objective, self.q(params), key, num_samples)


class EvidenceLowerBound(ABC):
    """E_q[log p(x, z) - log q(z)] (nats) as a stochastic loss of q's parameters."""

    value_name: ClassVar[str] = "elbo"

    @abstractmethod
    def q(self, params: Mapping[str, Any]) -> Distributions:
        """The variational distribution."""

    @abstractmethod
    def log_joint(self, latents: Latents) -> Scalar:
        """log p(x, z) (nats)."""

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """log p(x, z) - log q(z) (nats)."""
        return log_weight(self.log_joint)(latents, q)

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """An estimate of the evidence lower bound of `q(params)`, whose gradient is the estimator's."""
        return estimator(self.objective, self.q(params), key, num_samples)
