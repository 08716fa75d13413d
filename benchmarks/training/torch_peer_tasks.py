"""Tasks of PyTorch, trained as an expert would: images in memory, no loader, all threads."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import jax

from benchmarks.training.training_work import HIDDEN_SIZE, LATENT_SIZE, LEARNING_RATE, Task, TrainingWork
from vae_jax.vae.config.experiment import Precision

torch: Any = import_module("torch")
functional: Any = import_module("torch.nn.functional")

WHITE = 255

DEVICE = "cuda" if jax.default_backend() == "gpu" else "cpu"
"""A PyTorch that cannot use the device that JAX uses fails on its first tensor."""


class TorchVAE(torch.nn.Module):
    """784-256-50 and back, with PyTorch's initial values."""

    def __init__(self, num_pixels: int) -> None:
        super().__init__()
        linear = torch.nn.Linear
        self.encoder = linear(num_pixels, HIDDEN_SIZE)
        self.loc_head = linear(HIDDEN_SIZE, LATENT_SIZE)
        self.log_variance_head = linear(HIDDEN_SIZE, LATENT_SIZE)
        self.decoder = linear(LATENT_SIZE, HIDDEN_SIZE)
        self.head = linear(HIDDEN_SIZE, num_pixels)

    def forward(self, x: Any) -> Any:
        """The negative ELBO, a mean over binary images [B, X], from one sample each and a closed-form KL (nats)."""
        hidden = functional.relu(self.encoder(x))
        loc, log_variance = self.loc_head(hidden).float(), self.log_variance_head(hidden).float()
        z = loc + torch.exp(log_variance / 2) * torch.randn_like(loc)
        logits = self.head(functional.relu(self.decoder(z))).float()
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = (loc**2 + log_variance.exp() - 1 - log_variance).sum() / 2
        return (cross_entropy + kl) / len(x)


def training_task(
    work: TrainingWork,
    *,
    batch_size: int,
    precision: Precision,
    num_seeds: int,
    num_steps: int,
    fused: bool,
    compiled: bool,
) -> Task:
    """Trains on the first batches of an epoch in a new order. Many seeds by `torch.vmap`, on stacked parameters."""
    pixels = torch.from_numpy(work.pixels).to(DEVICE)
    models = [TorchVAE(work.num_pixels).to(DEVICE) for _ in range(num_seeds)]
    if num_seeds == 1:
        loss, params = models[0], list(models[0].parameters())
    else:
        loss, params = _stacked(models)
    optimizer = torch.optim.Adam(params, lr=LEARNING_RATE, fused=fused or None)
    if compiled:
        loss = torch.compile(loss, dynamic=False)
    train = partial(_train, loss, optimizer, precision)

    def run() -> Mapping[str, Any]:
        orders = [torch.randperm(len(pixels), device=DEVICE) for _ in range(num_seeds)]
        order = torch.stack(orders) if num_seeds > 1 else orders[0]
        for step in range(num_steps):
            indices = order[..., step * batch_size : (step + 1) * batch_size]
            train(pixels[indices])
        _await_device()
        return {"images": num_steps * batch_size * num_seeds}

    return run


def _train(loss: Callable[[Any], Any], optimizer: Any, precision: Precision, batch: Any) -> None:
    """One step on grey pixels of uint8, binarized here."""
    optimizer.zero_grad(set_to_none=True)
    with _autocast(precision):
        value = loss(torch.bernoulli(batch.float() / WHITE))
    value.backward()
    optimizer.step()


def _autocast(precision: Precision) -> Any:
    return torch.autocast(device_type=DEVICE, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _stacked(models: list[Any]) -> tuple[Callable[[Any], Any], list[Any]]:
    """The sum of the models' losses on a batch each [S, B, X], and the stacked parameters."""
    params, _ = torch.func.stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")

    def of_one(params: Any, x: Any) -> Any:
        return torch.func.functional_call(skeleton, params, (x,))

    of_each = torch.vmap(of_one, randomness="different")
    return lambda x: of_each(params, x).sum(), list(params.values())


def quality_task(work: TrainingWork, *, batch_size: int, precision: Precision, seed: int, num_epochs: int) -> Task:
    """The mean ELBO of the test images after some epochs, the last and smaller batch of each included."""
    pixels = torch.from_numpy(work.pixels).to(DEVICE)
    test = torch.from_numpy(work.binary_test_pixels).to(DEVICE).float() / WHITE

    def run() -> Mapping[str, Any]:
        torch.manual_seed(seed)
        model = TorchVAE(work.num_pixels).to(DEVICE)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        for _ in range(num_epochs):
            for indices in torch.randperm(len(pixels), device=DEVICE).split(batch_size):
                _train(model, optimizer, precision, pixels[indices])
        with torch.no_grad(), _autocast(precision):
            return {"elbo": -model(test).item()}

    return run


def _await_device() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


TASKS = {
    "torch eager": partial(training_task, fused=False, compiled=False),
    "torch eager, fused Adam": partial(training_task, fused=True, compiled=False),
    "torch compiled, fused Adam": partial(training_task, fused=True, compiled=True),
    "quality": quality_task,
}
