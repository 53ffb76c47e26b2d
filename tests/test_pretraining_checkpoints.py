"""Checkpoints: what is loaded is what was saved, or the one before it."""

from __future__ import annotations

import json
import resource
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maebench.errors import RunError
from maebench.pretraining import checkpoints
from maebench.pretraining.checkpoints import (
    MANIFEST,
    STATE,
    load_newest,
    load_strictly,
    store,
    weights_hash,
)


def tensors(step=0):
    return {
        "model.weight": torch.arange(6.0).view(2, 3) + step,
        "model.strided": torch.arange(6.0).view(2, 3).t(),  # not contiguous
        "model.half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "optimiser.weight/step": torch.tensor(float(step)),
        "optimiser.count": torch.tensor([2**40 + step]),
        "empty": torch.zeros(0, 3),
    }


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in one
    )


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the steps 5 and 10."""
    for step in (5, 10):
        store(tmp_path / "checkpoint", step, tensors(step), {"loss": 0.1 * step})
    return tmp_path / "checkpoint"


def test_what_was_saved_is_loaded_to_the_last_bit(folder):
    found, manifest = load_newest(folder)
    assert same(found, tensors(10))
    assert (manifest["step"], manifest["loss"]) == (10, 1.0)
    model = {k: t for k, t in tensors(10).items() if k.startswith("model.")}
    assert manifest["weights"] == weights_hash(model)


def test_only_the_newest_two_are_kept(folder):
    store(folder, 123_456, tensors(), {})
    store(folder, 123_457, tensors(), {})
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    assert [p.name for p in checkpoints.steps(folder)] == ["step-000123456", "step-000123457"]
    assert len(list(folder.iterdir())) == 2
    assert checkpoints.newest(folder)["step"] == 123_457


def test_where_nothing_was_saved_nothing_is_found(tmp_path):
    assert load_newest(tmp_path) is None and checkpoints.newest(tmp_path) is None


def falls_back(folder):
    """Loads; the damaged newest one is moved aside with a warning, step 5 comes."""
    with pytest.warns(UserWarning, match="moved to damaged-step-000000010"):
        found, manifest = load_newest(folder)
    assert manifest["step"] == 5 and same(found, tensors(5))
    assert (folder / "damaged-step-000000010").is_dir()
    assert [p.name for p in checkpoints.steps(folder)] == ["step-000000005"]
    return True


@given(st.data())
@pytest.mark.slow
def test_one_damaged_byte_of_the_weights_is_noticed_wherever_it_is(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    for step in (5, 10):
        store(folder, step, tensors(step), {})
    path = folder / "step-000000010" / STATE
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert falls_back(folder)


def test_a_manifest_that_lies_about_step_or_hash_is_noticed(folder):
    path = folder / "step-000000010" / MANIFEST
    manifest = json.loads(path.read_text())
    for wrong in (
        {**manifest, "step": 90},
        {**manifest, "step": "10"},
        {**manifest, "sha256": "0" * 64},
        {k: v for k, v in manifest.items() if k != "step"},
        {k: v for k, v in manifest.items() if k != "sha256"},
        [manifest],
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(RunError, match="is damaged|cannot be read"):
            checkpoints.load(path.parent)
    assert falls_back(folder)


@pytest.mark.parametrize("name", [STATE, MANIFEST])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.98])
def test_a_file_that_is_cut_off_is_noticed(folder, name, share):
    path = folder / "step-000000010" / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    if name == MANIFEST:  # whether a run is finished is asked before anything is repaired
        assert checkpoints.newest(folder)["step"] == 5
    assert falls_back(folder)


def test_a_checkpoint_without_weights_is_damaged_and_one_without_manifest_is_none(folder):
    (folder / "step-000000005" / MANIFEST).unlink()
    (folder / "step-000000010" / STATE).unlink()
    with pytest.warns(UserWarning, match="moved to damaged"):
        assert load_newest(folder) is None


def test_a_second_damaged_one_of_the_same_step_replaces_the_first(folder):
    for _ in range(2):
        path = folder / "step-000000010" / STATE
        path.write_bytes(b"")
        assert falls_back(folder)
        store(folder, 10, tensors(10), {})
    assert load_newest(folder)[1]["step"] == 10


def test_a_full_disk_is_one_clear_error_and_the_checkpoints_before_stay(folder):
    """The file size limit of the system stands for a full disk: writing fails inside safetensors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"model.weight": torch.zeros(100_000)}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(RunError, match=r"cannot write .*step-000000015") as caught:
            store(folder, 15, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in folder.iterdir()) == ["step-000000005", "step-000000010"]
    assert load_newest(folder)[1]["step"] == 10


# --- hashes


def changed(name):
    found = tensors()
    if name == "a value by one bit":
        found["model.weight"].view(-1).view(torch.int32)[5] ^= 1
    elif name == "a sign of zero":
        found["model.half"] = found["model.half"].abs()
    elif name == "a large integer":
        found["optimiser.count"] += 1
    elif name == "a double by one bit":
        found["model.weight"] = found["model.weight"].double()
        found["model.weight"][0, 0] = 1e-300
    elif name == "a shape":
        found["model.weight"] = found["model.weight"].view(3, 2)
    elif name == "a type":
        found["model.weight"] = found["model.weight"].int()
    elif name == "a name":
        found["model.weigh"] = found.pop("model.weight")
    elif name == "one more":
        found["more"] = torch.zeros(0)
    elif name == "one less":
        del found["empty"]
    elif name == "two exchanged":
        found["a"], found["b"] = found["model.weight"], found["model.weight"] + 1
    return found


CHANGES = [
    *("a value by one bit", "a sign of zero", "a large integer", "a double by one bit", "a shape"),
    *("a type", "a name", "one more", "one less", "two exchanged"),
]


def test_the_hash_of_weights_notices_any_change():
    base = weights_hash(tensors())
    marks = {name: weights_hash(changed(name)) for name in CHANGES}
    assert base not in marks.values() and len(set(marks.values())) == len(CHANGES)
    other = changed("two exchanged")
    other["a"], other["b"] = other["b"], other["a"]
    assert weights_hash(other) != marks["two exchanged"]


def test_the_hash_of_doubles_is_exact():
    one = torch.tensor([1.0], dtype=torch.float64)
    assert weights_hash({"a": one}) != weights_hash({"a": one + 1e-15})


def test_the_hash_of_weights_does_not_depend_on_order_memory_or_gradients():
    base = weights_hash(tensors())
    backwards = dict(reversed(tensors().items()))
    assert weights_hash(backwards) == base
    for name in ("model.weight", "model.strided"):
        backwards[name] = backwards[name].contiguous().requires_grad_()
    assert weights_hash(backwards) == base


# --- loading into a module


def test_weights_that_fit_are_loaded():
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    state = {f"model.{k}": t for k, t in one.state_dict().items()}
    load_strictly(other, checkpoints.part({**state, "teacher.x": torch.zeros(1)}, "model."), "run")
    assert same(other.state_dict(), one.state_dict())


def test_weights_that_do_not_fit_are_refused_with_every_key_and_nothing_is_changed():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {k: t.clone() for k, t in module.state_dict().items()}
    given_weights = {k: t + 1 for k, t in before.items()}
    given_weights["2.weight"] = given_weights.pop("1.bias")
    given_weights["0.weight"] = torch.zeros(3, 3)
    with pytest.raises(RunError) as caught:
        load_strictly(module, given_weights, "run x")
    message = str(caught.value)
    assert "weights of run x do not fit" in message
    assert "missing ['1.bias'], left over ['2.weight'], other shape ['0.weight']" in message
    assert same(module.state_dict(), before)


# Of a GPU: written while the next steps are computed.


@pytest.fixture
def copied(monkeypatch):
    """Copies of a GPU, made on the CPU; the list says how many have arrived."""
    arrived = []

    def off_device(tensors, device):
        return {k: t.clone() for k, t in tensors.items()}, lambda: arrived.append(device)

    monkeypatch.setattr(checkpoints, "off_device", off_device)
    return arrived


def test_a_gpus_state_is_kept_as_it_was_when_it_was_asked_for(tmp_path, copied):
    state = tensors(3)
    with checkpoints.storing("cuda:1") as later:
        later(tmp_path, 3, state, {"loss": 1.0})
        for value in state.values():
            value.zero_()
    found, manifest = load_newest(tmp_path)
    assert same(found, tensors(3)) and manifest["loss"] == 1.0
    assert copied == ["cuda:1"]


def test_one_checkpoint_is_written_at_a_time_and_steps_do_not_wait(tmp_path, copied, monkeypatch):
    may_write, written = threading.Event(), []

    def slow(folder, step, tensors, facts):
        assert may_write.wait(60)
        written.append(step)
        return 0.5

    monkeypatch.setattr(checkpoints, "store", slow)
    with checkpoints.storing("cuda") as later:
        later(tmp_path, 1, tensors(), {})
        assert written == []  # and yet this line is reached
        may_write.set()
        later(tmp_path, 2, tensors(), {})
        assert 1 in written
    assert written == [1, 2]


def test_what_goes_wrong_while_it_is_written_is_raised_by_the_next_or_at_the_end(
    tmp_path, copied, monkeypatch
):
    def full(*_):
        raise RunError("the disk is full")

    monkeypatch.setattr(checkpoints, "store", full)
    with pytest.raises(RunError, match="full"), checkpoints.storing("cuda") as later:
        later(tmp_path, 1, tensors(), {})
    reached = []
    with pytest.raises(RunError, match="full"), checkpoints.storing("cuda") as later:
        later(tmp_path, 1, tensors(), {})
        later(tmp_path, 2, tensors(), {})
        reached.append(2)
    assert not reached


def test_on_a_cpu_nothing_is_put_off():
    with checkpoints.storing("cpu") as now:
        assert now is store


def test_an_error_of_the_run_is_raised_and_one_of_its_checkpoint_noted(
    tmp_path, copied, monkeypatch
):
    def full(*_):
        raise RunError("the disk is full")

    monkeypatch.setattr(checkpoints, "store", full)
    with pytest.raises(ValueError, match="ours") as caught, checkpoints.storing("cuda") as later:
        later(tmp_path, 1, tensors(), {})
        raise ValueError("ours")
    assert caught.value.__notes__ == ["and the checkpoint before was not written: the disk is full"]


def test_the_seconds_of_writing_are_told_by_the_next_call(tmp_path, copied):
    assert store(tmp_path, 1, tensors(), {}) > 0
    with checkpoints.storing("cuda") as later:
        assert later(tmp_path, 2, tensors(), {}) == 0
        assert later(tmp_path, 3, tensors(), {}) > 0
