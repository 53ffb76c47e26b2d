"""Which of a checkpoint's sets of weights is meant: raw or averaged, student or teacher."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maebench.errors import ConfigError, RunError, unknown
from maebench.files import SHOWN

# Where a checkpoint keeps its weights beside an optimiser: the official code says "model",
# Lightning and many others "state_dict", DeepSpeed "module".
INSIDE = ("model", "state_dict", "model_state_dict", "module")
DEEPEST = 4  # dictionaries within each other: a file may hold itself
MOST_DICTIONARIES = 100_000  # looked into, as one may lie in many others; training keeps thousands
MOST_SETS = 256  # of weights in a file, each two of which are compared; a training keeps a few
# Bytes that all tensors of a file stand for over those it holds: weights that are shared, or
# repeated by a stride of zero, are counted once in the file and each time in memory. The deepest
# models that share one block have some 50; the floor lets in small files of small models.
MOST_SHARED, LEAST_HELD = 64, 2**20
# Names of a set, each of which is compared with those of a model; a ViT-g of 40 blocks has 500.
MOST_NAMES, LONGEST_NAME = 20_000, 1_000
# Dictionaries that hold tensors and are no model.
BESIDE = re.compile(
    r"opt|optims?|(.*_)?optimi[sz]ers?(_.*)?|.*sched.*|.*scaler.*|.*loss.*|.*criterion.*"
    r"|(.*_)?rng(_.*)?|random(_states?)?|callbacks|loops|args|config|hparams|hyper_parameters|metrics",
    re.IGNORECASE,
)
# timm's state_dict_ema, DeiT's and ConvNeXt's model_ema, averaged_model, swa_model ...
AVERAGED = re.compile(r"(.*_)?(ema|swa|avg|averaged?)\d*(_.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class WeightSet:
    """One set of weights of a checkpoint.

    Args:
        key: where it lies, dictionaries' keys with dots between them; "" for the top.
        tensors: weights by the names they have there.
        within: what of a user's key is left for the names themselves.
        asked: the user's key, or "".
        others: keys of the other sets.
        note: which one it is, where there are several.
    """

    key: str
    tensors: dict[str, Tensor]
    within: str = ""
    asked: str = ""
    others: tuple[str, ...] = ()
    note: str = ""


def find_set(content: Any, path: Path, key: str | None) -> WeightSet:
    """The set of weights that is meant, by a user's key or because no other can be.

    Raises:
        RunError: there is none, something else stands among the weights, or they stand for far
            more than the file holds.
        ConfigError: there are several, none of which is the obvious one.
    """
    sets = dict(_bounded(_sets(content), path))
    if not sets:
        raise _none(content, path)
    _check_names(sets, path)
    _check_held(sets, path)
    if key is not None:
        return _by_key(sets, key, path)
    chosen, note = choose(sets, f"file:{path}")
    return WeightSet(chosen, sets[chosen], others=_without(sets, chosen), note=note)


def _bounded(
    found: Iterable[tuple[str, dict[str, Tensor]] | None], path: Path
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The sets among the dictionaries of a file, which are few in any that training wrote.

    Raises:
        RunError: there are too many to look through.
    """
    looked = sets = 0
    for each in found:
        looked, sets = looked + 1, sets + (each is not None)
        if looked > MOST_DICTIONARIES or sets > MOST_SETS:
            raise RunError(
                f"file:{path} holds more than {MOST_DICTIONARIES:,} dictionaries, or {MOST_SETS} "
                "of weights: save the model's weights alone"
            )
        if each is not None:
            yield each


def _check_names(sets: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Refuses more names, or longer ones, than any model here has.

    Raises:
        RunError: names the set.
    """
    for key, tensors in sets.items():
        longest = max(map(len, (*tensors, key)))
        if len(tensors) > MOST_NAMES or longest > LONGEST_NAME:
            raise RunError(
                f"file:{path}: {key[:SHOWN] or 'the top'} has {len(tensors):,} weights with names "
                f"of up to {longest:,} characters, and {MOST_NAMES:,} of {LONGEST_NAME:,} are the "
                "most"
            )


def _check_held(sets: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Refuses tensors that stand for far more values than the file holds for them.

    Raises:
        RunError: names the largest.
    """
    held, stated, largest = dict[int, int](), 0, ("", 0)
    for tensors in sets.values():
        for name, tensor in tensors.items():
            if tensor.layout != torch.strided or tensor.is_meta:
                continue  # refused by whoever reads the set that is meant
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            size = tensor.numel() * tensor.element_size()
            stated += size
            largest = max(largest, (name, size), key=lambda each: each[1])
    there = sum(held.values())
    if stated > MOST_SHARED * max(there, LEAST_HELD):
        name, size = largest
        raise RunError(
            f"file:{path}: its weights stand for {stated:,} bytes and it holds {there:,}: {name} "
            f"alone repeats what is there to {size:,}; more than {MOST_SHARED} times is no model's"
        )


def _by_key(sets: Mapping[str, dict[str, Tensor]], key: str, path: Path) -> WeightSet:
    """The set of this key, below it, or around it, whose names then begin with the rest of it.

    Raises:
        ConfigError: there is none; the keys that are there are named.
    """
    if key in sets:
        return WeightSet(key, sets[key], asked=key, others=_without(sets, key))
    below = {k: t for k, t in sets.items() if k.startswith(f"{key}.")}
    if below:
        chosen, note = choose(below, f"file:{path}")
        return WeightSet(chosen, below[chosen], "", key, _without(sets, chosen), note)
    around = [k for k in sets if k and key.startswith(f"{k}.")]
    if around:
        outer = max(around, key=len)
        return WeightSet(
            outer, sets[outer], key.removeprefix(f"{outer}."), key, _without(sets, outer)
        )
    try:
        chosen, _ = choose(sets, "")
    except ConfigError as error:
        raise ConfigError(unknown("key", key, sets, f"file:{path}")) from error
    return WeightSet(chosen, sets[chosen], key, key, _without(sets, chosen))


def _without(sets: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(k for k in sets if k != key)


def choose(sets: Mapping[str, Mapping[str, Tensor]], where: str) -> tuple[str, str]:
    """The key of the set to take and a note on the others.

    Raw weights go before averaged ones, as they always did; which, and how to have the others, is
    in the note.

    Raises:
        ConfigError: several could be meant; they are named.
    """
    keys = distinct(sets)
    if len(keys) == 1:
        return keys[0], ""
    plain = [k for k in keys if not is_averaged(k)]
    usual = [k for k in plain if all(part in INSIDE for part in k.split(".")) or not k]
    chosen = plain if len(plain) == 1 else usual
    if len(chosen) != 1:
        raise ConfigError(
            f"{where}: it holds several sets of weights, {', '.join(sorted(keys))}: say which, "
            f"as in ,key={max(plain or keys, key=is_teacher)}"
        )
    others = [k for k in keys if k != chosen[0]]
    place = f"of key {chosen[0]}" if chosen[0] else "at the top"
    kind = "raw weights" if any(map(is_averaged, others)) else "weights"
    averaged = next((k for k in others if is_averaged(k)), others[0])
    return chosen[0], (
        f"the {kind} {place} were taken; the file holds {', '.join(others)} too: ,key={averaged}"
    )


def is_averaged(key: str) -> bool:
    """Whether a key speaks of averaged weights."""
    return any(AVERAGED.fullmatch(part) for part in key.split("."))


def is_teacher(key: str) -> bool:
    """Whether a key speaks of the slow copy that self-distillation evaluates."""
    return "teacher" in key or "target" in key


def distinct(sets: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """The keys of sets that differ: the same weights saved twice are one set."""
    kept: list[str] = []
    for key, tensors in sets.items():
        if not any(_equal(tensors, sets[other]) for other in kept):
            kept.append(key)
    return kept


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        t.shape == other[n].shape and t.dtype == other[n].dtype and torch.equal(t, other[n])
        for n, t in one.items()
    )


def _sets(
    content: Any, key: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]] | None]:
    """Every dictionary of names and tensors that may be a model's; None for each other one."""
    if not isinstance(content, dict) or depth > DEEPEST:
        return
    if content and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        # a vector alone, such as a centre or a counter, is no model
        if depth == 0 or key in INSIDE or any(t.ndim > 1 for t in content.values()):
            yield key, dict(content)
        return
    yield None
    for name, inner in content.items():
        if isinstance(name, str) and not BESIDE.fullmatch(name) and inner is not content:
            yield from _sets(inner, f"{key}.{name}" if key else name, depth + 1)


def _none(content: Any, path: Path) -> RunError:
    """The error for a file without weights: what it holds in their place."""
    for _ in range(DEEPEST):
        inner = [content[k] for k in INSIDE if isinstance(content, dict) and k in content]
        content = next((i for i in inner if isinstance(i, dict) and i is not content), content)
    if not isinstance(content, dict):
        return RunError(f"file:{path} holds a {type(content).__name__}, no names with weights")
    whole = all(isinstance(k, str) for k in content)
    others = [str(k) for k, v in content.items() if not (whole and isinstance(v, Tensor))]
    return RunError(
        f"file:{path}: weights are looked for at the top or under {', '.join(INSIDE)} and other "
        f"names; it holds {', '.join(sorted(others)[:8]) or 'nothing'}"
    )
