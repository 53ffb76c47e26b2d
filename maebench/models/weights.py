"""What models from elsewhere share: facts beside their weights, and a verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from maebench.data.preprocess import AsItIs, Preprocess
from maebench.encoders.unfilled import TooLarge, unfilled
from maebench.errors import RunError
from maebench.models.reading import OURS, Facts
from maebench.models.spec import PixelTarget, SpecOptions
from maebench.rng import isolated

# ---- what stands beside weights: an export of ours, a config.json, arguments of a training

EPS = 1e-6  # official code; a config.json that stands beside the weights says its own


def stated_size(facts: Facts) -> tuple[int, int] | None:
    """Rows and columns of the images that the weights take; None where nobody says.

    Raises:
        RunError: it is said, and is no size.
    """
    for place in (OURS, "config"):
        value = facts.get(place, {}).get("image_size")
        if value is not None:
            sides = value if isinstance(value, list | tuple) else [value, value]
            if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
                raise RunError(f"image_size beside the weights is {value!r}: a side or two wanted")
            return sides[0], sides[1]
    return None


def stated_heads(facts: Facts, ours: str, theirs: str) -> int | None:
    """The number of heads, under our name for it or Hugging Face's; None where nobody says.

    Raises:
        RunError: it is said, and is no whole number from 1.
    """
    for place, key in ((OURS, ours), ("config", theirs)):
        value = facts.get(place, {}).get(key)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise RunError(
                f"{key} beside the weights is {value!r}: a whole number from 1 is wanted"
            )
        return value
    return None


def norm_epsilon(facts: Facts, options: SpecOptions) -> float:
    """The norms' epsilon: the MODEL string's, else the one stated, else the official code's.

    Raises:
        RunError: it is said, and cannot be.
    """
    stated = facts.get("config", {}).get("layer_norm_eps", EPS)
    if not isinstance(stated, float | int) or not 0 < stated < 1:
        raise RunError(
            f"layer_norm_eps beside the weights is {stated!r}: between 0 and 1 is wanted"
        )
    return options.eps or float(stated)


def decoder_target(facts: Facts, options: SpecOptions) -> PixelTarget | None:
    """What the decoder predicts: by the MODEL string, else as stated; None where nobody says."""
    if options.target is not None:
        return options.target
    stated: PixelTarget | None = facts.get(OURS, {}).get("target")
    if stated in ("pixels", "normalised-pixels"):
        return stated
    for place in ("args", "config"):
        normalised = facts.get(place, {}).get("norm_pix_loss")
        if isinstance(normalised, bool):
            return "normalised-pixels" if normalised else "pixels"
    return None


# ---- how weights and model fit

# Numbers of a model over those of its weights: what is missing is never half of it. The floor is of
# models whose size is no matter.
MOST_STATED, LEAST_NUMBERS = 2, 2**20
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
    return _shortened(sorted(names), len(names))


def _shortened(texts: list[str], count: int) -> str:
    more = count - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


@contextlib.contextmanager
def shapes_alone(tensors: Mapping[str, Tensor], spec: str) -> Iterator[None]:
    """Builds with shapes alone, for a small file may state huge ones; random states are kept.

    Raises:
        RunError: the module has far more weights than the file.
    """
    there = sum(tensor.numel() for tensor in tensors.values())
    most = MOST_STATED * 4 * max(there, LEAST_NUMBERS)  # bytes of single precision
    try:
        with isolated(0, "shapes"), unfilled(most):
            yield
    except TooLarge as error:
        raise RunError(
            f"{spec}: shapes and settings state a model of more than {most:,} bytes, and its "
            f"weights are {there:,} numbers"
        ) from error


def incomplete(
    source: str, missing: Collection[str], unused: Collection[str], shapes: Collection[str] = ()
) -> RunError:
    """The error for an encoder that the weights do not fill, with the nearest name of each."""
    hints = []
    for name in sorted(missing)[:SHOWN]:
        near = get_close_matches(name, list(unused), n=1, cutoff=0.8)
        hints.append(f"{name} (is it {near[0]}?)" if near else name)
    parts = [f"missing {_shortened(hints, len(missing))}"] if missing else []
    parts += [f"left over {listed(unused)}"] if unused else []
    parts += [f"other shape {listed(shapes)}"] if shapes else []
    return RunError(
        f"{source}: the encoder is incomplete: {'; '.join(parts)}. "
        "--key-map FILE.yaml gives names their own"
    )


def check_values(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses weights that are no finite real numbers.

    torch copies whole numbers of a quantised model, and NaN, without a word.

    Args:
        tensors: weights that a model computes with; no counters, and no indices.
        source: what an error names.

    Raises:
        RunError: names the first few.
    """
    kinds = {n: str(t.dtype)[6:] for n, t in tensors.items() if not t.is_floating_point()}
    if kinds:
        raise RunError(
            f"{source}: weights of {', '.join(sorted({*kinds.values()}))} where real numbers are "
            f"wanted: {listed(kinds)}; save a quantised model as it was before, or dequantise it"
        )
    if odd := [n for n, t in tensors.items() if not bool(t.isfinite().all())]:
        raise RunError(
            f"{source}: NaN or infinity in {listed(odd)}: the training diverged, or the file is "
            "damaged; take an earlier checkpoint"
        )


# ---- what every source makes of a name


@dataclass(frozen=True)
class ForeignModel:
    """A model from elsewhere.

    Args:
        name: as in tables.
        module: holds the encoder as `.encoder`; reconstructs where `no_decoder` is empty.
        preprocess: what its images go through.
        verdict: how its weights fit.
        no_decoder: why it cannot reconstruct.
        facts: what besides its weights its numbers depend on, as JSON values.
        kept: texts that the data it is tested on is read with, such as its tokenizer.
    """

    name: str
    module: Any
    preprocess: Preprocess | AsItIs
    verdict: Verdict
    no_decoder: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)


class EncoderHolder(nn.Module):
    """The module around an encoder that cannot reconstruct.

    Args:
        encoder: the encoder.
        decoder: one whose target nobody knows, which is kept unused.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        if decoder is not None:
            self.decoder = decoder


@contextlib.contextmanager
def asking(spec: str, download: bool = True) -> Iterator[None]:
    """Turns what a hub or its cache answers into one line.

    Raises:
        RunError: it cannot be had, with the reason.
    """
    # huggingface_hub's errors and those of its network library, of whichever it has
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        more = "" if download else "; nothing was downloaded: --download asks the hub"
        raise RunError(f"{spec} is not to be had here{more}: {reason}") from error
