"""Weights for a model of timm: of a file, the hub or random, and how they fit."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from maebench.errors import ConfigError
from maebench.files import with_home
from maebench.models.grid import learned_grid, sincos_grid
from maebench.models.naming import HEAD_NAMES, NamedWeights, as_own
from maebench.models.pooled_norm import NOTE
from maebench.models.reading import Facts, read_weights
from maebench.models.spec import SpecOptions
from maebench.models.trained_size import trained_grid
from maebench.models.weights import (
    COMPLETE,
    NO_HEAD,
    RANDOM,
    Verdict,
    asking,
    check_values,
    incomplete,
)
from maebench.rng import isolated

NORMS = ("norm.", "fc_norm.")  # the last norm, before pooling or after it


def made(name: str, **changes: Any) -> Any:
    """Timm's network of this name with weights drawn, the same each time."""
    import timm

    with isolated(0, "timm", name):
        return timm.create_model(name, pretrained=False, **changes)


def filled(
    network: Any, name: str, options: SpecOptions, spec: str, download: bool
) -> tuple[Any, Verdict]:
    """A model of timm with weights, and how they fit."""
    import timm

    if options.weights is not None:
        return filled_from_file(network, name, options, spec)
    here = cached(network)
    if not download and here is None:
        hint = (
            "no hub was asked and nothing of it is on this machine: --download fetches weights, "
            ",weights=FILE takes yours"
        )
        return network, Verdict(RANDOM, "timm's initialisation", 0, notes=(hint,))
    with asking(spec):
        # what is here is read from here: without --download nobody is asked for a newer one
        overlay = {} if download else {"pretrained_cfg_overlay": {"file": here}}
        fresh = timm.create_model(name, pretrained=True, **overlay)
    network.load_state_dict(fresh.state_dict())
    source = network.pretrained_cfg.get("hf_hub_id") or "the hub"
    return network, Verdict(COMPLETE, str(source), len(network.state_dict()))


def cached(network: Any) -> str | None:
    """The hub's file of this model on this machine, or None."""
    from huggingface_hub import try_to_load_from_cache

    hub = network.pretrained_cfg.get("hf_hub_id")
    for name in ("model.safetensors", "pytorch_model.bin") if hub else ():
        path = try_to_load_from_cache(hub, name)
        if isinstance(path, str):
            return path
    return None


def filled_from_file(
    network: Any, name: str, options: SpecOptions, spec: str
) -> tuple[Any, Verdict]:
    """The network with a file's weights; its head may be missing or another, its encoder may not.

    Raises:
        RunError: a weight of the encoder is missing, has another shape, or is one too many.
        ConfigError: the weights are of another image size, and nobody says which to take.
    """
    assert options.weights is not None
    found = read_weights(with_home(options.weights), options.key)
    needed = [n for n in network.state_dict() if not n.startswith((*heads_of(network), *NORMS))]
    named = as_own(found.chosen, options.key_map, needed, spec)
    changes, notes = changes_for(network, named, found.facts, options, spec)
    if changes:
        try:
            network = made(name, **changes)
        except (TypeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ConfigError(f"{spec}: {', '.join(notes)}: timm cannot: {reason}") from error
    return network, loaded(network, named, str(options.weights), spec, notes)


def loaded(network: Any, named: NamedWeights, source: str, spec: str, notes: list[str]) -> Verdict:
    """Loads weights into a network and says how they fit.

    Raises:
        RunError: a weight of the encoder is missing, has another shape, or is one too many.
    """
    own, tensors, heads = network.state_dict(), named.tensors, heads_of(network)
    missing, unused = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    wrong = {n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape}
    lost = {n for n in missing | wrong if n.startswith(heads)}
    # a decoder and its token belong to pretraining; anything else would change the features
    strange = {n for n in unused if not HEAD_NAMES.match(n) and not n.startswith(heads)}
    if missing - lost or wrong - lost or strange:
        raise incomplete(spec, missing - lost, strange, wrong - lost)
    taken = {n: tensors[n] for n in own.keys() - lost}
    check_values({n: t for n, t in taken.items() if own[n].is_floating_point()}, spec)
    network.load_state_dict({**own, **taken})
    return Verdict(
        text=NO_HEAD if lost else COMPLETE,
        source=source,
        used=len(taken),
        missing=tuple(sorted(lost)),
        unused=tuple(sorted({*unused, *named.outside})),
        notes=(*named.notes, *notes),
    )


def heads_of(network: Any) -> tuple[str, ...]:
    """How the names of a network's classifiers begin."""
    named = network.pretrained_cfg.get("classifier") or "head"
    return tuple(f"{n}." for n in ((named,) if isinstance(named, str) else named))


def changes_for(
    network: Any, named: NamedWeights, facts: Facts, options: SpecOptions, spec: str
) -> tuple[dict[str, Any], list[str]]:
    """What the network has to be made with for these weights, and what is to be said of it."""
    changes: dict[str, Any] = {}
    notes: list[str] = []
    own, tensors = network.state_dict(), named.tensors
    # fine-tuned on the mean of the patch tokens: the last norm comes after it
    if "norm.weight" in own.keys() - tensors.keys() and "fc_norm.weight" in tensors:
        changes["global_pool"] = "avg"
        notes.append(NOTE)
    mine, theirs = own.get("pos_embed"), tensors.get("pos_embed")
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if mine is None or theirs is None or grid is None or mine.shape[-1] != theirs.shape[-1]:
        return changes, notes
    found, note = grid_of_file(network, theirs, facts, options, spec)
    notes += [note] if note else []
    if found is not None and found != tuple(grid):
        patch = network.patch_embed.patch_size
        trained = found[0] * patch[0], found[1] * patch[1]
        changes["img_size"] = trained
        if options.size is None:
            sides = f"{trained[0]}x{trained[1]}"
            raise ConfigError(
                f"{spec}: its positions are those of {found[0]}x{found[1]} patches, images of "
                f"{sides}: add ,image-size={trained[0]},{trained[1]}, or another size, to which "
                "they are resampled"
            )
        if options.size != trained:
            notes.append(
                f"positions of {trained[0]}x{trained[1]} images resampled for "
                f"{options.size[0]}x{options.size[1]}"
            )
    return changes, notes


def grid_of_file(
    network: Any, positions: Tensor, facts: Facts, options: SpecOptions, spec: str
) -> tuple[tuple[int, int] | None, str]:
    """The grid of patches of a file's positions, and a note where nobody states it."""
    own, grid = network.state_dict()["pos_embed"], network.patch_embed.grid_size
    if positions.ndim == 4 and own.ndim == 4:  # rows and columns are axes, as in SAM
        return (positions.shape[1], positions.shape[2]), ""
    prefix = own.shape[1] - grid[0] * grid[1] if own.ndim == 3 else -1
    length = positions.shape[1] - prefix
    if positions.ndim != 3 or prefix < 0 or length < 1:  # of another kind than positions of patches
        return None, ""
    patch = network.patch_embed.patch_size
    sides = [grid] if options.size is None else [grid, _over(options.size, patch)]
    fitting = [tuple(g) for g in sides if g[0] * g[1] == length]
    shown = sincos_grid(positions[0, prefix:]) or learned_grid([positions[0, prefix:]])
    if fitting and shown in (None, *fitting):
        return shown or fitting[0], ""
    unsized = options.model_copy(update={"image_size": None})  # it is what they are resampled to
    return trained_grid(positions[0], (prefix,), patch, (unsized, facts, spec))


def _over(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    return size[0] // patch[0], size[1] // patch[1]
