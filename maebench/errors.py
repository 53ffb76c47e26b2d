"""What went wrong, in one line a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MaebenchError(Exception):
    """A user's mistake or a fact of the outside world; printed in one line, exit code 1."""


class ConfigError(MaebenchError):
    """A setting that does not exist, is out of range or does not fit another one."""


class DataError(MaebenchError):
    """Images or labels that are missing, unreadable or do not fit the model."""


class RunError(MaebenchError):
    """A run's folder that is locked, damaged, missing or cannot be written."""


class ReadOnlyError(RunError):
    """A folder whose storage or rights let nobody write: what is there can still be read."""


class DamagedError(RunError):
    """A file whose content is not what was written; what it held can often be made again."""


class DeviceError(RunError):
    """A GPU that does not answer any more; what was kept before stays."""


class PluginError(MaebenchError):
    """A plugin that failed to load or breaks its contract."""


class NotApplicable(MaebenchError):
    """A model cannot do what an evaluation needs; recorded as a row that says why."""


def unknown(what: str, name: str, allowed: Iterable[str], where: str = "") -> str:
    """The message for a name that does not exist: the nearest match and all there is."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, [n.split(" ")[0] for n in names], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f" in {where}" if where else ""
    listing = ", ".join(names) if names else "nothing"
    return f"unknown {what} {name!r}{place}.{hint} There is: {listing}"
