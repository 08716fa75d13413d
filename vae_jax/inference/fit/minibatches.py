"""A log joint whose likelihood is a sum over examples, and its unbiased estimate from a few of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.inference.log_density import as_partial
from vae_jax.typing import Latents, LogDensity, PRNGKey, Scalar


@jax.tree_util.register_pytree_node_class
class Minibatched:
    """Log joint log p(z) + sum_n log p(x_n | z), estimated at each step of `fit` from B of the N examples.

    The estimate is log p(z) plus N/B times the sum over a batch. The batch is drawn uniformly with replacement, so that
    the log joint and its gradient are unbiased at every step. With B = N the batch is the data themselves.

    Args:
        log_prior: maps one sample to log p(z) (nats, scalar).
        log_likelihood: maps one sample and one example to log p(x_n | z) (nats, scalar). It is vmapped over examples.
        data: pytree of arrays [N, ...].
        batch_size: B, the number of examples in a batch.

    Raises:
        ValueError: there are no data, the arrays differ in length, or the batch is empty or larger than the data.

    Example:
        The estimate from a batch of 2 of the 4 observations is right on average:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference import Minibatched
        >>> data = jnp.array([-1.0, 0.0, 1.0, 2.0])
        >>> target = Minibatched(Normal(0, 1).log_prob, lambda z, x: Normal(z, 1).log_prob(x), data, batch_size=2)
        >>> keys = jax.random.split(jax.random.key(0), 10_000)
        >>> estimates = jax.jit(jax.vmap(lambda key: target.of_batch(key)(0.5)))(keys)
        >>> bool(abs(estimates.mean() - target(0.5)) < 0.1)
        True
    """

    def __init__(
        self, log_prior: LogDensity, log_likelihood: Callable[[Latents, Any], Any], data: Any, *, batch_size: int
    ) -> None:
        lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
        if len(lengths) != 1 or lengths & {(), (0,)}:
            raise ValueError(
                f"data must be arrays of one length, with an example a row, got lengths {sorted(lengths)}: match them"
            )
        ((length,),) = lengths
        if not 1 <= batch_size <= length:
            raise ValueError(f"batch_size must be from 1 to the {length} examples, got {batch_size}: change it")
        self.log_prior, self.log_likelihood = as_partial(log_prior), as_partial(log_likelihood)
        self.data = jax.tree.map(jnp.asarray, data)
        self.batch_size = batch_size

    @property
    def num_examples(self) -> int:
        """N, the number of examples."""
        return jax.tree.leaves(self.data)[0].shape[0]

    def __call__(self, sample: Latents) -> Scalar:
        """The log joint of all data (nats)."""
        return self._log_joint(sample, self.data, self.num_examples)

    def of_batch(self, key: PRNGKey) -> LogDensity:
        """Draws a batch, and returns the estimate of the log joint (nats) from it as a function of a sample."""
        if self.batch_size == self.num_examples:
            return self
        numbers = jax.random.randint(key, (self.batch_size,), 0, self.num_examples)
        batch = jax.tree.map(lambda leaf: leaf[numbers], self.data)
        return lambda sample: self._log_joint(sample, batch, self.batch_size)

    def _log_joint(self, sample: Latents, examples: Any, number: int) -> Scalar:
        likelihoods = jax.vmap(self.log_likelihood, in_axes=(None, 0))(sample, examples)
        if jnp.shape(likelihoods) != (number,):
            raise ValueError(
                f"log_likelihood must return a scalar for one example, got shape {jnp.shape(likelihoods)[1:]}: sum it"
            )
        return self.log_prior(sample) + self.num_examples / number * likelihoods.sum()

    def tree_flatten(self) -> tuple[Any, int]:
        return (self.log_prior, self.log_likelihood, self.data), self.batch_size

    @classmethod
    def tree_unflatten(cls, batch_size: int, children: Any) -> "Minibatched":
        # Not checked again: JAX puts other things than arrays in their places.
        made = object.__new__(cls)
        made.log_prior, made.log_likelihood, made.data = children
        made.batch_size = batch_size
        return made
