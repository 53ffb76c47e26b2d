"""What is said where a step does not fit into memory: what there is, and what would fit.

Before it is tried, where it is plain that it cannot; and where it was tried.
"""

from __future__ import annotations

import contextlib
import math
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from maebench.config.run import RunConfig
from maebench.data.memory import available, readable
from maebench.encoders import attention
from maebench.encoders.inputs import Inputs, examples_of
from maebench.encoders.unfilled import MOST, TooLarge, unfilled
from maebench.errors import MaebenchError, RunError
from maebench.pretraining.cost import COUNTED, made_up
from maebench.pretraining.hardware import card, out_of_memory, processor
from maebench.rng import isolated

# Bytes that a step keeps for each patch, unit of width and block: from 20 in a masked vision
# transformer to 130 in convnext-nano. Where even twice as many would fit twice nothing is measured,
# which takes half as long as counting costs.
MOST_KEPT, ROOMY = 256, 2
# What is kept was 0.6 to 1.2 times the real peak of a step, from vit-nano to convnext-nano, with 64
# and with 512 images: what is refused is beyond doubt, and what is advised leaves some room.
SURE = 0.8
ASKED = re.compile(r"allocate ([\d.]+ \w+)")


def what_there_is(device: str, error: BaseException) -> str:
    """How much was asked for, and what the device has, in a few words."""
    asked = ASKED.search(str(error))
    wanted = f"{_readable(asked[1])} asked for" if asked else "no more to be had"
    if torch.device(device).type != "cuda":
        return f"{wanted} on {processor() or 'the CPU'}"
    try:
        free, total = (number / 2**30 for number in torch.cuda.mem_get_info(device))
    except RuntimeError:  # a device that has failed knows nothing
        return f"{wanted} on {card(device)}"
    ours = torch.cuda.memory_reserved(device) / 2**30
    return (
        f"{wanted} on {card(device)}, where {free:.1f} of {total:.1f} GiB are free and {ours:.1f} "
        "are this process's"
    )


def _readable(amount: str) -> str:
    """What a GPU's allocator says as it is, and a CPU's bytes in MiB."""
    number, unit = amount.split()
    return f"{int(number) / 2**20:,.0f} MiB" if unit == "bytes" else amount


@contextlib.contextmanager
def said(
    where: str, device: str, config: RunConfig, attempt: Callable[[int], None] | None = None
) -> Iterator[None]:
    """Says what fits where the memory of what is inside does not suffice.

    Args:
        where: such as the run's name.
        device: of the work.
        config: the run's.
        attempt: computes a part of a step of so many parts; None where there is no step yet.

    Raises:
        RunError: in one line, with the number of parts that was found to fit.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what the step had computed
        there, parts = what_there_is(device, error), config.optimiser.accumulate
        if attempt is None:
            raise RunError(f"{where}: out of memory before the first step: {there}") from None
        try:
            advice = _advice(config.batch, _that_fit(config.batch, parts, attempt, device))
        except Exception:  # what else is wrong its own run will say
            advice = f"Try -o optimiser.accumulate={2 * parts}"
        size = -(-config.batch // parts)
        raise RunError(f"{where}: out of memory with {size} images: {there}. {advice}") from None


def _that_fit(batch: int, parts: int, attempt: Callable[[int], None], device: str) -> int | None:
    """The least doubled number of parts of which one can be computed; None if not even an image."""
    while parts < batch:
        parts = min(batch, 2 * parts)
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        try:
            attempt(parts)
        except Exception as error:
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        else:
            return parts
    return None


def _advice(batch: int, parts: int | None) -> str:
    if parts is None:
        return "No smaller part of the batch fits either: take a smaller encoder or --image-size"
    size = -(-batch // parts)
    return (
        f"What fits, tried just now without compiling: -o optimiser.accumulate={parts}, the same "
        f"batch in parts of {size}; or --batch {size}"
    )


# ---- before it is tried


def check_weights(config: RunConfig, inputs: Inputs, device: str) -> None:
    """Refuses a model that cannot fit, before it is built.

    What is counted is the least: weights, gradients, AdamW's two moments, the images of a step.

    Raises:
        RunError: says what it takes, and what there is.
    """
    there = _free(device)
    if there is None:
        return
    part = -(-config.batch // config.optimiser.accumulate)
    images = part * _fed(inputs)
    if images > there:
        raise RunError(
            f"{part:,} {examples_of(inputs.kind)} of a step alone take {readable(images)}: "
            f"{_there(there, device)}. {_advised(config, SURE * there // _fed(inputs))}"
        )
    weights = _weights(config, inputs, there)
    if weights is not None and weights > there:
        raise RunError(
            f"encoder {config.encoder.changed()} with objective {config.objective.name} takes "
            f"{'more than ' * (weights >= MOST)}{readable(weights)} for its weights, their "
            f"gradients and AdamW's two moments: {_there(there, device)}. Take a smaller encoder"
        )


def check_step(
    config: RunConfig, module: Any, inputs: Inputs, device: str, hidden: int | None, precision: str
) -> None:
    """Refuses a batch of which a step cannot fit, before it is tried; see `check_weights`.

    Args:
        config: the run's.
        module: the objective around its encoder, on the CPU.
        inputs: what it is fed.
        device: of the work.
        hidden: the least number of hidden patches; None where nothing is hidden.
        precision: of the work.

    Raises:
        RunError: says what it takes, what there is, and which part of the batch fits.
    """
    there, part = _free(device), -(-config.batch // config.optimiser.accumulate)
    encoder = module.encoder
    most = math.prod(encoder.grid) * encoder.width * encoder.depth * MOST_KEPT
    if there is None or part * max(most, _fed(inputs)) * ROOMY < there:
        return
    try:
        fixed, each, scores = kept_for_backward(module, inputs, hidden)
    except Exception:  # what is wrong with it is said where it is used
        return
    each //= 1 if precision == "fp32" else 2  # the least: not all of it is in half precision
    on_cpu = available()
    if on_cpu is not None and 2 * scores > on_cpu:  # before softmax and after it
        raise RunError(
            f"attention of {COUNTED} images takes {readable(2 * scores)} where their cost is "
            f"counted: {_there(on_cpu, 'cpu')}. Take larger patches or a smaller --image-size"
        )
    fixed += _held(list(module.parameters()))
    if SURE * (fixed + part * each) > there:
        raise RunError(
            f"a step of {part:,} {examples_of(inputs.kind)} takes {readable(fixed + part * each)}, "
            f"{readable(each)} for each of them: {_there(there, device)}. "
            f"{_advised(config, SURE * (there - fixed) // each)}"
        )


def kept_for_backward(
    module: Any, inputs: Inputs, hidden: int | None, numbers: tuple[int, int] = (COUNTED, 4)
) -> tuple[int, int, int]:
    """What a forward pass keeps in bytes: whatever the batch, for each image; and attention.

    Attention is left out, whose fused kernel keeps nothing of its scores; what they would take in
    the plain one, of so many images as costs are counted on, is the third number.
    """
    found = []
    for number in numbers:
        stand_in = _NoAttention()
        with isolated(0, "memory"), attention.using(True), stand_in:
            batch = made_up(module.encoder, inputs, hidden, number)
            found.append((_kept(module, batch), stand_in.scores * COUNTED // number))
    (few, scores), (many, _) = found
    each = max(1, (many - few) // (numbers[1] - numbers[0]))
    return max(0, few - numbers[0] * each), each, scores


def _kept(module: Any, batch: Any) -> int:
    """Bytes that are kept for the backward pass beside the weights themselves."""
    weights = [*module.parameters(), *module.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in weights}
    storages: dict[int, torch.UntypedStorage] = {}  # held, so that no two have one address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module(batch)["loss"]
    total = sum(storage.nbytes() for storage in storages.values())
    del loss
    return total


class _NoAttention(TorchFunctionMode):
    """Puts the mean of the values in the place of attention, whose time grows by the square."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = 0  # bytes of the largest in single precision

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the function, or what stands in for it."""
        if func is not F.scaled_dot_product_attention or len(args) < 3:
            return func(*args, **(kwargs or {}))
        query, keys, values = args[:3]
        self.scores = max(self.scores, 4 * query[..., 0].numel() * keys.shape[-2])
        return query[..., :1] + values.mean(-2, keepdim=True)


def _weights(config: RunConfig, inputs: Inputs, most: int) -> int | None:
    """Bytes of weights, gradients and AdamW's moments; None where the module says what is wrong.

    Those of the encoder alone where they are more than `most`.
    """
    try:
        with isolated(config.seed, "memory"), unfilled() as size:
            encoder = config.encoder.build(inputs)
            if 4 * size.bytes > most:  # an EMA teacher, which is a copy, is not even begun
                return 4 * size.bytes
            parameters = list(config.objective.build(encoder, inputs).parameters())
    except MaebenchError:
        return None
    except Exception as error:  # not even addresses, or what its own building will say
        return MOST if out_of_memory(error) or isinstance(error, TooLarge) else None
    return _held(parameters)


def _held(parameters: Sequence[torch.nn.Parameter]) -> int:
    """Bytes of weights and, of what is trained, of gradients and AdamW's moments."""
    once = {p.untyped_storage().data_ptr(): p for p in parameters}.values()
    return sum(p.numel() * p.element_size() * (1 + 3 * p.requires_grad) for p in once)


def _fed(inputs: Inputs) -> int:
    """Bytes of one of what an encoder is fed."""
    return inputs.numbers * inputs.zeros(0).element_size()


def _free(device: str) -> int | None:
    """Bytes that are free on a device; None where it does not say."""
    if torch.device(device).type != "cuda":
        return available()
    try:
        free = torch.cuda.mem_get_info(device)[0]
        # what this process has reserved and does not use, it can use
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    except RuntimeError:  # a device that has failed knows nothing
        return None


def _there(free: int, device: str) -> str:
    name = card(device) if torch.device(device).type == "cuda" else processor() or "the CPU"
    return f"{readable(free)} are free on {name}"


def _advised(config: RunConfig, most: float) -> str:
    """Which parts of the batch fit, of `most` at a time."""
    if most < 1:
        return "No part of the batch fits: take a smaller encoder or --image-size"
    parts = min(config.batch, -(-config.batch // int(most)))
    size = -(-config.batch // parts)
    return (
        f"What should fit: -o optimiser.accumulate={parts}, the same batch in parts of {size}, "
        f"which keeps the result; or --batch {size}"
    )
