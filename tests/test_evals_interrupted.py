"""Evaluations that were interrupted go on where they were, and end with the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from maebench.evaluating import partial, records, suite
from maebench.evaluation import Evaluation
from maebench.plugins import installed


class Interrupted(KeyboardInterrupt):
    """What a signal raises."""


def named(name: str, **options: object) -> Evaluation:
    return installed().table["evaluation"][name](**options)  # type: ignore[return-value]


@pytest.fixture
def often(monkeypatch):
    """The state is kept each time that it is offered."""
    monkeypatch.setattr(partial, "SECONDS", 0.0)
    monkeypatch.setattr(partial, "SHARE", 0)


def numbers(path):
    """Values of the rows, and what lies beside them."""
    with np.load(path.with_suffix(".npz")) as packed:
        return [row["value"] for row in records.read(path)], {n: packed[n] for n in packed.files}


CASES = {
    "linear-probe": ({}, 5),
    "logistic": ({}, 4),
    "finetune": ({"epochs": 12, "drop_path": 0.2}, 4),
    "finetune mixed": ({"epochs": 12, "mixup": 0.8, "cutmix": 1.0}, 7),
    "linear-probe mae": ({"protocol": "mae", "epochs": 8}, 3),
    "linear-probe mae whole": ({"protocol": "mae", "epochs": 8, "crops": False}, 3),
    "layers": ({}, 2),
    "low-shot": ({"shots": ("1", "2"), "draws": 2}, 3),
    "attentive-probe": ({"steps": 5}, 1),
    "robustness": ({"severities": (3,)}, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_evaluation_ends_with_the_bits_of_an_undisturbed_one(
    case, tmp_path, monkeypatch, often
):
    options, stop = CASES[case]
    evaluation = named(case.split()[0], **options)
    for name in ("one", "two"):
        tiny.plan(tmp_path / name)
    undisturbed = suite.evaluate(tiny.load(tmp_path / "one"), evaluation)
    model = tiny.load(tmp_path / "two")
    keep, calls = partial.Kept.keep, []

    def interrupted(self, state):
        keep(self, state)
        calls.append(1)
        if len(calls) == stop:
            raise Interrupted

    monkeypatch.setattr(partial.Kept, "keep", interrupted)
    with pytest.raises(Interrupted):
        suite.evaluate(model, evaluation)
    assert list((model.folder / partial.FOLDER).iterdir())
    whole = len(calls)
    path = suite.evaluate(model, evaluation)  # more calls: none of them is the one that stops
    monkeypatch.setattr(partial.Kept, "keep", keep)
    assert len(calls) > whole or case == "attentive-probe"
    found, expected = numbers(path), numbers(undisturbed)
    assert found[0] == expected[0] and found[1].keys() == expected[1].keys()
    assert all(np.array_equal(found[1][name], value) for name, value in expected[1].items())
    assert not list((model.folder / partial.FOLDER).iterdir()), "which nobody needs any more"


def test_a_state_that_is_damaged_is_not_gone_on_from(tmp_path, monkeypatch, often):
    tiny.plan(tmp_path)
    model, evaluation = tiny.load(tmp_path), named("linear-probe", l2=(1e-3, 1e-2, 1e-1))
    keep = partial.Kept.keep

    def interrupted(self, state):
        keep(self, state)
        raise Interrupted

    monkeypatch.setattr(partial.Kept, "keep", interrupted)
    with pytest.raises(Interrupted):
        suite.evaluate(model, evaluation)
    monkeypatch.setattr(partial.Kept, "keep", keep)
    (path,) = (model.folder / partial.FOLDER).iterdir()
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged: it is not as it was written: .* begins anew"):
        suite.evaluate(model, evaluation)
