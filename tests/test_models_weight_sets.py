"""Which of several sets of weights in a file is taken, and how the others are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maebench.errors import ConfigError, RunError
from maebench.models.weight_sets import find_set

FILE = Path("a.pth")


def weights(value=0.0):
    return {"a.weight": torch.full((2, 2), value), "a.bias": torch.zeros(2)}


RAW, MEAN = weights(1.0), weights(2.0)
OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(2, 2)}}, "param_groups": [{"lr": 1.0}]}


def found(content, key=None):
    return find_set(content, FILE, key)


@pytest.mark.parametrize(
    "inside", ["", "model", "state_dict", "model_state_dict", "module", "net", "encoder", "a.b"]
)
def test_one_set_of_weights_is_found_under_any_name(inside):
    content = RAW
    for key in reversed(inside.split(".") if inside else []):
        content = {key: content, "epoch": 3, "optimizer": OPTIMISER}
    one = found(content)
    assert (one.key, one.note, one.others) == (inside, "", ())
    assert one.tensors.keys() == RAW.keys()


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("model", "model_ema"),  # DeiT, ConvNeXt, the official fine-tuning code
        ("state_dict", "state_dict_ema"),  # timm
        ("net", "ema"),
        ("params", "params_ema"),  # BasicSR
        ("model", "ema_state_dict"),
        ("model_state_dict", "swa_model"),
        ("model", "averaged_model"),
        ("model", "model_EMA"),
    ],
)
def test_raw_weights_are_taken_with_a_word_and_averaged_ones_by_their_key(raw, averaged):
    content = {averaged: MEAN, raw: RAW, "epoch": 3, "optimizer": OPTIMISER, "ema_decay": 0.99}
    one = found(content)
    assert (one.key, one.others) == (raw, (averaged,))
    assert torch.equal(one.tensors["a.weight"], RAW["a.weight"])
    assert one.note == (
        f"the raw weights of key {raw} were taken; the file holds {averaged} too: ,key={averaged}"
    )
    other = found(content, averaged)
    assert torch.equal(other.tensors["a.weight"], MEAN["a.weight"])
    assert other.note == ""


def test_averaged_weights_alone_are_taken():
    assert found({"model_ema": MEAN, "epoch": 3}).key == "model_ema"
    assert found({"model_ema": MEAN, "model": None}).key == "model_ema"


@pytest.mark.parametrize(
    ("content", "example"),
    [
        ({"student": RAW, "teacher": MEAN, "dino_loss": {"center": torch.ones(1, 4)}}, "teacher"),
        (
            {"encoder": RAW, "predictor": weights(3.0), "target_encoder": MEAN, "opt": OPTIMISER},
            "target_encoder",
        ),
        ({"model": {"student": RAW, "teacher": MEAN}}, "model.teacher"),
        ({"model": RAW, "state_dict": MEAN}, "model"),
    ],
)
def test_where_none_is_the_obvious_one_the_key_is_asked_for(content, example):
    with pytest.raises(ConfigError, match=f"several sets of weights.*as in ,key={example}$"):
        found(content)
    assert found(content, example).key == example


def test_the_same_weights_saved_twice_are_one_set():
    assert found({"model": RAW, "state_dict": weights(1.0)}).note == ""


def test_a_key_leads_into_dictionaries_and_into_names():
    content = {"state_dict": {"teacher.a.weight": torch.ones(2, 2)}, "ema": {"module": MEAN}}
    assert found(content, "ema").key == "ema.module"
    inside = found(content, "state_dict.teacher")
    assert (inside.key, inside.within) == ("state_dict", "teacher")
    assert found({"model": RAW}, "teacher").within == "teacher"  # names are looked at later


def test_an_unknown_key_is_answered_with_those_that_are_there():
    with pytest.raises(ConfigError, match="unknown key 'teache'.*Did you mean 'teacher'.*student"):
        found({"student": RAW, "teacher": MEAN}, "teache")


def test_a_vector_or_the_state_of_an_optimiser_is_no_model():
    content = {
        "model": RAW,
        "queue": {"center": torch.zeros(4)},
        "opt": {"state": {"a.weight": MEAN}},
        "lr_scheduler": MEAN,
        "rng_state": MEAN,
    }
    assert found(content).others == ()


KEYS = st.sampled_from(["model", "net", "ema", "teacher", "model_ema", "x"])
TREES = st.recursive(
    st.sampled_from([RAW, MEAN, 3, None]),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(TREES)
def test_every_set_that_an_error_or_a_note_names_can_be_had_by_its_key(tree):
    content = {"top": tree, "model": RAW}
    try:
        one = found(content)
    except ConfigError as error:
        keys = str(error).partition("weights, ")[2].partition(":")[0].split(", ")
        assert len(keys) > 1
    else:
        keys = [one.key, *one.others]
    for key in keys:
        assert found(content, key).key == key


def test_tensors_that_repeat_a_number_to_terabytes_are_refused_before_they_are_compared():
    repeated = {"a.weight": torch.zeros(1).expand(10**6, 10**6)}
    with pytest.raises(RunError, match=r"stand for 8,000,.* it holds 8: a.weight alone repeats"):
        found({"model": repeated, "model_ema": {"a.weight": torch.ones(1).expand(10**6, 10**6)}})


def test_weights_that_blocks_share_and_a_small_expanded_buffer_are_read():
    shared = torch.zeros(64, 64)
    content = {f"blocks.{n}.weight": shared for n in range(48)}
    assert len(found({**content, "ids": torch.zeros(1).expand(1, 512)}).tensors) == 49


def test_dictionaries_within_each_other_that_grow_by_powers_are_refused():
    inner = {"a": 1}
    for _ in range(3):
        inner = {f"k{n}": inner for n in range(200)}
    with pytest.raises(RunError, match="holds more than 100,000 dictionaries"):
        found(inner)


def test_more_sets_than_can_be_compared_are_refused():
    with pytest.raises(RunError, match="or 256 of weights"):
        found({f"k{n}": {"a.weight": torch.full((1, 2), float(n))} for n in range(300)})


@pytest.mark.parametrize("names", [[f"a{n}" for n in range(20_001)], ["a" * 1001]])
def test_more_names_or_longer_ones_than_any_models_are_refused(names):
    one = torch.zeros(1, 1)
    with pytest.raises(RunError, match="20,000 of 1,000 are the most") as error:
        found({"model": dict.fromkeys(names, one)})
    assert len(str(error.value)) < 200
