"""Reading a file of torch.save never runs code; values that run nothing are let in."""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from saved import write

from maebench.errors import RunError
from maebench.models.pickles import read_pickle
from maebench.models.reading import read_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


class Runs:
    """What a malicious file holds: unpickling it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("where", ["args", "model", "alone"])
def test_a_pickle_that_would_run_a_command_is_refused_by_name_and_does_not_run_it(
    tmp_path, how, where
):
    mark = tmp_path / "ran"
    bad = Runs(f"touch {mark}")
    # tensors in a bare pickle are themselves refused: torch loads their bytes with a function
    beside = {} if how == "pickle" else TENSORS
    content = {"args": {"model": beside, "args": bad}, "model": {"model": {"a": bad}}}
    path = write(tmp_path / "bad.pth", content.get(where, bad), how)
    with pytest.raises(RunError, match=r"bad.pth is refused: .*(posix|nt)\.system would have to"):
        read_weights(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Runs(f"touch {mark}")))  # it would have
    assert mark.exists()


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (np.array([print], dtype=object), r"builtins\.print|__builtin__\.print|print"),
        (np.array([1, "a"], dtype=object), "ObjectDType|cannot be read"),
        (slice(1), "slice"),
    ],
    ids=["module", "array of functions", "array of objects", "slice"],
)
def test_whatever_is_no_inert_value_is_refused_with_how_to_save_again(tmp_path, thing, named):
    path = write(tmp_path / "odd.pth", {"model": TENSORS, "args": thing})
    with pytest.raises(RunError, match=named) as caught:
        read_weights(path)
    if "is refused" in str(caught.value):
        assert "save the weights alone: torch.save(model.state_dict(), 'weights.pth')" in str(
            caught.value
        )
    assert "\n" not in str(caught.value)


ZONE = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5),
        np.float32(0.5),
        np.int64(7),
        np.bool_(True),
        np.str_("a"),
        np.datetime64("2024-01-01"),
        np.complex64(1j),
        np.dtype("float32"),
        datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=ZONE),
        datetime.date(2024, 1, 2),
        datetime.timedelta(seconds=3),
        types.SimpleNamespace(lr=np.float64(1e-3)),
        argparse.Namespace(best=np.float64(3), output_dir=pathlib.PurePosixPath("a/b")),
        {"nested": [np.float32(1), (pathlib.PureWindowsPath("c:/d"),)]},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_numbers_paths_and_dates_beside_weights_are_read(tmp_path, value, how):
    path = write(tmp_path / "a.pth", {"model": TENSORS, "best": value}, how)
    assert read_pickle(path)["best"] == value
    assert read_weights(path).chosen.tensors.keys() == TENSORS.keys()


def test_arrays_and_random_states_of_numpy_beside_weights_are_read(tmp_path):
    state = np.random.RandomState(3).get_state()
    history = np.linspace(0, 1, 7).reshape(1, 7).T
    path = write(tmp_path / "a.pth", {"model": TENSORS, "rng": state, "history": history})
    read = read_pickle(path)
    np.testing.assert_array_equal(read["history"], history)
    np.testing.assert_array_equal(read["rng"][1], state[1])


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_a_number_is_read_whichever_numpy_wrote_it(tmp_path, module):
    path = write(tmp_path / "a.pth", {"model": {}, "best": np.float64(0.5)}, "legacy")
    content = path.read_bytes().replace(b"numpy._core.multiarray", f"{module}.multiarray".encode())
    path.write_bytes(content)
    assert read_pickle(path)["best"] == 0.5


@pytest.mark.parametrize("name", ["PosixPath", "WindowsPath", "PurePosixPath"])
@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_a_path_of_any_system_and_python_becomes_a_pure_one(tmp_path, name, module):
    args = argparse.Namespace(data=Path("a/b"))
    path = write(tmp_path / "a.pth", {"model": {}, "args": args}, "legacy")
    written = f"{type(args.data).__module__}\n{type(args.data).__name__}\n".encode()
    content = path.read_bytes()
    assert written in content
    path.write_bytes(content.replace(written, f"{module}\n{name}\n".encode()))
    read = read_pickle(path)["args"].data
    assert isinstance(read, pathlib.PurePath) and not isinstance(read, Path)
    assert read.parts == ("a", "b")


def test_lightnings_hyper_parameters_become_a_plain_dictionary(tmp_path):
    utilities = types.ModuleType("pytorch_lightning.utilities.parsing")

    class AttributeDict(dict):
        """Lightning's, by its name."""

    AttributeDict.__module__, AttributeDict.__qualname__ = utilities.__name__, "AttributeDict"
    utilities.AttributeDict = AttributeDict
    with pytest.MonkeyPatch.context() as patch:
        for above in ("pytorch_lightning", "pytorch_lightning.utilities"):
            patch.setitem(sys.modules, above, types.ModuleType(above))
        patch.setitem(sys.modules, utilities.__name__, utilities)
        parameters = AttributeDict(lr=1e-3, folder=Path("a"))
        path = write(tmp_path / "a.ckpt", {"state_dict": TENSORS, "hyper_parameters": parameters})
    read = read_pickle(path)["hyper_parameters"]
    assert type(read) is dict
    assert read == {"lr": 1e-3, "folder": pathlib.PurePosixPath("a")}


def test_a_namespace_is_let_in_and_read(tmp_path):
    args = argparse.Namespace(
        norm_pix_loss=True, output_dir="./out", betas=(0.9, 0.95), device="cuda"
    )
    path = write(tmp_path / "checkpoint-9.pth", {"model": TENSORS, "args": args, "epoch": 9})
    found = read_weights(path)
    assert found.facts == {"args": vars(args)}
    assert found.chosen.tensors.keys() == TENSORS.keys()


def test_what_is_let_in_is_no_longer_let_in_afterwards(tmp_path):
    path = write(tmp_path / "a.pth", {"model": TENSORS, "args": argparse.Namespace(a=1)})
    before = set(torch.serialization.get_safe_globals())  # torch keeps them in no order
    read_weights(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_forbidden_global_is_named_whatever_the_protocol(tmp_path, protocol):
    bad = {"model": TENSORS, "x": [("posix", "system"), Runs("true")]}
    torch.save(bad, tmp_path / "zip.pth", pickle_protocol=max(2, protocol))
    bare = {"x": [("posix", "system"), Runs("true")]}
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(bare, protocol))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(RunError, match=r"is refused: .*posix\.system would"):
            read_weights(tmp_path / name)


def test_an_archive_that_unpacks_to_far_more_than_it_has_is_refused(tmp_path):
    plain, packed = write(tmp_path / "plain.pth", TENSORS), tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as one, zipfile.ZipFile(packed, "w", 8) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
        other.writestr("plain/data/9", bytes(2**25))
    assert packed.stat().st_size < 2**16
    with pytest.raises(RunError, match=r"bomb.pth would unpack to 33,5.* bytes, and has \d\d,"):
        read_pickle(packed)


def test_an_archive_packed_again_is_read(tmp_path):
    plain, packed = write(tmp_path / "plain.pth", TENSORS), tmp_path / "packed.pth"
    with zipfile.ZipFile(plain) as one, zipfile.ZipFile(packed, "w", 8) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
    assert read_pickle(packed).keys() == TENSORS.keys()
