"""An evaluation that is interrupted ends with the bits of one that is not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tiny
import torch

from maebench.evaluating import partial, records, suite
from maebench.evaluating.partial import Kept
from maebench.evaluating.tensors import write_tensors
from maebench.plugins import installed
from maebench.rng import isolated

EVALUATIONS = {
    "linear-probe": ({}, 5),
    "logistic": ({}, 4),
    "finetune": ({"epochs": 8, "drop_path": 0.2}, 4),
    "finetune with mixup": ({"epochs": 8, "mixup": 0.8, "cutmix": 1.0}, 7),
}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """The state is kept each time."""
    monkeypatch.setattr(partial, "SECONDS", 0.0)
    monkeypatch.setattr(partial, "SHARE", 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny.plan(folder)
    return folder


def counted(monkeypatch, last=None):
    """Counts how often a state is kept; the last time the work is interrupted."""
    keep, count = Kept.keep, []

    def kept(self, state):
        keep(self, state)
        count.append(self)
        if len(count) == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "keep", kept)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("name", EVALUATIONS)
def test_what_was_interrupted_ends_with_the_same_bits(trained, monkeypatch, name):
    options, last = EVALUATIONS[name]
    evaluation = installed().table["evaluation"][name.split(" ")[0]](**options)
    model = tiny.load(trained)
    with monkeypatch.context() as patch:
        whole = counted(patch)
        path = suite.evaluate(model, evaluation, again=True)
    once = {k: v.copy() for k, v in np.load(path.with_suffix(".npz")).items()}
    rows = [(row["metric"], row["where"], row["value"]) for row in records.read(path)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, last)
        suite.evaluate(model, evaluation, again=True)
    assert len(list((model.folder / partial.FOLDER).glob("*.safetensors"))) >= 1
    random.seed(5), torch.manual_seed(5)  # where it goes on, other things came before
    with monkeypatch.context() as patch:
        rest = counted(patch)
        suite.evaluate(model, evaluation, again=True)
    assert len(rest) < len(whole)
    twice = dict(np.load(path.with_suffix(".npz")))
    assert once.keys() == twice.keys() and all(np.array_equal(once[k], twice[k]) for k in once)
    assert rows == [(row["metric"], row["where"], row["value"]) for row in records.read(path)]
    assert list((model.folder / partial.FOLDER).iterdir()) == []


def states():
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_the_random_state_goes_on_with_the_state(tmp_path):
    path = tmp_path / "a.safetensors"
    with isolated(0, "test"):
        states()
        Kept(path, "me", "cpu").keep(lambda: {"x": torch.ones(2)})
        wanted = states()
    with isolated(1, "test"):
        found = Kept(path, "me", "cpu").state
        assert torch.equal(found["x"], torch.ones(2)) and states() == wanted


@pytest.mark.parametrize("more", [None, [], {"python": 3}, {"python": [3, [0] * 625, None]}, "x"])
def test_states_that_are_none_begin_anew_and_leave_the_random_state(tmp_path, more):
    path = tmp_path / "a.safetensors"
    write_tensors(path, "me", {"x": torch.ones(2)}, more)
    with isolated(0, "test"):
        wanted = states()
    with isolated(0, "test"):
        with pytest.warns(UserWarning, match=r"a\.safetensors is damaged: .*: me begins anew"):
            assert Kept(path, "me", "cpu").state == {}
        assert states() == wanted


def test_what_cannot_be_kept_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "a.safetensors", "me", "cpu")
    with pytest.warns(UserWarning, match="how far me is is not kept") as said:
        for _ in range(3):
            kept.keep(lambda: {"x": torch.ones(2)})
    assert len(said) == 1


def test_nothing_is_kept_where_no_record_is_made_or_it_is_not_time(tmp_path, monkeypatch):
    partial.part_of(tmp_path, "", "part", "cpu").keep(lambda: pytest.fail("asked"))
    monkeypatch.setattr(partial, "SECONDS", 100.0)
    partial.part_of(tmp_path, "record", "part", "cpu").keep(lambda: pytest.fail("asked"))
    assert not (tmp_path / partial.FOLDER).exists()


def test_the_parts_of_one_record_alone_are_cleared(tmp_path):
    for record in ("knn-v1-aa-s0", "knn-v1-bb-s0"):
        for what in ("one", "two"):
            kept = partial.part_of(tmp_path, record, what, "cpu")
            kept.keep(lambda: {"x": torch.ones(1)})
    partial.clear(tmp_path, "knn-v1-aa-s0")
    left = [path.name for path in (tmp_path / partial.FOLDER).iterdir()]
    assert len(left) == 2 and all(name.startswith("knn-v1-bb-s0-") for name in left)
