"""What all code of a process shares: set for the time of our work, compared, put back."""

from __future__ import annotations

import builtins
import contextlib
import gc
import json
import locale
import logging
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageFile

from maebench.rng import GLOBAL_STATES, PYTHON_STATE, few_drawn

# ---- what a caller may have set


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Runs what is inside under torch's own defaults, and leaves the caller's as they were.

    Numbers are float32 on the device that is asked for, with gradients, out of inference mode and
    of autocast; numpy's floating-point errors are no exceptions. One is not: what is called fp32 is
    computed in float32, while torch's convolutions on GPUs round to 10 bits (TF32) by default.
    """
    with contextlib.ExitStack() as back:
        back.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        back.callback(_put_truncated, ImageFile.LOAD_TRUNCATED_IMAGES)
        _put_truncated(False)
        back.enter_context(torch.inference_mode(False))
        back.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # it costs time at every call of torch
            back.enter_context(torch.device("cpu"))
        back.enter_context(_without_autocast())
        back.enter_context(float32_products("ieee"))
        back.enter_context(
            np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")  # numpy's own
        )
        yield


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """Leaves a caller's autocast, which else keeps low-precision copies of weights that change."""
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    on = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    if depth:
        torch.clear_autocast_cache()
    for kind in on:
        torch.set_autocast_enabled(kind, False)
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    try:
        yield
    finally:
        for _ in range(depth):
            torch.autocast_increment_nesting()
        for kind in on:
            torch.set_autocast_enabled(kind, True)


@contextlib.contextmanager
def float32_products(how: Literal["ieee", "tf32"]) -> Iterator[None]:
    """In what float32 is multiplied and convolved, by both of the names that torch has for it.

    They have to agree: where they do not, torch refuses to say whether TF32 is on.
    """
    backends: Any = torch.backends
    cuda, cudnn, mkldnn = backends.cuda, backends.cudnn, backends.mkldnn
    newer = hasattr(cudnn, "conv")  # torch 2.9 and later
    places = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul] if newer else []
    before = [place.fp32_precision for place in places]
    matmul, convolution = _matmul_precision(), _cudnn_tf32()
    torch.set_float32_matmul_precision("highest" if how == "ieee" else "high")
    cudnn.allow_tf32 = how == "tf32"
    for place in places:
        place.fp32_precision = how
    try:
        yield
    finally:
        _put_matmul_precision(matmul)
        cudnn.allow_tf32 = convolution
        for place, own in zip(places, before, strict=True):
            place.fp32_precision = own


def _cudnn_tf32() -> bool:
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # convolutions and recurrent layers differ: each is put back by its name
        return False


# ---- what a plugin may change while it is imported

# Variables that scikit-learn and torch set for themselves, whoever imports them.
OF_LIBRARIES = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_LIBRARIES}


def _put_environment(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys() - OF_LIBRARIES:
        del os.environ[name]
    os.environ.update(before)


def _signal_handlers() -> dict[str, Any]:
    """Of each signal; only the main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {s.name: signal.getsignal(s) for s in signal.Signals}


def _put_signal_handlers(before: Mapping[str, Any]) -> None:
    for name, handler in before.items():
        number = signal.Signals[name]
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _root_logger() -> tuple[list[logging.Handler], int, int]:
    return list(logging.root.handlers), logging.root.level, logging.root.manager.disable


def _put_root_logger(before: tuple[list[logging.Handler], int, int]) -> None:
    logging.root.handlers[:] = before[0]
    logging.root.setLevel(before[1])
    logging.disable(before[2])


def _put_default_device(before: torch.device) -> None:
    torch.set_default_device(None)
    if torch.get_default_device() != before:
        torch.set_default_device(before)


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch's newer names for it were used too, and it then knows no answer
        return "mixed"


def _put_matmul_precision(before: str) -> None:
    if before != "mixed":
        torch.set_float32_matmul_precision(before)


def _cudnn() -> dict[str, bool]:
    cudnn = torch.backends.cudnn
    return {key: getattr(cudnn, key) for key in ("enabled", "benchmark", "deterministic")}


def _put_cudnn(before: Mapping[str, bool]) -> None:
    for key, value in before.items():
        setattr(torch.backends.cudnn, key, value)


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _plots() -> dict[str, Any]:
    """What of matplotlib's settings is not as it was when it was imported."""
    matplotlib: Any = sys.modules.get("matplotlib")
    if matplotlib is None:
        return {}
    first = dict(dict.items(matplotlib.rcParamsOrig))  # past its reading, which chooses a backend
    return {k: v for k, v in dict.items(matplotlib.rcParams) if k not in first or v != first[k]}


def _put_plots(before: Mapping[str, Any]) -> None:
    matplotlib: Any = sys.modules["matplotlib"]
    dict.update(matplotlib.rcParams, dict(dict.items(matplotlib.rcParamsOrig)) | dict(before))


def _put_truncated(before: bool) -> None:
    ImageFile.LOAD_TRUNCATED_IMAGES = before


def _put_largest(before: int | None) -> None:
    Image.MAX_IMAGE_PIXELS = before


def _working_directory() -> str | None:
    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
        return str(Path.cwd())
    return None


def _put_working_directory(before: str | None) -> None:
    if before is not None:
        os.chdir(before)


# what -> how it is read, as something to compare, and how it is put back
SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the working directory": (_working_directory, _put_working_directory),
    "environment variables": (_environment, _put_environment),
    "sys.path": (lambda: list(sys.path), lambda before: setattr(sys, "path", before)),
    "sys.argv": (lambda: list(sys.argv), lambda before: setattr(sys, "argv", before)),
    "the recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "the collection of garbage": (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "the locale": (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda before: locale.setlocale(locale.LC_ALL, before),
    ),
    "the root logger": (_root_logger, _put_root_logger),
    "handlers of signals": (_signal_handlers, _put_signal_handlers),
    "how processes start": (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda before: multiprocessing.set_start_method(before, force=True),
    ),
    "numpy's floating-point errors": (np.geterr, lambda before: np.seterr(**before)),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, _put_default_device),
    "whether torch makes gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (
        _deterministic,
        lambda before: torch.use_deterministic_algorithms(before[0], warn_only=before[1]),
    ),
    "torch's float32 precision": (_matmul_precision, _put_matmul_precision),
    "torch's cuDNN settings": (_cudnn, _put_cudnn),
    "torch's search for anomalies": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "matplotlib's settings": (_plots, _put_plots),
    "whether PIL fills up truncated images": (
        lambda: ImageFile.LOAD_TRUNCATED_IMAGES,
        _put_truncated,
    ),
    "PIL's largest image": (lambda: Image.MAX_IMAGE_PIXELS, _put_largest),
    **GLOBAL_STATES,
}

# Modules and classes whose public names are compared: what numbers are made with.
WATCHED: tuple[types.ModuleType | type, ...] = (
    *(builtins, json, logging, math, os, random, time, warnings),
    *(np, np.linalg, np.random),
    *(torch, torch.Tensor, torch.linalg, torch.optim, torch.random),
    *(torch.nn, torch.nn.Module, torch.nn.functional, torch.nn.init),
)
STREAMS = ("stdin", "stdout", "stderr", "excepthook", "displayhook", "exit")  # of sys


def _watched() -> list[tuple[str, types.ModuleType | type]]:
    """The watched modules and classes by name, with all of maebench that is imported."""
    own = [m for name, m in sys.modules.items() if name.split(".")[0] == "maebench"]
    classes = [
        value
        for module in own
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    return [(_name_of(place), place) for place in (*WATCHED, *own, *classes)]


def _name_of(place: types.ModuleType | type) -> str:
    if not isinstance(place, type):
        return place.__name__
    return f"{place.__module__}.{place.__qualname__}"


def _names(place: types.ModuleType | type) -> dict[str, Any]:
    """The functions, classes and dtypes by their public names; of a class its operators too."""
    return {
        name: value
        for name, value in vars(place).items()
        if (callable(value) or isinstance(value, property | classmethod | torch.dtype))
        and (isinstance(place, type) or not name.startswith("_"))
    }


def _wraps_own(place: types.ModuleType | type, before: Any, after: Any) -> bool:
    """Whether a library has wrapped a function of its own, as torch does for its compiler."""
    home = getattr(after, "__globals__", {}).get("__name__", "").split(".")[0]
    own = _name_of(place).split(".")[0]
    return home == own and getattr(after, "__wrapped__", None) is before


def _put_names(place: types.ModuleType | type, before: Mapping[str, Any]) -> list[str]:
    """Gives names back what they meant, and tells which had changed."""
    after = _names(place)
    changed = [
        name
        for name, value in before.items()
        if (now := after.get(name)) is not value and not _wraps_own(place, value, now)
    ]
    for name in changed:
        setattr(place, name, before[name])
    # a name that is new in a class hides what the class has inherited under it
    above = place.__mro__[1:] if isinstance(place, type) else ()
    hiding = [n for n in after.keys() - before.keys() if any(n in vars(cls) for cls in above)]
    for name in hiding:
        delattr(place, name)
    return changed + hiding


@contextlib.contextmanager
def compared() -> Iterator[list[str]]:
    """Puts back what the code inside changes of what a process shares; the list says what it was.

    Filters of warnings that speak of one module or one text are left: libraries set them for
    themselves. What the code prints goes to stderr.
    """
    changed: list[str] = []
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        shared = {what: get() for what, (get, _) in SHARED.items()}
        places = [(name, place, _names(place)) for name, place in _watched()]
        streams = {name: getattr(sys, name) for name in STREAMS}
        filters = list(warnings.filters)
        try:
            yield changed
        finally:
            for what, (get, put) in SHARED.items():
                if (after := get()) != (before := shared[what]):
                    put(before)
                    if what != PYTHON_STATE or not few_drawn(before, after):
                        changed.append(what + _shown(before, after))
            for name, place, names in places:
                changed += [f"{name}.{key}" for key in _put_names(place, names)]
            for name, value in streams.items():
                if getattr(sys, name) is not value:
                    changed.append(f"sys.{name}")
                    setattr(sys, name, value)
            new = [f for f in warnings.filters if f not in filters]
            narrow = [f for f in new if _is_narrow(f)]
            if len(narrow) < len(new) or any(f not in warnings.filters for f in filters):
                changed.append("the filters of warnings")
    for action, message, category, module, line in reversed(narrow):
        texts = ((p.pattern if isinstance(p, re.Pattern) else p or "") for p in (message, module))
        warnings.filterwarnings(action, next(texts), category, next(texts), line)  # type: ignore[arg-type]


def _is_narrow(found: tuple[Any, ...]) -> bool:
    """Whether a filter is for some text, some module, or a library's own category."""
    _, message, category, module, _ = found
    return bool(message or module) or category.__module__ != "builtins"


def _shown(before: object, after: object) -> str:
    """What has changed, where it is short; of a mapping the keys alone, as values may be secret."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = [k for k in {**before, **after} if before.get(k, before) != after.get(k, after)]
        return f" {', '.join(map(str, keys))}"
    plain = str | bool | int | torch.dtype | torch.device
    if isinstance(before, plain) and isinstance(after, plain):
        return f" ({before} to {after})"
    return ""
