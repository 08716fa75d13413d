"""REBAR and RELAX: the score function with a control variate from a continuous relaxation of discrete latents."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.estimators.differentiability import check_differentiable
from vae_jax.estimators.discrete_latents import RelaxableLatent, relaxable_latents, with_logit_gradients
from vae_jax.estimators.gumbel_softmax import WITHOUT_DERIVATIVE, check_temperature, noisy_logits
from vae_jax.estimators.objective_values import times_each, values_at
from vae_jax.typing import Distributions, Latents, Objective, PRNGKey, Scalar

Surrogate: TypeAlias = Callable[[Latents], Any]
"""A function of one relaxed sample that returns a scalar, differentiable in it."""


def rebar(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    scale: float | Scalar = 1.0,
    temperature: float | Scalar = 0.5,
) -> Scalar:
    """REBAR: the relaxed objective as the control variate of the score function.

    Approximates: d/dtheta E_q[f(b)] by the mean of (f(b) - c(z~)) d log q(b)/dtheta + dc(z)/dtheta - dc(z~)/dtheta,
        where c(z) = scale f(relaxed z), b = hard(z), and z~ is drawn given b.
    Needs: Bernoulli or OneHotCategorical latents; an objective differentiable between the outcomes.
    Biased: no, for any scale and temperature. First derivatives only: a second one in q's parameters is refused.

    The noise of z~ is tied to that of z so that z~ = z; the two differ in their paths alone. So the relaxed objective
    is evaluated once.

    Args:
        objective: a function of one sample and `q` that returns a scalar. It sees hard and relaxed samples, floats, and
            `q`, all with no gradient attached.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, the number of samples that are averaged.
        scale: the factor of the control variate. At 0 the estimator is the score function's.
        temperature: the temperature of the relaxation, positive.

    Returns:
        The mean of the objective at hard samples, whose gradient is the estimate.

    Raises:
        TypeError: a latent is continuous, or a Categorical of integers, or the objective uses one without a derivative.
        ValueError: a temperature that is not positive, no samples, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # E[(2 b)^2] = 4 sigmoid(logit)
        ...     q = dist.Bernoulli(logits=logit)
        ...     return vj.rebar(lambda b, q: (2.0 * b) ** 2, q, jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.0, gradient 1.0

    Reference: Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein (2017), section 3; the tied noise is that of the
        authors' program.
    """
    held = distributions.without_gradient(q)
    check_temperature(temperature)
    halves = [latent.relaxed(latent.logits[None], temperature) for latent in relaxable_latents(q, num_samples)]
    check_differentiable(objective, distributions.unflatten(q, halves), held, instead=WITHOUT_DERIVATIVE)
    return relax(
        objective,
        q,
        key,
        num_samples,
        surrogate=lambda relaxed: scale * objective(relaxed, held),
        temperature=temperature,
    )


def no_surrogate(relaxed: Latents) -> Scalar:
    """No control variate: what is left is the score function."""
    return jnp.zeros(())


def relax(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    surrogate: Surrogate = no_surrogate,
    temperature: float | Scalar = 0.5,
) -> Scalar:
    """RELAX: any function of the relaxed sample as the control variate of the score function.

    Approximates: as `rebar`, with c(z) = surrogate(relaxed z).
    Needs: Bernoulli or OneHotCategorical latents; a surrogate differentiable in the relaxed sample. The objective need
        not be.
    Biased: no, for any surrogate and temperature. First derivatives only: a second one in q's parameters is refused.

    Args:
        objective: a function of one sample and `q` that returns a scalar; it sees hard samples, floats, and `q` with no
            gradient attached.
        q, key, num_samples, temperature: as for `rebar`.
        surrogate: a function of one relaxed sample that returns a scalar. The default is zero, which leaves the score
            function. Its own parameters get no gradient here: train them with `surrogate_loss`.

    Returns:
        The mean of the objective at hard samples, whose gradient is the estimate.

    Raises:
        TypeError, ValueError: as for `rebar`; also for a surrogate that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # E[(2 b)^2] = 4 sigmoid(logit)
        ...     def objective(b, q):
        ...         return (2.0 * b) ** 2
        ...     q, key = dist.Bernoulli(logits=logit), jax.random.key(0)
        ...     return vj.relax(objective, q, key, 10_000, surrogate=lambda b: 4.0 * b)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.0, gradient 1.0

    Reference: Grathwohl, Choi, Wu, Roeder & Duvenaud (2018), section 3 and appendix for the categorical case.
    """
    check_temperature(temperature)
    latents = relaxable_latents(q, num_samples)
    values, gradients = _values_and_gradients(objective, q, key, num_samples, latents, surrogate, temperature)
    return with_logit_gradients(values.mean(), latents, [gradient.mean(axis=0) for gradient in gradients])


def surrogate_loss(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    surrogate: Surrogate,
    temperature: float | Scalar = 0.5,
) -> Scalar:
    """Mean squared norm of one-sample `relax` gradients in q's logits, to train the surrogate.

    Minimise it in the surrogate's parameters. The gradient's mean is the same under every surrogate. So the loss is the
    gradient's total variance up to a constant, and its derivative in what `surrogate` closes over is an unbiased
    estimate of the variance's derivative. The norms of the samples' gradients are averaged, not the gradients.

    Args:
        objective, q, key, num_samples, surrogate, temperature: as for `relax`. Only the surrogate's own parameters get
            a gradient: q and the objective are held fixed.

    Returns:
        The loss, a scalar.

    Raises:
        TypeError, ValueError: as for `relax`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> from vae_jax.estimators import surrogate_loss
        >>> q = dist.Bernoulli(logits=0.0)
        >>> @jax.jit
        ... def loss(slope):  # of the surrogate slope * b
        ...     def objective(b, q):
        ...         return 4.0 * b
        ...     return surrogate_loss(objective, q, jax.random.key(0), 1000, surrogate=lambda b: slope * b)
        >>> bool(loss(2.0) < loss(0.0))  # less variance than the score function
        True

    Reference: Grathwohl, Choi, Wu, Roeder & Duvenaud (2018), section 3.
    """
    check_temperature(temperature)
    held = distributions.without_gradient(q)
    latents = relaxable_latents(held, num_samples)
    _, gradients = _values_and_gradients(objective, held, key, num_samples, latents, surrogate, temperature)
    norms = [(gradient**2).sum() for gradient in gradients]
    return jnp.stack(norms).sum() / num_samples


def _values_and_gradients(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    latents: list[RelaxableLatent],
    surrogate: Surrogate,
    temperature: float | Scalar,
) -> tuple[Float[Array, " S"], list[Float[Array, "S ..."]]]:
    """The objective at S hard samples, and each sample's gradient in the logits of every latent."""
    held = distributions.without_gradient(q)
    noisy = lax.stop_gradient(noisy_logits(latents, key, num_samples))
    hard = [latent.hard(z) for latent, z in zip(latents, noisy, strict=True)]
    hard_samples = distributions.unflatten(q, hard)
    values = values_at(objective, hard_samples, held)

    def of_surrogate(sample: Latents, _: Distributions) -> Any:
        return surrogate(sample)

    check_differentiable(of_surrogate, hard_samples, held, instead="a smooth surrogate, or disarm", what="surrogate")

    def controls(noisy: list[Array]) -> Float[Array, " S"]:
        relaxed = [latent.relaxed(z, temperature) for latent, z in zip(latents, noisy, strict=True)]
        return values_at(of_surrogate, distributions.unflatten(q, relaxed), held)

    control, pull_back = jax.vjp(controls, noisy)
    # The samples do not interact: the gradient of the sum holds the gradient of each.
    (slopes,) = pull_back(jnp.ones_like(control))
    advantage = lax.stop_gradient(values) - control
    gradients = []
    for latent, z, b, slope in zip(latents, noisy, hard, slopes, strict=True):
        score_term = times_each(advantage, latent.score(b))
        # dz/dlogits is one along the free path.
        path_term = slope * (1 - latent.conditional_slope(z, b))
        gradients.append(latent.project(score_term + path_term))
    return values, gradients
