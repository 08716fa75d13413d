"""A normalizing flow as a variational family. It needs the extra `flows`, which is FlowJAX."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.inference.latent_space import LatentSpace, Pushforward
from vae_jax.typing import Distributions, Parameters, PRNGKey


@dataclass(frozen=True, eq=False)
class CouplingFlow:
    """Family of coupling flows: a normal distribution transformed by layers of affine couplings.

    The flow is a joint distribution of all latents, over the vector of their D unconstrained numbers. Each layer moves
    half of the numbers by an affine map. A small network computes its coefficients from the other half. Both draws and
    densities take one pass.

    Args:
        supports: a pytree of `Support`, or of NumPyro's constraints for scalars, that has the structure of a sample.
        num_layers: number of coupling layers.
        width: number of units in the one hidden layer of each network.

    Raises:
        ImportError: the extra `flows` is not installed.
        TypeError: as for `LatentSpace`.
        ValueError: as for `LatentSpace`, or D is below 2, or there is no layer or no unit.

    Example:
        >>> import jax
        >>> from numpyro.distributions import constraints
        >>> from vae_jax.inference import CouplingFlow
        >>> family = CouplingFlow({"rate": constraints.positive, "shift": constraints.real}, num_layers=1, width=8)
        >>> q = family.distribution(family.init(jax.random.key(0)))
        >>> draws = q.sample(jax.random.key(1), (100,))
        >>> bool((draws["rate"] > 0).all()), draws["shift"].shape
        (True, (100,))

    Reference: Dinh, Sohl-Dickstein & Bengio (2017), section 3; Rezende & Mohamed (2015).
    """

    supports: Any
    num_layers: int = 6
    width: int = 32
    space: LatentSpace = field(init=False)
    skeleton: Any = field(init=False)
    """FlowJAX's distribution without its arrays of parameters."""

    def __post_init__(self) -> None:
        _flowjax()
        object.__setattr__(self, "space", LatentSpace(self.supports))
        if self.space.size < 2:
            raise ValueError("a coupling flow must have 2 numbers to couple at least, got 1: use a normal family")
        for name, number in (("num_layers", self.num_layers), ("width", self.width)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}: raise it")
        object.__setattr__(self, "skeleton", self._divided(jax.random.key(0))[1])

    def init(self, key: PRNGKey, /) -> Parameters:
        """Draws random networks, whose flow is close to a standard normal."""
        return self._divided(key)[0]

    def distribution(self, params: Parameters, /) -> Distributions:
        """The joint distribution of all latents at these parameters."""
        return Pushforward(_Flow(params, self), self.space)

    def flow(self, params: Parameters) -> Any:
        """FlowJAX's distribution of the vector [D]."""
        return _flowjax()[1].combine(params, self.skeleton)

    def _divided(self, key: PRNGKey) -> tuple[Any, Any]:
        """The arrays of parameters of a new flow, and what else it is made of: the order of the numbers, say."""
        flowjax, equinox, paramax = _flowjax()
        # FlowJAX adds and compares arrays of different ranks.
        with jax.numpy_rank_promotion("allow"):
            made = flowjax.flows.coupling_flow(
                key,
                base_dist=flowjax.distributions.Normal(jnp.zeros(self.space.size)),
                flow_layers=self.num_layers,
                nn_width=self.width,
                nn_activation=jax.nn.tanh,
                invert=False,
            )
        return equinox.partition(
            made, equinox.is_inexact_array, is_leaf=lambda node: isinstance(node, paramax.NonTrainable)
        )


def _flowjax() -> tuple[Any, Any, Any]:
    try:
        import equinox
        import flowjax.distributions
        import flowjax.flows
        import paramax
    except ImportError as error:
        raise ImportError("CouplingFlow needs FlowJAX: pip install 'vae_jax[flows]'") from error
    return flowjax, equinox, paramax


@jax.tree_util.register_pytree_node_class
class _Flow:
    """FlowJAX's distribution with no leaves but its arrays."""

    batch_shape = ()
    has_rsample = True

    def __init__(self, params: Parameters, family: CouplingFlow) -> None:
        self.params = params
        self.family = family

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return self.family.flow(self.params).sample(key, sample_shape)

    rsample = sample

    def log_prob(self, value: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return self.family.flow(self.params).log_prob(value)

    def entropy(self) -> Any:
        raise NotImplementedError("a flow has no entropy in closed form")

    @property
    def mean(self) -> Any:
        raise NotImplementedError("a flow has no mean in closed form")

    def tree_flatten(self) -> tuple[Any, CouplingFlow]:
        return (self.params,), self.family

    @classmethod
    def tree_unflatten(cls, family: CouplingFlow, children: Any) -> "_Flow":
        return cls(children[0], family)
