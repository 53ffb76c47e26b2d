"""What is said where a step does not fit into memory: what there is, and what would fit."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator

import torch

from maebench.config.run import RunConfig
from maebench.errors import RunError
from maebench.pretraining.hardware import card, out_of_memory, processor

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
