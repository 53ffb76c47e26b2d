"""`file:`, `timm:` and `hf:` to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from maebench.errors import ConfigError
from maebench.weights import from_hf, from_timm
from maebench.weights.foreign import Foreign, adapted
from maebench.weights.given import USES, Given, read_given
from maebench.weights.plain import from_weights
from maebench.weights.read import read_weights
from maebench.weights.verdict import RANDOM

WANTS = {"file": "PATH", "timm": "NAME, such as timm:vit_tiny_patch16_224", "hf": "OWNER/NAME"}


def load_foreign(
    kind: str, name: str, options: Mapping[str, str], download: bool = False
) -> Foreign:
    """The model that `file:`, `timm:` or `hf:` and a name mean.

    Args:
        kind: "file", "timm" or "hf".
        name: what follows the colon, without options.
        options: those of the MODEL string.
        download: whether a hub may be asked.

    Raises:
        MaebenchError: there is no such model, its weights do not fit, or an option is wrong.
    """
    spec = f"{kind}:{name}"
    if not name:
        raise ConfigError(f"{spec} names nothing: write {kind}:{WANTS[kind]}")
    given = read_given(kind, spec, options)
    made = LOADERS[kind](name, given, spec, download)
    made.module.eval().requires_grad_(False)
    changed = adapted(made.preprocess, given, spec)
    shown = "".join(f",{k.replace('_', '-')}={v}" for k, v in options.items() if k != "key_map")
    label = f" ({RANDOM})" if made.verdict.text == RANDOM else ""
    return replace(made, name=f"{made.name}{shown}{label}", preprocess=changed)


def from_file(path: str, given: Given, spec: str, download: bool) -> Foreign:
    """A vision transformer's checkpoint, with or without a decoder; or a folder of transformers."""
    place = Path(path).expanduser()
    if place.is_dir() and from_hf.kind_of(place) in from_hf.TYPES:
        moot = [key.replace("_", "-") for key in USES["file"] if getattr(given, key) is not None]
        if moot:
            raise ConfigError(f"{spec}: its config.json says all; leave out {', '.join(moot)}")
        return from_hf.from_folder(place, given, spec)
    return from_weights(read_weights(place), given, spec)


LOADERS = {"file": from_file, "timm": from_timm.from_timm, "hf": from_hf.from_hf}
