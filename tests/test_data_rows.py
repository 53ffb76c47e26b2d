import numpy as np
import pytest
import torch

from maebench import Augment, from_rows
from maebench.data.images import limited
from maebench.errors import PluginError

IDS = np.arange(60).reshape(12, 5) % 7
LABELS = np.arange(12) % 3


def made(values=IDS, labels=LABELS, names=("a", "b", "c"), **more):
    return from_rows(values, labels, names, "text", **{"vocabulary": 7, "mask_id": 4, **more})


def test_a_split_of_token_ids_is_what_the_encoder_gets():
    rows = made(class_id=2)
    assert len(rows) == 12 and torch.equal(rows.values, torch.from_numpy(IDS))
    inputs = rows.info.inputs
    assert (inputs.kind, inputs.shape, inputs.dtype) == ("text", (5,), torch.int64)
    assert (inputs.vocabulary, inputs.mask_id, inputs.class_id) == (7, 4, 2)
    assert inputs.num_classes == 3 and made(labels=None, names=()).info.inputs.num_classes == 0
    assert torch.equal(torch.cat(list(rows.whole(5))), rows.values)
    assert torch.equal(rows.pick([3, 1]), rows.values[[3, 1]])


def test_numbers_of_another_kind_become_floats():
    rows = from_rows(np.ones((4, 2, 3)), None, (), "signals")
    assert rows.values.dtype == torch.float32 and rows.info.inputs.shape == (2, 3)
    assert rows.info.inputs.vocabulary == 0


def test_nothing_is_cut_out_of_a_row():
    rows, index, epoch = made(), torch.tensor([4, 0]), torch.tensor([0, 3])
    (crop,) = rows.crops([(index, epoch)], Augment(), 0, "cpu")
    assert torch.equal(crop.images, rows.values[index]) and not crop.flips.any()
    assert crop.boxes.tolist() == [[0, 0, 1, 5]] * 2 and crop.sizes.tolist() == [[1, 5]] * 2
    assert torch.equal(crop.ids, index) and torch.equal(crop.epoch, epoch)


def test_a_part_keeps_ids_and_a_limit_takes_each_class():
    part = made(groups=np.arange(12) // 2).subset(torch.tensor([5, 7]))
    assert part.info.ids.tolist() == [5, 7] and part.info.groups.tolist() == [2, 3]
    assert limited(made(), 6).info.labels.bincount().tolist() == [2, 2, 2]


CHANGES = {
    "values": {"values": (IDS + 1) % 7},
    "labels": {"labels": (LABELS + 1) % 3},
    "vocabulary": {"vocabulary": 8},
    "what is kept": {"kept": {"tokenizer.json": "{}"}},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_fingerprint_changes_with(what):
    assert made().info.fingerprint == made().info.fingerprint
    assert made().info.fingerprint != made(**CHANGES[what]).info.fingerprint


WRONG = {
    "ids that are floats": ({"values": IDS / 2}, "token ids, integers"),
    "an id beyond the vocabulary": ({"vocabulary": 6}, "ids from 0 to 5 wanted, given 0 to 6"),
    "a label without a name": ({"names": ("a", "b")}, "given 2 for image 2"),
    "labels of another length": ({"labels": LABELS[:5]}, "one integer for each of 12 images"),
    "no row": ({"values": IDS[:0], "labels": None}, "token ids, integers"),
    "one axis": ({"values": IDS[0], "labels": None}, "token ids, integers"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_split_is_refused_for(what):
    changes, message = WRONG[what]
    with pytest.raises(PluginError, match=message):
        made(**changes)


def test_numbers_must_be_finite_and_no_images():
    with pytest.raises(PluginError, match="the values are not finite"):
        from_rows(np.full((2, 3), np.nan), None, (), "signals")
    with pytest.raises(PluginError, match="images have pixels"):
        from_rows(np.ones((2, 3)), None, (), "images")
