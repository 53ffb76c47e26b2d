"""What of a file's weights was used, what was missing, and what that means."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from maebench.errors import RunError

SHOWN = 6  # names in a line; the others are counted

# The verdicts that an evaluation can live with; an incomplete encoder is an error.
COMPLETE = "complete"
NO_HEAD = "head only missing"
NO_DECODER = "decoder missing"
ODD_DECODER = "decoder not usable"
RANDOM = "random weights"


@dataclass(frozen=True)
class Verdict:
    """How weights and model fit.

    Args:
        text: "complete", "head only missing", "decoder missing", "decoder not usable" or "random
            weights".
        source: where the weights come from.
        used: how many weights the model took.
        missing: names of what the model has and the weights have not.
        unused: names of what the weights have and the model has not.
        notes: what else a reader of the number must know.
    """

    text: str
    source: str
    used: int = 0
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.text}: {self.used} weights of {self.source}"]
        parts += [f"missing {listed(self.missing)}"] if self.missing else []
        parts += [f"not used {listed(self.unused)}"] if self.unused else []
        return "; ".join([*parts, *self.notes])

    def dump(self) -> dict[str, Any]:
        """As JSON values, every name included."""
        return {
            "verdict": self.text,
            "source": self.source,
            "used": self.used,
            "missing": list(self.missing),
            "unused": list(self.unused),
            "notes": list(self.notes),
        }


def listed(names: Collection[str]) -> str:
    """The first few names and how many more."""
    ordered = sorted(names)
    more = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def incomplete(
    source: str, missing: Collection[str], unused: Collection[str], shapes: Collection[str] = ()
) -> RunError:
    """The error for an encoder that the weights do not fill, with the nearest name of each."""
    hints = []
    for name in sorted(missing)[:SHOWN]:
        near = get_close_matches(name, list(unused), n=1, cutoff=0.8)
        hints.append(f"{name} (is it {near[0]}?)" if near else name)
    more = len(missing) - SHOWN
    told = ", ".join(hints) + (f" and {more} more" if more > 0 else "")
    parts = [f"missing {told}"] if missing else []
    parts += [f"left over {listed(unused)}"] if unused else []
    parts += [f"other shape {listed(list(shapes))}"] if shapes else []
    return RunError(
        f"{source}: the encoder is incomplete: {'; '.join(parts)}. "
        "--key-map FILE.yaml gives names their own"
    )
