"""The embedded digits: all of them, once, in a split that never changes."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from maebench.data import Digits, Request, digits


def both(**how):
    return [Digits().load(Request(split, **how)) for split in ("train", "test")]


def test_every_digit_is_in_one_split():
    train, test = both()
    assert len(train) + len(test) == 1797 and len(test) == 360
    ours = torch.cat([train.pixels, test.pixels]).flatten(1)
    theirs = np.round(load_digits().data * 255 / 16).astype("uint8")
    order = lambda rows: rows[np.lexsort(rows.T)]  # noqa: E731
    assert np.array_equal(order(ours.numpy()), order(theirs))


def test_what_is_read_from_the_file_is_what_scikit_learn_gives(monkeypatch):
    read = digits.read_digits()
    assert digits.digits_file() is not None
    monkeypatch.setattr(digits, "digits_file", lambda: None)  # a release that keeps it elsewhere
    for ours, theirs in zip(read, digits.read_digits(), strict=True):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


def test_pixels_and_labels_belong_together():
    loaded = load_digits()
    label_of = {
        np.round(image * 255 / 16).astype("uint8").tobytes(): label
        for image, label in zip(loaded.images, loaded.target, strict=True)
    }
    for images in both():
        labels = [label_of[image.numpy().tobytes()] for image in images.pixels]
        assert images.info.labels.tolist() == labels
        assert images.info.class_names == tuple("0123456789")


def test_every_class_is_in_both_splits():
    for images in both():
        counts = images.info.labels.bincount()
        assert len(counts) == 10 and counts.min() > 0.5 * counts.max()


def test_loading_again_gives_the_same_and_splits_differ():
    (train, test), (again, _) = both(), both()
    assert train.info.fingerprint == again.info.fingerprint != test.info.fingerprint


def test_another_size_is_resized_to():
    train, _ = both(image_size=(16, 12))
    assert train.pixels.shape[1:] == (1, 16, 12) and train.info.size == (16, 12)
