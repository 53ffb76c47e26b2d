"""Names below any wrappers and any whole model give equal weights; what is not clear is asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maebench.errors import ConfigError
from maebench.models.naming import WRAPPERS, as_own, as_timm, unwrapped, without_wrappers
from maebench.models.weight_sets import WeightSet, find_set

NAMES = (
    *("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight"),
    *("blocks.0.norm1.weight", "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc1.weight"),
    *("norm.bias", "head.weight"),
)
VIT = {name: torch.full((2, 2), float(i)) for i, name in enumerate(NAMES)}
DECODER = {
    name: torch.full((3, 2), float(i))
    for i, name in enumerate(("decoder_embed.weight", "mask_token", "decoder_blocks.0.norm1.bias"))
}
HOLDERS = ("model", "encoder", "backbone", "net", "vit", "student", "a_b")


def named(tensors, key=""):
    return as_timm(WeightSet(key, tensors), None, "file:a.pth")


def under(prefix, tensors=VIT):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def same(found, wanted=VIT):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def wrapped_inside(name, places, wrapper):
    """The name with a wrapper's part before some of its parts."""
    parts = name.split(".")
    return ".".join(
        f"{wrapper}.{part}" if i in places and i < len(parts) else part
        for i, part in enumerate(parts)
    )


@given(
    st.lists(st.sampled_from([*WRAPPERS, *HOLDERS]), max_size=6),
    st.sets(st.integers(0, 3)),
    st.sampled_from(WRAPPERS),
    st.booleans(),
)
def test_any_wrappers_in_any_order_and_depth_around_a_whole_model_give_equal_weights(
    prefixes, places, wrapper, counted
):
    before = "".join(f"{prefix}." for prefix in prefixes)
    tensors = {before + wrapped_inside(n, places, wrapper): t for n, t in VIT.items()}
    if counted:
        tensors["n_averaged"] = torch.tensor(7)
    found = named(tensors)
    same(found.tensors)
    assert found.outside == ()
    assert found.notes == (("averaged over 7 models",) if counted else ())


@given(st.lists(st.sampled_from([*WRAPPERS, *HOLDERS]), max_size=4), st.sampled_from(WRAPPERS))
def test_the_names_of_a_network_are_found_below_any_prefix(prefixes, wrapper):
    before = "".join(f"{prefix}." for prefix in prefixes)
    own = {"conv1.weight": torch.ones(2, 2), "layer1.0.bn.running_mean": torch.zeros(2)}
    tensors = {before + wrapped_inside(n, {1}, wrapper): t for n, t in own.items()}
    found = as_own(WeightSet("", tensors), None, list(own), "timm:x")
    same(found.tensors, own)


def test_a_network_that_has_a_part_of_a_wrappers_name_keeps_it():
    own = {"stages.0.module.weight": torch.ones(2, 2)}  # as timm's iformer
    found = as_own(WeightSet("", under("_orig_mod.", own)), None, list(own), "timm:x")
    same(found.tensors, own)


@pytest.mark.slow
def test_torchs_own_wrappers_are_seen_through():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    plain = {n: t.clone() for n, t in model.state_dict().items()}
    averaged = torch.optim.swa_utils.AveragedModel(torch.compile(model))
    averaged.update_parameters(torch.compile(model))
    tensors = averaged.state_dict()
    assert "n_averaged" in tensors and "module._orig_mod.0.weight" in tensors
    found = as_own(WeightSet("", tensors), None, list(plain), "timm:x")
    same(found.tensors, plain)
    assert found.notes == ("averaged over 1 model",)


def test_blocks_that_were_compiled_or_checkpointed_one_by_one_are_seen_through():
    names = (
        *("blocks.3._checkpoint_wrapped_module.norm1.weight", "blocks.4._orig_mod.norm1.weight"),
        *("_fsdp_wrapped_module.blocks.5._fsdp_wrapped_module.mlp.fc1.bias", "module.norm.bias"),
    )
    made = without_wrappers(dict.fromkeys(names, torch.ones(1)), WRAPPERS, "file:a.pth")
    kept = ("blocks.3.norm1.weight", "blocks.4.norm1.weight", "blocks.5.mlp.fc1.bias", "norm.bias")
    assert tuple(made) == kept


def test_two_names_that_are_one_without_wrappers_are_refused_with_both():
    tensors = {
        "blocks.0.norm1.weight": torch.ones(1),
        "blocks.0.module.norm1.weight": torch.ones(1),
    }
    with pytest.raises(
        ConfigError,
        match=r"blocks\.0\.norm1\.weight and blocks\.0\.module\.norm1\.weight are both",
    ):
        named({**VIT, **tensors})


def test_a_decoder_beside_the_encoder_comes_along():
    tensors = {**under("backbone.vit."), **under("decoder.", DECODER)}
    tensors["backbone.mask_token"] = torch.zeros(1)  # of an encoder that keeps hidden patches
    found = named(tensors)
    same(found.tensors, {**VIT, **DECODER})
    assert found.outside == ("backbone.mask_token",)


def test_a_decoder_in_the_same_model_comes_along():
    same(named(under("model.", {**VIT, **DECODER})).tensors, {**VIT, **DECODER})


def test_what_lies_beside_the_encoder_is_named_and_never_takes_its_names():
    beside = {"norm.weight": torch.full((2, 2), 9.0), "projector.0.weight": torch.ones(2, 2)}
    found = named({**under("encoder."), **beside})
    same(found.tensors)
    assert found.outside == ("norm.weight", "projector.0.weight")


def test_student_and_teacher_are_asked_for():
    other = {name: tensor + 1 for name, tensor in VIT.items()}
    tensors = {**under("student.backbone."), **under("teacher.backbone.", other)}
    with pytest.raises(
        ConfigError,
        match=r"several sets of weights, model\.student\.backbone, model\.teacher\.backbone: say "
        r"which, as in ,key=model\.teacher\.backbone$",
    ):
        named(tensors, "model")
    for key in ("model.teacher", "model.teacher.backbone", "teacher", "teacher.backbone"):
        chosen = find_set({"model": tensors}, "a.pth", key)
        same(as_timm(chosen, None, "file:a.pth").tensors, other)


def test_raw_and_averaged_encoders_in_one_set_of_names_are_told_apart():
    other = {name: tensor + 1 for name, tensor in VIT.items()}
    content = {"state_dict": {**under("model."), **under("ema.module.", other)}}
    content["state_dict"]["ema.n_averaged"] = torch.tensor(3)
    found = as_timm(find_set(content, "a.ckpt", None), None, "file:a.ckpt")
    same(found.tensors)
    (note,) = found.notes
    assert note.startswith("the raw weights of key state_dict.model were taken")
    assert note.endswith(",key=state_dict.ema")
    found = as_timm(find_set(content, "a.ckpt", "state_dict.ema"), None, "file:a.ckpt")
    same(found.tensors, other)
    assert found.notes == ("averaged over 3 models",)


def test_an_encoder_that_holds_its_teacher_is_taken_with_a_word():
    found = named({**VIT, **under("teacher.")})
    same(found.tensors)
    assert found.notes == ("another encoder lies at teacher: ,key=teacher",)
    assert len(found.outside) == len(VIT)


def test_one_encoder_under_two_names_is_no_question():
    found = named({**under("model."), **under("compiled._orig_mod.")})
    same(found.tensors)
    assert found.notes == ()


def test_an_unknown_key_inside_names_is_answered_with_those_that_are_there():
    chosen = find_set({"model": under("teacher.")}, "a.pth", "model.techer")
    with pytest.raises(ConfigError, match=r"unknown key 'model.techer'.*mean 'model.teacher'"):
        as_timm(chosen, None, "file:a.pth")


def test_without_a_map_timms_names_stay():
    assert as_timm(WeightSet("", {"norm.weight": torch.ones(1)}), None, "x").tensors == {
        "norm.weight": torch.ones(1)
    }


@pytest.mark.parametrize("wrapped", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_before_every_name_are_gone_before_a_map_is_tried(wrapped):
    assert unwrapped(under(wrapped)).keys() == VIT.keys()
    assert unwrapped(under("module._orig_mod.module.x.")).keys() == under("x.").keys()
