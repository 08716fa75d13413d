"""The losses of reweighted wake-sleep, where model and inference network have objectives of their own.

Each is minimised, and gives a gradient to its own parameters alone, so that their sum trains both. Latents may be
discrete.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from vae_jax import distributions
from vae_jax.bounds.log_weights import carried_log_weight, log_mean_exp
from vae_jax.carried_draws import source_of
from vae_jax.estimators.objective_values import values_at
from vae_jax.typing import Distributions, Latents, LogDensity, PRNGKey, Scalar


def wake_model_loss(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """Minus the importance-weighted bound (nats), to train the model: the wake phase of theta.

    Approximates: the gradient of -E[log 1/K sum_k w_k] in the model's parameters by minus the sum of
        w~_k d log p(x, z_k), w~ the normalised weights.
    Needs: a log joint differentiable in the model's parameters. q's get no gradient.
    Biased: no, as a gradient of the bound. As one of -log p(x), by O(1/K).

    Args:
        log_joint: a function of one sample that returns log p(x, z), normalised in x and z, that closes over the
            model's parameters.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed. The same key in `wake_inference_loss` gives the same samples.
        num_samples: K.

    Returns:
        The loss, a scalar (nats).

    Raises:
        TypeError: a leaf of `q` is not a distribution.
        ValueError: no samples, a batch shape, or a log joint that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def loss(mean):  # z ~ Normal(mean, 1), x ~ Normal(z, 1), x = 1.5; q is the posterior at a mean of 0
        ...     def log_joint(z):
        ...         return dist.Normal(mean, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.5)
        ...     return vj.wake_model_loss(log_joint, dist.Normal(0.75, 0.5**0.5), jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(loss))(0.0)  # -log p(x) = 1.828, whose gradient is -0.75
        >>> print(f"{value:.3f}, gradient {gradient:.1f}")
        1.828, gradient -0.7

    Reference: Bornschein & Bengio (2015), eq. 7; Le, Kosiorek, Siddharth, Teh & Wood (2019), section 3.1.
    """
    weight, base = carried_log_weight(log_joint, q)
    draws = distributions.sample(base, key, num_samples)
    return -log_mean_exp(values_at(weight, draws, distributions.without_gradient(base)))


def wake_inference_loss(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """Cross-entropy of q to the reweighted samples (nats), to train q: the wake phase of phi.

    Approximates: the gradient of E_p(z|x)[-log q(z)], that of the divergence KL(p(z|x) || q), by minus the sum of
        w~_k d log q(z_k), w~ the normalised weights.
    Needs: a density differentiable in its parameters. The model's get no gradient.
    Biased: yes, by O(1/K): the weights are normalised by their own sum. Consistent as K grows. At K = 1 the mean is
        zero, so q does not learn. Derivatives of any order in q's parameters are biased to the same order in K.

    Arguments and errors as for `wake_model_loss`.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)  # the posterior is Normal(0.75, 0.71)
        >>> def loss(loc):
        ...     q = problem.q({"loc": loc, "scale": 1.0})
        ...     return vj.wake_inference_loss(problem.log_joint, q, jax.random.key(0), 10_000)
        >>> print(f"{jax.jit(jax.grad(loss))(0.25):.1f}")  # (loc - 0.75) / scale^2
        -0.5

    Reference: Bornschein & Bengio (2015), eq. 9; Le, Kosiorek, Siddharth, Teh & Wood (2019), section 3.3.
    """
    weight, base = carried_log_weight(log_joint, q)
    draws = distributions.sample(base, key, num_samples)
    weights = lax.stop_gradient(jax.nn.softmax(values_at(weight, draws, base)))
    _, log_determinants = jax.vmap(source_of(q).carry)(draws)
    # Not a product of vectors, which accelerators round to fewer digits.
    return -(weights * (distributions.log_probs(base, draws) - log_determinants)).sum()


def sleep_loss(
    sample_joint: Callable[[PRNGKey], tuple[Latents, Any]],
    inference: Callable[[Any], Distributions],
    key: PRNGKey,
    num_samples: int,
) -> Scalar:
    """Cross-entropy of q to the model's own latents (nats), to train q: the sleep phase of phi.

    Approximates: the gradient of E_p(z,x)[-log q(z | x)] by the mean of -d log q(z | x) over draws of the model.
    Needs: a model that can be sampled. Its parameters get no gradient.
    Biased: no. It fits q to data that the model generates, not to those observed.

    Args:
        sample_joint: a function of a key that returns one draw (z, x) of the model.
        inference: a function of x that returns the distribution q(z | x), or a pytree of independent ones.
        key: consumed; each draw has a split of its own.
        num_samples: the number of draws that are averaged.

    Returns:
        The loss, a scalar (nats).

    Raises:
        ValueError: no draws, or a density that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def sample_joint(key):  # z ~ Normal(0, 1), x ~ Normal(z, 1)
        ...     z, noise = jax.random.normal(key, (2,))
        ...     return z, z + noise
        >>> def loss(slope):  # q(z | x) = Normal(slope x, 1): the posterior has a slope of 1/2
        ...     return vj.sleep_loss(sample_joint, lambda x: dist.Normal(slope * x, 1.0), jax.random.key(0), 10_000)
        >>> print(f"{jax.jit(jax.grad(loss))(1.0):.1f}")  # 2 slope - 1
        1.0

    Reference: Hinton, Dayan, Frey & Neal (1995); Bornschein & Bengio (2015), section 2.3.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}: raise it")
    draws = lax.stop_gradient(jax.vmap(sample_joint)(jax.random.split(key, num_samples)))

    def log_density(draw: tuple[Latents, Any], _: Distributions) -> Any:
        latents, data = draw
        return distributions.log_prob(inference(data), latents)

    return -values_at(log_density, draws, ()).mean()
