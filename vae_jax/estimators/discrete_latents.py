"""Discrete latents of q: their logits, their outcomes, and samples made of outcomes."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from vae_jax.distributions import OneHotCategorical, base_distribution, check_latents, named_leaves
from vae_jax.estimators.gradient_terms import with_first_derivative
from vae_jax.typing import Distributions, PRNGKey, Scalar


@dataclass(frozen=True)
class DiscreteLatent(ABC):
    """One leaf of q: independent variables, each with the same number of outcomes."""

    name: str
    logits: Float[Array, "..."]
    """A differentiable function of q's parameters: log odds, or log probabilities [..., K] that add up to one."""
    own_probs: Float[Array, "... K"] | None = None
    """The outcomes' probabilities where these are q's parameters. Unlike the logits they are differentiable at 0 and 1.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the independent variables."""

    @property
    @abstractmethod
    def num_outcomes(self) -> int:
        """Outcomes of each variable."""

    @abstractmethod
    def outcome(self, numbers: Int[Array, "S ..."]) -> Array:
        """Samples as q draws them, from the numbers of the outcomes."""

    @abstractmethod
    def distribution(self, logits: Float[Array, "..."]) -> dist.Distribution:
        """Variables of the same kind with other logits."""

    def first_entry(self) -> dist.Distribution:
        """The first entry along the first axis, in q's own parameters."""
        return self.distribution(self.logits[:1])

    @property
    @abstractmethod
    def log_probs(self) -> Float[Array, "... K"]:
        """Log probabilities of each variable's outcomes (nats)."""

    def log_prob(self, numbers: Int[Array, "S ..."]) -> Float[Array, " S"]:
        """Joint log probability (nats) of outcomes by their numbers."""
        picked = jax.vmap(partial(_pick, self.log_probs))(numbers)
        return picked.reshape(numbers.shape[0], -1).sum(axis=1)

    def prob(self, numbers: Int[Array, "S ..."]) -> Float[Array, " S"]:
        """Joint probability of outcomes by their numbers."""
        if self.own_probs is None:
            return jnp.exp(self.log_prob(numbers))
        picked = jax.vmap(partial(_pick, self.own_probs))(numbers)
        return picked.reshape(numbers.shape[0], -1).prod(axis=1)

    @property
    def num_joint_outcomes(self) -> int:
        """Joint outcomes of all variables."""
        return self.num_outcomes ** math.prod(self.shape)


class RelaxableLatent(DiscreteLatent):
    """A discrete latent that is the hard limit of a continuous one: noise is added to the logits."""

    @abstractmethod
    def noise(self, key: PRNGKey, num_samples: int) -> Float[Array, "S ..."]:
        """Noise which makes `hard(logits + noise)` a sample of q."""

    @abstractmethod
    def relaxed(self, noisy: Float[Array, "S ..."], temperature: Any) -> Float[Array, "S ..."]:
        """Samples inside the support's hull, ever closer to its corners as the temperature falls."""

    @abstractmethod
    def hard(self, noisy: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """The corners: samples as floats."""

    @abstractmethod
    def score(self, hard: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """d log q(hard) / d logits."""

    @abstractmethod
    def conditional_slope(self, noisy: Float[Array, "S ..."], hard: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """d noisy / d logits along the path that keeps `hard` as it is, element by element.

        Given `hard`, the noisy logits are a function of the logits and of noise that is independent of `hard`; this is
        its derivative with that noise held.
        """

    def project(self, gradient: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """A gradient in `logits` as one in q's own logits, which need not be normalised."""
        return gradient


class BernoulliLatent(RelaxableLatent):
    """Bernoulli variables. Their logits are log odds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the independent variables."""
        return self.logits.shape

    @property
    def num_outcomes(self) -> int:
        """False and true."""
        return 2

    @property
    def log_probs(self) -> Float[Array, "... K"]:
        """Through log_sigmoid, whose derivative is correct at a logit of zero, where NumPyro's density has another."""
        return jnp.stack([jax.nn.log_sigmoid(-self.logits), jax.nn.log_sigmoid(self.logits)], axis=-1)

    def outcome(self, numbers: Int[Array, "S ..."]) -> Array:
        """The numbers themselves."""
        return numbers

    def distribution(self, logits: Float[Array, "..."]) -> dist.Distribution:
        """Bernoulli variables with other logits."""
        return dist.Bernoulli(logits=logits).to_event(logits.ndim)

    def first_entry(self) -> dist.Distribution:
        """The first entry, by its probability where that is q's parameter."""
        if self.own_probs is None:
            return super().first_entry()
        return dist.Bernoulli(probs=self.own_probs[:1, ..., 1]).to_event(self.logits.ndim)

    def noise(self, key: PRNGKey, num_samples: int) -> Float[Array, "S ..."]:
        """Logistic noise."""
        return jax.random.logistic(key, (num_samples, *self.shape), self.logits.dtype)

    def relaxed(self, noisy: Float[Array, "S ..."], temperature: Any) -> Float[Array, "S ..."]:
        """Binary concrete variables."""
        return jax.nn.sigmoid(noisy / temperature)

    def hard(self, noisy: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """1 where the noisy logit is positive."""
        return (noisy > 0).astype(noisy.dtype)

    def score(self, hard: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """The outcome less its probability."""
        return hard - jax.nn.sigmoid(self.logits)[None]

    def conditional_slope(self, noisy: Float[Array, "S ..."], hard: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """(1 - exp(-|z|)) q(hard), of z = softplus(logit v + softplus(logit)) where hard is 1, mirrored at 0."""
        prob = jax.nn.sigmoid(self.logits)[None]
        return -jnp.expm1(-jnp.abs(noisy)) * (hard * prob + (1 - hard) * (1 - prob))


class _LogProbabilityLatent(DiscreteLatent):
    """Categorical variables of any form: their logits are log probabilities."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the independent variables."""
        return self.logits.shape[:-1]

    @property
    def num_outcomes(self) -> int:
        """The categories."""
        return self.logits.shape[-1]

    @property
    def log_probs(self) -> Float[Array, "... K"]:
        """The logits themselves."""
        return self.logits


class OneHotLatent(_LogProbabilityLatent, RelaxableLatent):
    """Categorical variables whose outcomes are one-hot vectors."""

    def outcome(self, numbers: Int[Array, "S ..."]) -> Array:
        """One-hot vectors of floats."""
        return jax.nn.one_hot(numbers, self.num_outcomes, dtype=self.logits.dtype)

    def distribution(self, logits: Float[Array, "..."]) -> dist.Distribution:
        """One-hot categorical variables with other logits."""
        return OneHotCategorical(logits).to_event(logits.ndim - 1)

    def noise(self, key: PRNGKey, num_samples: int) -> Float[Array, "S ..."]:
        """Gumbel noise."""
        return jax.random.gumbel(key, (num_samples, *self.logits.shape), self.logits.dtype)

    def relaxed(self, noisy: Float[Array, "S ..."], temperature: Any) -> Float[Array, "S ..."]:
        """Concrete (Gumbel-softmax) variables."""
        return jax.nn.softmax(noisy / temperature)

    def hard(self, noisy: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """1 at the largest noisy logit."""
        return self.outcome(noisy.argmax(axis=-1))

    def score(self, hard: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """The outcome less its probabilities."""
        return hard - jnp.exp(self.logits)[None]

    def conditional_slope(self, noisy: Float[Array, "S ..."], hard: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """1 - exp(z - max z), of z_max = -log(-log v_max) and other z_i = -log(-log(v_i) / p_i - log v_max)."""
        return -jnp.expm1(noisy - noisy.max(axis=-1, keepdims=True))

    def project(self, gradient: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
        """Through the normalisation of the logits."""
        return gradient - jnp.exp(self.logits)[None] * gradient.sum(axis=-1, keepdims=True)


class CategoricalLatent(_LogProbabilityLatent):
    """Categorical variables whose outcomes are integers."""

    def outcome(self, numbers: Int[Array, "S ..."]) -> Array:
        """The numbers themselves."""
        return numbers

    def distribution(self, logits: Float[Array, "..."]) -> dist.Distribution:
        """Categorical variables with other logits."""
        return dist.CategoricalLogits(logits).to_event(logits.ndim - 1)

    def first_entry(self) -> dist.Distribution:
        """The first entry, by its probabilities where these are q's parameters."""
        if self.own_probs is None:
            return super().first_entry()
        return dist.CategoricalProbs(self.own_probs[:1]).to_event(self.logits.ndim - 1)


def discrete_latents(q: Distributions, num_samples: int = 1) -> list[DiscreteLatent]:
    """The leaves of q in their order.

    Raises:
        TypeError: one of them is continuous, or has no list of outcomes.
        ValueError: one has a batch shape, or there is none, or fewer than one sample.
    """
    check_latents(q, num_samples)
    return [_latent(name, leaf) for name, leaf in named_leaves(q)]


def relaxable_latents(q: Distributions, num_samples: int = 1) -> list[RelaxableLatent]:
    """The leaves of q in their order, each of which can be relaxed.

    Raises:
        TypeError: as `discrete_latents`, or one is a Categorical.
        ValueError: as `discrete_latents`.
    """
    latents = discrete_latents(q, num_samples)
    for latent in latents:
        if not isinstance(latent, RelaxableLatent):
            raise TypeError(
                f"{latent.name} must have samples that can be relaxed, got a Categorical of integers: use "
                "vae_jax.OneHotCategorical"
            )
    return [latent for latent in latents if isinstance(latent, RelaxableLatent)]


def bernoulli_latents(q: Distributions, num_samples: int = 1) -> list[BernoulliLatent]:
    """The leaves of q in their order, each of which is Bernoulli.

    Raises:
        TypeError: as `discrete_latents`, or one is categorical.
        ValueError: as `discrete_latents`.
    """
    latents = discrete_latents(q, num_samples)
    for latent in latents:
        if not isinstance(latent, BernoulliLatent):
            raise TypeError(f"{latent.name} must be a Bernoulli, got a categorical latent: use categorical_disarm")
    return [latent for latent in latents if isinstance(latent, BernoulliLatent)]


def is_discrete_latent(leaf: Any) -> bool:
    """Whether a distribution is one of those that `discrete_latents` describes."""
    return isinstance(base_distribution(leaf), _KINDS)


def with_logit_gradients(value: Scalar, latents: list[Any], gradients: list[Any]) -> Scalar:
    """`value`, with gradients in the latents' logits added to its own at first order."""
    return with_first_derivative(value, gradients, [latent.logits for latent in latents])


_BERNOULLI = (dist.BernoulliLogits, dist.BernoulliProbs)
_CATEGORICAL = (dist.CategoricalLogits, dist.CategoricalProbs)
_KINDS = (*_BERNOULLI, *_CATEGORICAL, OneHotCategorical)


def _pick(log_probs: Float[Array, "... K"], numbers: Int[Array, "..."]) -> Float[Array, "..."]:
    return jnp.take_along_axis(log_probs, numbers[..., None], axis=-1)[..., 0]


def _latent(name: str, leaf: Any) -> DiscreteLatent:
    base = base_distribution(leaf)
    if isinstance(base, _BERNOULLI):
        probs = jnp.broadcast_to(_floats(base.probs), leaf.event_shape)
        own_probs = jnp.stack([1 - probs, probs], axis=-1) if isinstance(base, dist.BernoulliProbs) else None
        return BernoulliLatent(name, jnp.broadcast_to(_floats(base.logits), leaf.event_shape), own_probs)
    if isinstance(base, (*_CATEGORICAL, OneHotCategorical)):
        log_probs = jax.nn.log_softmax(_floats(base.logits))
        if isinstance(base, OneHotCategorical):
            return OneHotLatent(name, jnp.broadcast_to(log_probs, leaf.event_shape))
        shape = (*leaf.event_shape, log_probs.shape[-1])
        own_probs = None
        if isinstance(base, dist.CategoricalProbs):
            probs = _floats(base.probs)
            own_probs = jnp.broadcast_to(probs / probs.sum(axis=-1, keepdims=True), shape)
        return CategoricalLatent(name, jnp.broadcast_to(log_probs, shape), own_probs)
    if getattr(base, "is_discrete", False):
        reason, remedy = "which has no finite list of outcomes here", "use score_function"
    else:
        reason, remedy = "which is continuous", "use pathwise or score_function"
    raise TypeError(
        f"{name} must be a Bernoulli, Categorical or OneHotCategorical, got a {type(base).__name__}, {reason}: {remedy}"
    )


def _floats(logits: Any) -> Array:
    return jnp.asarray(logits, jnp.result_type(logits, float))
