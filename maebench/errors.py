"""What went wrong, in one line a user can act on; and how text from outside is shown in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# What a terminal obeys, what turns text around, and what nobody sees: controls (C0, DEL, C1), line
# separators, halves of surrogates, and Unicode's Default_Ignorable_Code_Point with the marks of
# interlinear annotation (UCD 16, DerivedCoreProperties.txt).
_UNSEEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IN_LINES, _IN_A_NAME = re.compile(f"[{_UNSEEN}]"), re.compile(rf"[{_UNSEEN}\t\n]")


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


def plain(text: str, lines: bool = False) -> str:
    r"""Text whose every character is seen: ESC, say, as the four characters `\x1b`.

    Args:
        text: such as a name of a data set, a class, a file or a plugin, or a message with one.
        lines: whether line breaks and tabs are ours; in a name they are escaped too.
    """
    unseen = _IN_LINES if lines else _IN_A_NAME
    return unseen.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
