"""The same work in PyTorch: vectorised over samples, and one sample at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks.variance.variance_work import LEAST_LATENT, GradientWork, Peer, Replicates

Loss = Callable[..., tuple[Any, Any]]
"""Maps PyTorch, the work, parameters and a shape of samples to the surrogates and the bound's values."""

MEASURED_REPLICATES = 50
"""Replicates that are run: the time of a Python loop over them is proportional to their number."""

LOOP_REPLICATES = 20
LOOP_SAMPLES = 25


def torch_peers(work: GradientWork) -> Iterator[Peer]:
    """Yields both kinds of gradient, vectorised and as a loop over samples.

    Raises:
        ImportError: PyTorch is missing.
    """
    torch: Any = import_module("torch")

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    params = {
        name: torch.tensor(float(value), device=device, requires_grad=True) for name, value in work.params.items()
    }
    num_replicates = min(MEASURED_REPLICATES, work.num_replicates)
    losses = {"pathwise": _pathwise_loss, "score_function": _score_loss}
    setting = {"family": "Normal", "device": device, "num_threads": torch.get_num_threads()}
    for estimator, loss in losses.items():
        replicate = partial(_at_once, torch, loss, work, params, work.num_samples)
        run = partial(_repeated, torch, replicate, num_replicates)
        yield Peer(f"torch {estimator}", f"normal/{estimator}", run, work.num_samples, num_replicates, setting)
    for estimator, loss in losses.items():
        replicate = partial(_by_sample, torch, loss, work, params, LOOP_SAMPLES)
        run = partial(_repeated, torch, replicate, LOOP_REPLICATES)
        name = f"torch {estimator}, loop over samples"
        yield Peer(name, f"normal/{estimator}", run, LOOP_SAMPLES, LOOP_REPLICATES, setting)


def _repeated(torch: Any, replicate: Callable[[], Any], num_replicates: int) -> Replicates:
    gradients = [replicate() for _ in range(num_replicates)]
    return {name: torch.stack([each[name] for each in gradients]).cpu().numpy() for name in gradients[0]}


def _at_once(torch: Any, loss: Loss, work: GradientWork, params: dict[str, Any], num_samples: int) -> dict[str, Any]:
    surrogates, values = loss(torch, work, params, (num_samples,))
    gradients = torch.autograd.grad(surrogates.mean(), list(params.values()))
    return {"elbo": values.detach().mean(), **dict(zip(params, gradients, strict=True))}


def _by_sample(torch: Any, loss: Loss, work: GradientWork, params: dict[str, Any], num_samples: int) -> dict[str, Any]:
    total: dict[str, Any] = dict.fromkeys(("elbo", *params), 0.0)
    for _ in range(num_samples):
        surrogate, value = loss(torch, work, params, ())
        gradients = torch.autograd.grad(surrogate, list(params.values()))
        for name, term in zip(total, (value.detach(), *gradients), strict=True):
            total[name] += term
    return {name: value / num_samples for name, value in total.items()}


def _pathwise_loss(torch: Any, work: GradientWork, params: dict[str, Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    q = _q(torch, params)
    samples = {latent: distribution.rsample(shape) for latent, distribution in q.items()}
    values = _log_joint(torch, work, samples) - _log_density(q, samples)
    return values, values


def _score_loss(torch: Any, work: GradientWork, params: dict[str, Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    q = _q(torch, params)
    samples = {latent: distribution.sample(shape) for latent, distribution in q.items()}
    log_density = _log_density(q, samples)
    values = (_log_joint(torch, work, samples) - log_density).detach()
    return values * log_density, values


def _q(torch: Any, params: dict[str, Any]) -> dict[str, Any]:
    normal = partial(torch.distributions.Normal, validate_args=False)
    return {latent: normal(params[f"loc_{latent}"], params[f"scale_{latent}"]) for latent in ("u", "v")}


def _log_density(q: dict[str, Any], samples: dict[str, Any]) -> Any:
    return q["u"].log_prob(samples["u"]) + q["v"].log_prob(samples["v"])


def _log_joint(torch: Any, work: GradientWork, samples: dict[str, Any]) -> Any:
    """`PoissonGamma.log_joint`, term by term."""
    problem = work.problem
    u, v = (samples[latent].clamp(min=LEAST_LATENT) for latent in ("u", "v"))
    return (
        problem.power_u * torch.log(u)
        + problem.power_v * torch.log(v)
        - problem.prior_u.rate * u
        - problem.prior_v.rate * v
        - len(problem.counts) * u * v
        + problem.log_constant
    )
