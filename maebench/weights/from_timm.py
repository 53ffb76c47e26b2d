"""A model of timm, its weights from a file, the hub or its cache, or random ones."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, unknown
from maebench.rng import isolated
from maebench.weights import vit
from maebench.weights.foreign import Foreign
from maebench.weights.given import Given
from maebench.weights.hub import asking
from maebench.weights.names import as_timm
from maebench.weights.plain import RESAMPLE
from maebench.weights.read import read_weights
from maebench.weights.verdict import COMPLETE, NO_HEAD, RANDOM, Verdict, incomplete


def from_timm(name: str, given: Given, spec: str, download: bool) -> Foreign:
    """The model of this name behind the encoder's contract."""
    import timm
    from timm.data import resolve_model_data_config

    from maebench.weights.timm_module import TimmEncoder

    check_name(timm, name, spec)
    if given.key_map is not None and given.weights is None:
        raise ConfigError(f"{spec}: a key map is for ,weights=FILE, which is not given")
    with isolated(0, "timm", name):
        model = timm.create_model(name, pretrained=False)
    wanted = ("forward_features", "forward_intermediates", "reset_classifier")
    if not all(hasattr(model, method) for method in wanted):
        raise ConfigError(f"{spec}: this model of timm gives no features")
    told = fill(timm, model, name, given, spec, download)
    data = resolve_model_data_config(model)
    model.reset_classifier(0)
    size = given.size or tuple(data["input_size"][1:])
    check_size(model, size, spec)
    how = data["interpolation"] if data["interpolation"] in RESAMPLE.values() else "bicubic"
    holder: Any = nn.Module()
    try:
        if given.size is not None and hasattr(model, "set_input_size"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # timm's own indexing, of which torch complains
                model.set_input_size(img_size=size)  # positions are interpolated
        with isolated(0, "timm shape"):
            holder.encoder = TimmEncoder(model, size, data["input_size"][0])
    # what timm's models raise on a size that they cannot take
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{spec}: image-size {size[0]},{size[1]}: {reason}") from error
    chosen = Preprocess(
        size, holder.encoder.channels, data["mean"], data["std"], how, float(data["crop_pct"])
    )
    facts = {"timm": timm.__version__, "architecture": name}
    return Foreign(spec, holder, chosen, told, "timm's models have no decoder", facts)


def check_size(model: Any, size: tuple[int, int], spec: str) -> None:
    """Refuses a size that patches do not divide: pixels at its edge would not be seen.

    Raises:
        ConfigError: names both.
    """
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and (size[0] % patch[0] or size[1] % patch[1]):
        raise ConfigError(
            f"{spec}: image-size {size[0]},{size[1]}: patches of {patch[0]}x{patch[1]} do not "
            "divide it"
        )


def check_name(timm: Any, name: str, spec: str) -> None:
    """Refuses a name that timm does not have, or a tag that the architecture does not have.

    Raises:
        ConfigError: names the nearest; all of them are over a thousand.
    """
    architecture = name.partition(".")[0]
    known = timm.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=8, cutoff=0.3) or known[:8]
        raise ConfigError(unknown("model of timm", name, near, spec))
    if "." in name and name not in timm.list_pretrained():
        tags = timm.list_pretrained(f"{architecture}.*")
        raise ConfigError(unknown("weights of timm", name, tags, spec))


def fill(timm: Any, model: Any, name: str, given: Given, spec: str, download: bool) -> Verdict:
    """Loads weights into a model of timm and says how they fit."""
    if given.weights is not None:
        return from_own_file(model, given, spec)
    here = cached(model)
    if not download and here is None:
        hint = (
            "no hub was asked and nothing of it is on this machine: --download fetches weights, "
            ",weights=FILE takes yours"
        )
        return Verdict(RANDOM, "timm's initialisation", 0, notes=(hint,))
    with asking(spec):
        # what is here is read from here: without --download nobody is asked for a newer one
        overlay = {} if download else {"pretrained_cfg_overlay": {"file": here}}
        fresh = timm.create_model(name, pretrained=True, **overlay)
    model.load_state_dict(fresh.state_dict())
    source = model.pretrained_cfg.get("hf_hub_id") or "the hub"
    return Verdict(COMPLETE, str(source), len(model.state_dict()))


def cached(model: Any) -> str | None:
    """The hub's file of this model on this machine, or None."""
    from huggingface_hub import try_to_load_from_cache

    hub = model.pretrained_cfg.get("hf_hub_id")
    for name in ("model.safetensors", "pytorch_model.bin") if hub else ():
        path = try_to_load_from_cache(hub, name)
        if isinstance(path, str):
            return path
    return None


def from_own_file(model: Any, given: Given, spec: str) -> Verdict:
    """Loads a file's weights; its head may be missing or another, its encoder may not.

    Raises:
        RunError: a weight of the encoder is missing, has another shape, or is one too many.
    """
    assert given.weights is not None
    own = model.state_dict()
    key_map = vit.given_map(given)
    tensors = read_weights(Path(given.weights)).tensors
    tensors = tensors if key_map is None else as_timm(tensors, key_map)
    named = model.pretrained_cfg.get("classifier") or "head"
    heads = tuple(f"{n}." for n in ((named,) if isinstance(named, str) else named))
    missing, unused = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    bent = {n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape}
    lost = {n for n in missing | bent if n.startswith(heads)}
    # a decoder and its token belong to pretraining; anything else would change the features
    strange = {n for n in unused if not vit.HEADS_NAMES.match(n) and not n.startswith(heads)}
    if missing - lost or bent - lost or strange:
        raise incomplete(spec, missing - lost, strange, bent - lost)
    taken = {n: tensors[n] for n in own.keys() - lost}
    model.load_state_dict({**own, **taken})
    text = NO_HEAD if lost else COMPLETE
    return Verdict(text, str(given.weights), len(taken), tuple(sorted(lost)), tuple(sorted(unused)))
