"""How a signal ends the work: after the step it is in, with what is done on the disk.

SIGINT, SIGTERM and SIGHUP end it, SIGUSR1 has it save and go on; a second signal ends the process
at once. Handlers are set by commands alone: whoever calls maebench from Python keeps his own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

# Windows has the first two alone
ENDING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
SAVING = [getattr(signal, n) for n in ("SIGUSR1",) if hasattr(signal, n)]
# Modules in C++ abort the process where an exception comes out of the middle of their import: a
# signal waits until that is through, and looks every so many seconds.
ALARM = getattr(signal, "SIGALRM", None)
AGAIN_SECONDS = 0.02
SHELL = 128  # what a shell adds to a signal's number to make an exit code of it


class Stopped(KeyboardInterrupt):
    """A signal that asked for the end; no Exception, so that nobody takes it for an error.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def code(self) -> int:
        """What a command ends with: 130, 143 or 129."""
        return SHELL + self.number


@dataclass
class _Asked:
    """What signals have asked of this process.

    Args:
        end: by which signal the end was asked.
        raised: whether that has interrupted what was at work.
        save: whether it is to save and go on.
        steps: how many steps are being worked on, which are finished first.
        others: who is told of each signal too, such as the workers of a comparison.
    """

    end: int | None = None
    raised: bool = False
    save: bool = False
    steps: int = 0
    others: list[Callable[[int], None]] = field(default_factory=list)


_ASKED = _Asked()  # signals are the process's, and so is this


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Has signals end the work in order while it is entered; for a process's main thread.

    A signal that is ignored stays ignored, as by nohup. Code in C that a signal interrupts can make
    an error of its own of it, or go on: either ends in `Stopped`.

    Raises:
        Stopped: a signal has asked for the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (*ENDING, *SAVING)
    before = {number: signal.getsignal(number) for number in (*ours, *filter(None, [ALARM]))}
    hook = sys.unraisablehook
    sys.unraisablehook = _but_for_stopped(hook)
    _ASKED.end, _ASKED.raised, _ASKED.save = None, False, False
    for number, handler in before.items():
        if handler is not signal.SIG_IGN and number in ours:
            signal.signal(number, _end if number in ENDING else _save)
    try:
        yield
        check()
    except Stopped:
        raise
    except BaseException as error:
        if _ASKED.end is not None and _ASKED.raised:
            raise Stopped(_ASKED.end) from error
        raise
    finally:
        _ASKED.end = None
        sys.unraisablehook = hook
        if ALARM is not None and signal.getsignal(ALARM) is _interrupt:  # else it is the caller's
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _end(number: int, frame: FrameType | None) -> None:
    for each in ENDING:  # the second one ends the process, whatever it is in
        if signal.getsignal(each) is _end:
            signal.signal(each, signal.SIG_DFL)
    _ASKED.end = number
    if not _ASKED.steps:
        _interrupt(number, frame)
        return
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):  # not by a stream, which may be in the middle of a line
        os.write(2, f"{name}: ends after this step; again: at once\n".encode())


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Ends what is at work now, or when what it imports is there."""
    if _ASKED.end is None or _ASKED.steps:  # a step has begun meanwhile, which asks by itself
        return
    if ALARM is not None and _importing(frame):
        _interrupt_later()
        return
    _ASKED.raised = True
    raise Stopped(_ASKED.end)


def _interrupt_later() -> None:
    if ALARM is not None:  # else `check` ends the work
        signal.signal(ALARM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _but_for_stopped(
    before: Callable[[sys.UnraisableHookArgs], Any],
) -> Callable[[sys.UnraisableHookArgs], None]:
    """A sys.unraisablehook that leaves what is none of ours to the one before.

    Python passes over what is raised where it collects garbage, in `__del__` and in callbacks of
    weak references: a signal that fell there comes again.
    """

    def hook(args: sys.UnraisableHookArgs) -> None:
        error = args.exc_value
        if error is not None and isinstance(error.__cause__ or error, Stopped):
            _ASKED.raised = False
            _interrupt_later()
        else:
            before(args)

    return hook


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _save(number: int, _: FrameType | None) -> None:
    _ASKED.save = True
    for tell in _ASKED.others:
        tell(number)


@contextlib.contextmanager
def steps() -> Iterator[None]:
    """What is inside asks `asked` after each step, and is not interrupted in the middle of one."""
    _ASKED.steps += 1
    try:
        yield
    finally:
        _ASKED.steps -= 1
    check()


@contextlib.contextmanager
def telling(others: Callable[[int], None]) -> Iterator[None]:
    """Passes signals that ask to save on to others while it is entered."""
    _ASKED.others.append(others)
    try:
        yield
    finally:
        _ASKED.others.remove(others)


def asked() -> bool:
    """Whether to save now, because the end or just that was asked; says so once."""
    save, _ASKED.save = _ASKED.save, False
    return save or _ASKED.end is not None


def check() -> None:
    """Ends the work where a signal has asked for it; who takes errors for damage asks here first.

    Raises:
        Stopped: it has.
    """
    if _ASKED.end is not None and not _ASKED.steps:
        raise Stopped(_ASKED.end)


def ending() -> bool:
    """Whether the end was asked for."""
    return _ASKED.end is not None
