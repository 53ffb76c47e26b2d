"""Several seeds as one batched model (torch.func) against one seed alone, on one thread.

    python benchmarks/seeds_together.py

Milliseconds of forward and backward per seed, of the default run's model and batch; by the thread's
own time. Seeds side by side in processes of one thread each cost what one costs alone, as long as
there are cores: a batched model pays only where a seed in it costs less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from maebench import RunConfig
from maebench.data.preprocess import Normaliser
from maebench.encoders import attention
from maebench.masking import Mask
from maebench.objectives.objective import Batch
from maebench.pretraining.ahead import ready
from maebench.pretraining.batches import make_batch
from maebench.pretraining.plan import build, inputs_of, prepare

ROUNDS = 40


def milliseconds(step: Callable[[], Tensor]) -> float:
    """The median of some rounds, after a few that are not counted."""
    found = []
    for number in range(ROUNDS + 5):
        began = time.thread_time()
        step()
        if number >= 5:
            found.append(1000 * (time.thread_time() - began))
    return statistics.median(found)


def main() -> None:
    """Prints one line per number of seeds."""
    torch.set_num_threads(1)
    config = RunConfig()
    with tempfile.TemporaryDirectory() as folder:
        plan = prepare(config, Path(folder))
    facts = plan.run.facts
    normalise = Normaliser(facts["mean"], facts["std"], "cpu")
    print("seeds  alone  batched  batched / alone, ms per seed")
    for seeds in (2, 4, 8):
        inputs = inputs_of(config, facts)
        modules = [build(config.model_copy(update={"seed": s}), inputs) for s in range(seeds)]
        steps = ready(config, modules[0], plan.images, normalise, "cpu", 0, seeds)
        batches = [make_batch(config, modules[0], next(step), 0.0, "fp32") for step in steps]
        stacked, _ = stack_module_state(modules)
        trained = {k: v.detach().requires_grad_(v.requires_grad) for k, v in stacked.items()}

        def batched(
            modules: list[torch.nn.Module] = modules,
            batches: list[Batch] = batches,
            trained: dict[str, Tensor] = trained,
        ) -> Tensor:
            first = batches[0]

            def loss(weights: dict[str, Tensor], images: Tensor, *mask: Tensor) -> Tensor:
                hidden, seen, places = mask
                made = Mask(hidden, seen, first.mask.grid, places)  # type: ignore[union-attr]
                batch = replace(first, images=images, mask=made)
                return functional_call(modules[0], weights, (batch,))["loss"]

            parts = [torch.stack([b.images for b in batches])] + [
                torch.stack([getattr(b.mask, name) for b in batches])
                for name in ("hidden", "seen", "places")
            ]
            total = vmap(loss)(trained, *parts).sum()
            total.backward()
            for value in trained.values():
                value.grad = None
            return total

        def alone(module: torch.nn.Module = modules[0], batch: Batch = batches[0]) -> Tensor:
            loss = module(batch)["loss"]
            loss.backward()
            module.zero_grad()
            return loss

        with attention.using(False):  # the fused kernel cannot be batched
            together = milliseconds(batched) / seeds
        one = milliseconds(alone)
        print(f"{seeds:5}  {one:5.2f}  {together:7.2f}  {together / one:.2f}")


if __name__ == "__main__":
    main()
