"""The same work in NumPyro and in TensorFlow Probability, each in the chunks and on the devices that suit it best."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import Trace_ELBO

from benchmarks.interleaved_timing import fastest
from benchmarks.variance.variance_work import LEAST_LATENT, GradientWork, Peer
from vae_jax.distributions import PositiveNormal
from vae_jax.replicates import stack_replicates

LARGEST_LATENT = 100.0
"""A finite upper end: TensorFlow Probability's truncated normal has no gradient with an infinite one."""

PeerParams = Mapping[str, jax.Array]

LatentDraw = Callable[[PeerParams, jax.Array], Mapping[str, jax.Array]]


def numpyro_peers(work: GradientWork) -> Iterator[Peer]:
    """NumPyro's `Trace_ELBO` with our log joint as a factor, and with a written model."""
    trace_elbo: Any = Trace_ELBO(num_particles=work.num_samples)

    for name, counterpart, model in (
        ("numpyro Trace_ELBO, factor", "pathwise", partial(_factor_model, work)),
        ("numpyro Trace_ELBO, Poisson model", "numpyro_log_joint/pathwise", partial(_poisson_model, work)),
    ):
        bound = partial(_numpyro_bound, trace_elbo, work, model)
        yield _tuned(name, counterpart, partial(_replicate, bound), work, family="PositiveNormal")


def _numpyro_bound(
    trace_elbo: Any, work: GradientWork, model: Callable[[], None], params: Mapping[str, jax.Array], key: jax.Array
) -> Any:
    return -trace_elbo.loss(key, params, model, partial(_guide, work))


def _guide(work: GradientWork) -> None:
    params: dict[str, Any] = {name: numpyro.param(name, value) for name, value in work.params.items()}
    for latent in ("u", "v"):
        numpyro.sample(latent, PositiveNormal(params[f"loc_{latent}"], params[f"scale_{latent}"]))


def _factor_model(work: GradientWork) -> None:
    flat = dist.ImproperUniform(dist.constraints.positive, (), ())
    latents = {latent: numpyro.sample(latent, flat) for latent in ("u", "v")}
    numpyro.factor("log_joint", work.problem.log_joint(latents))


def _poisson_model(work: GradientWork) -> None:
    u: Any = numpyro.sample("u", dist.Gamma(*work.problem.prior_u))
    v: Any = numpyro.sample("v", dist.Gamma(*work.problem.prior_v))
    with numpyro.plate("data", len(work.problem.counts)):
        numpyro.sample("x", dist.Poisson(u * v), obs=jnp.asarray(work.problem.counts))


def tfp_peers(work: GradientWork) -> Iterator[Peer]:
    """TensorFlow Probability's `monte_carlo_variational_loss` by both kinds of gradient and under two families.

    Raises:
        ImportError: it is missing, or cannot be imported with this JAX.
    """
    try:
        tfp: Any = import_module("tensorflow_probability.substrates.jax")
    except AttributeError as error:
        # The stable release reads attributes that JAX has since dropped.
        raise ImportError(str(error)) from error

    families = {
        "Normal": tfp.distributions.Normal,
        "TruncatedNormal": lambda loc, scale: tfp.distributions.TruncatedNormal(loc, scale, 0.0, LARGEST_LATENT),
    }
    estimators = {
        "pathwise": tfp.vi.GradientEstimators.REPARAMETERIZATION,
        "score_function": tfp.vi.GradientEstimators.SCORE_FUNCTION,
    }
    for estimator, family in product(estimators, families):
        bound = partial(_tfp_bound, tfp, work, families[family], estimators[estimator])
        counterpart = f"normal/{estimator}" if family == "Normal" else estimator
        yield _tuned(f"tfp {estimator}, {family}", counterpart, partial(_replicate, bound), work, family=family)


def _tfp_bound(
    tfp: Any, work: GradientWork, family: Callable[..., Any], estimator: Any, params: Mapping[str, Any], key: jax.Array
) -> Any:
    def log_joint(u: Any, v: Any) -> Any:
        positive = {"u": jnp.maximum(u, LEAST_LATENT), "v": jnp.maximum(v, LEAST_LATENT)}
        return work.problem.log_joint(positive)

    q = [family(params[f"loc_{latent}"], params[f"scale_{latent}"]) for latent in ("u", "v")]
    return -tfp.vi.monte_carlo_variational_loss(
        log_joint,
        tfp.distributions.JointDistributionSequential(q),
        sample_size=work.num_samples,
        gradient_estimator=estimator,
        seed=key,
    )


def _replicate(bound: Callable[..., Any], params: PeerParams, key: jax.Array) -> Mapping[str, jax.Array]:
    value, gradient = jax.value_and_grad(bound)(params, key)
    return {"elbo": value, **gradient}


def _tuned(name: str, counterpart: str, draw: LatentDraw, work: GradientWork, *, family: str) -> Peer:
    """A peer in its fastest chunk size, on one device or on all."""

    def program(chunk_size: int, num_devices: int) -> Callable[[], Mapping[str, jax.Array]]:
        # The parameters are arguments, as ours are: constants would be computed with while compiling.
        def run(params: PeerParams, key: jax.Array) -> Mapping[str, jax.Array]:
            mesh = None if num_devices == 1 else work.mesh
            return stack_replicates(partial(draw, params), key, work.num_replicates, chunk_size=chunk_size, mesh=mesh)

        return partial(jax.jit(run), dict(work.params), work.key)

    settings = product(work.chunk_sizes, sorted({1, work.mesh.size}))
    programs = {setting: program(*setting) for setting in settings}
    best, _ = fastest(programs, rounds=2)
    setting = {"family": family, "chunk_size": best[0], "num_devices": best[1]}
    return Peer(name, counterpart, programs[best], work.num_samples, work.num_replicates, setting)
