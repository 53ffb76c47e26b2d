"""Features are made once, kept by content, and made again when anything they depend on changes."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from maebench import ConfigError, NotApplicable, files
from maebench.errors import RunError
from maebench.evaluating import features, records, suite
from maebench.evaluating.features import cache_key
from maebench.models.model import LoadedModel
from maebench_evals.finetune import Finetune
from maebench_evals.knn import KNN


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


@pytest.fixture
def model(trained, tmp_path):
    return dataclasses.replace(trained, folder=tmp_path)  # with no features yet


@pytest.fixture
def passes(monkeypatch):
    """The layers of every batch that was encoded."""
    seen, original = [], LoadedModel.encode_all

    def counted(self, images, layers=()):
        seen.append(tuple(layers))
        return original(self, images, layers)

    monkeypatch.setattr(LoadedModel, "encode_all", counted)
    return seen


def test_features_of_a_split_are_in_its_order(model):
    images = model.splits.load("test")
    found = features.features(model, images)
    assert (found.shape, found.dtype) == ((len(images), 16), torch.float32)
    picked = [300, 7, 44]
    torch.testing.assert_close(
        found[picked], model.encode(images.pick(picked)), atol=1e-5, rtol=1e-4
    )


def test_features_do_not_depend_on_the_batch(model, tmp_path, monkeypatch):
    images = model.splits.load("train")
    whole = features.features(model, images)
    monkeypatch.setattr(features, "BATCH", 7)
    other = dataclasses.replace(model, folder=tmp_path / "other")
    torch.testing.assert_close(features.features(other, images), whole, atol=1e-5, rtol=1e-4)


def test_one_pass_over_a_split_gives_everything_where_that_is_little(model, passes):
    images = model.splits.load("train")
    places = [(layer, pool) for layer in (None, 1, 2) for pool in ("mean", "cls")]
    found = [features.features(model, images, *place) for place in places]
    assert passes == [(1, 2)]
    for place, value in zip(places, found, strict=True):
        expected = model.encode(images.pick(range(60)), *place)
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)
    assert len(list((model.folder / "features").iterdir())) == 1


def test_a_second_call_reads_what_the_first_one_kept(model, passes, monkeypatch):
    monkeypatch.setattr(features, "EVERY", 60 * 3 * 2 * 16 * 4 - 1)  # images, places, pools, width
    images = model.splits.load("train")
    first = features.features(model, images)
    assert passes == [()]
    assert torch.equal(features.features(model, images), first)
    features.features(model, images, pool="cls")
    assert passes == [()], "all poolings come from one pass"
    second = features.features(model, images, layer=2)
    assert passes[1:] == [(1, 2)]
    assert not torch.equal(second, features.features(model, images, layer=1))
    features.features(model, images, layer=1, pool="cls")
    assert len(passes) == 2, "all layers come from one pass"
    features.features(model, model.splits.load("test"))
    assert len(passes) == 4  # 360 images in two batches


def test_a_pass_for_all_layers_serves_the_end_too(model, passes):
    images = model.splits.load("train")
    features.features(model, images, layer=1)
    last = features.features(model, images, pool="cls")
    assert passes == [(1, 2)]
    expected = model.encode(images.pick(range(60)), pool="cls")
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-4)


def test_the_key_changes_with_everything_features_depend_on(model, monkeypatch):
    train, test = (model.splits.load(split) for split in ("train", "test"))
    keys = [
        cache_key(model, train, ()),
        cache_key(model, train, (1, 2)),
        cache_key(model, test, ()),
        cache_key(dataclasses.replace(model, weights="other"), train, ()),
        *(
            cache_key(dataclasses.replace(model, preprocess=other), train, ())
            for other in (
                dataclasses.replace(model.preprocess, mean=[0.0]),
                dataclasses.replace(model.preprocess, std=[1.0]),
                dataclasses.replace(model.preprocess, interpolation="bilinear"),
                dataclasses.replace(model.preprocess, crop=0.9),
            )
        ),
        cache_key(model, train.subset(torch.arange(10)), ()),
    ]
    monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
    keys.append(cache_key(model, train, ()))
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    there = {"name": "other", "folder": model.folder / "other", "device": "cuda"}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    for precision, same in (("fp32", True), ("auto", False), ("tf32", False), ("bf16", False)):
        machine = model.config.machine.model_copy(update={"evaluation": precision})
        config = model.config.model_copy(update={"machine": machine})
        moved = dataclasses.replace(model, config=config, **there)
        assert (cache_key(moved, train, ()) == keys[0]) == same


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 99]
)
def test_damaged_features_are_made_again(model, passes, damage):
    images = model.splits.load("train")
    first = features.features(model, images)
    (path,) = (model.folder / "features").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match="is damaged: .*; they are computed again"):
        assert torch.equal(features.features(model, images), first)
    assert len(passes) == 2
    assert path.read_bytes() == whole


def test_features_that_cannot_be_kept_are_given_all_the_same(model, monkeypatch):
    def full(path, fill):
        raise RunError("no space left")

    images = model.splits.load("train")
    expected = model.encode(images.pick(range(60)))
    monkeypatch.setattr(files, "write", full)
    with pytest.warns(UserWarning, match="features are not kept: no space left"):
        torch.testing.assert_close(features.features(model, images), expected)


def kept_in(model, what, folder):
    machine = model.config.machine.model_copy(update={"features": what})
    config = model.config.model_copy(update={"machine": machine})
    return dataclasses.replace(model, config=config, folder=folder)


def test_features_kept_in_bf16_are_the_same_computed_and_read_and_near_the_others(model, tmp_path):
    images = model.splits.load("test")
    full = features.features(model, images)
    half = kept_in(model, "bf16", tmp_path / "half")
    computed, read = (features.features(half, images) for _ in range(2))
    assert computed.dtype == torch.float32
    assert torch.equal(computed, read)
    assert torch.equal(computed, full.bfloat16().float())
    assert ((computed - full).abs() <= full.abs() * 2**-8).all()
    sizes = [next((one.folder / "features").iterdir()).stat().st_size for one in (model, half)]
    assert sizes[1] < 0.52 * sizes[0]


def test_features_in_another_precision_have_another_key_and_their_rows_say_so(model, tmp_path):
    half = kept_in(model, "bf16", tmp_path / "half")
    test = model.splits.load("test")
    assert cache_key(half, test, ()) != cache_key(model, test, ())
    found = {}
    for one in (model, half):
        path = suite.evaluate(one, KNN(k=(1,)))
        found[path.stem] = {row["precision"] for row in records.read(path)}
    assert list(found.values()) == [{"fp32"}, {"fp32 with bf16 features"}]
    trained = Finetune(epochs=1)  # it reads pixels
    paths = [suite.record_path(one, trained, one.splits, 0).name for one in (model, half)]
    assert paths[0] == paths[1]


def test_features_that_are_not_finite_are_not_applicable(model, monkeypatch):
    original = LoadedModel.encode_all

    def broken(self, images, layers=()):
        return {key: value * float("inf") for key, value in original(self, images, layers).items()}

    monkeypatch.setattr(LoadedModel, "encode_all", broken)
    with pytest.raises(NotApplicable, match="not finite"):
        features.features(model, model.splits.load("train"))


def test_pixels_have_flat_features_whatever_pooling_is_asked_for(trained, tmp_path):
    pixels = tiny.load(tmp_path, "pixels:digits")
    test = pixels.splits.load("test")
    flat = features.features(pixels, test, pool="cls")
    assert flat.shape == (len(test), 64)
    with pytest.raises(ConfigError, match="layer 1: pixels:digits has blocks 1 to 0"):
        features.features(pixels, test, layer=1)
    with pytest.raises(ConfigError, match="layer 3: .* has blocks 1 to 2"):
        features.features(trained, test, layer=3)
