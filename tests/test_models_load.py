"""MODEL strings, and what the models they name give."""

from __future__ import annotations

import shutil

import fakes
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from maebench import ConfigError, NotApplicable
from maebench.data.preprocess import Preprocess
from maebench.data.reading import Reading
from maebench.errors import MaebenchError, RunError
from maebench.models.load import data_config, load_foreign, merged_data
from maebench.pretraining import checkpoints
from maebench.pretraining import loop as pretrain


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def plan(results):
    tiny.plan(results, seed=1)
    return tiny.plan(results)  # the newest


@pytest.fixture(scope="module")
def model(plan, results):
    return tiny.load(results, plan.run.name)


def images_of(model, count=5):
    return next(iter(model.splits.load("test").whole(count)))


def test_a_run_is_found_by_name_by_folder_and_as_the_newest(plan, results, model):
    assert (model.name, model.kind, model.folder) == (plan.run.name, "run", plan.run.folder)
    for spec in ("", str(plan.run.folder)):
        assert tiny.load(results, spec).weights == model.weights
    other = next(r for r in results.glob("runs/*") if r.name != plan.run.name)
    assert tiny.load(results, other.name).weights != model.weights


def test_a_run_has_the_weights_of_its_last_step_frozen_and_in_eval_mode(plan, model):
    tensors, manifest = checkpoints.load(plan.run.folder / "checkpoint" / "step-000000003")
    assert manifest["step"] == 3
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, tensors[f"model.{name}"])
    assert not any(p.requires_grad for p in model.module.parameters())
    assert not any(m.training for m in model.module.modules())


def test_untrained_is_the_runs_model_at_step_0(tmp_path, monkeypatch):
    first, original = [], pretrain.make_batch

    def noted(config, model, *rest):
        first.append(checkpoints.weights_hash(model.encoder.state_dict()))
        return original(config, model, *rest)

    monkeypatch.setattr(pretrain, "make_batch", noted)
    plan = tiny.plan(tmp_path)
    untrained = tiny.load(tmp_path, f"untrained:{plan.run.name}")
    assert untrained.weights == first[0] != first[1]
    assert untrained.weights != tiny.load(tmp_path).weights
    assert (untrained.name, untrained.kind) == (f"untrained:{plan.run.name}", "untrained")
    assert tiny.load(tmp_path, "untrained:").name == untrained.name
    assert untrained.folder != plan.run.folder


def test_pixels_need_no_run_and_take_the_newest_runs_data_set_where_none_is_named(
    results, plan, tmp_path
):
    alone, of_run = tiny.load(tmp_path, "pixels:digits"), tiny.load(results, "pixels:")
    assert alone.name == of_run.name == "pixels:digits"
    assert alone.pools() == ("flat",)
    images = images_of(of_run)
    mean, std = (plan.run.facts[key][0] for key in ("mean", "std"))
    torch.testing.assert_close(
        of_run.encode(images), (images.flatten(1).float() / 255 - mean) / std
    )
    with pytest.raises(NotApplicable, match="no decoder"):
        alone.decoder()


def test_features_are_the_mean_of_the_patches_or_the_class_token(model):
    images = images_of(model)
    pixels = (images.float() / 255 - model.preprocess.mean[0]) / model.preprocess.std[0]
    tokens = model.encoder(pixels, None, (1,))
    for layer, level in ((None, tokens), (1, tokens.layers[1])):
        torch.testing.assert_close(model.encode(images, layer), level.patches.mean(1))
        torch.testing.assert_close(model.encode(images, layer, "cls"), level.prefix[:, 0])
    found = model.encode_all(images, (1, 2))
    assert set(found) == {(at, how) for at in (None, 1, 2) for how in ("mean", "cls")}
    assert {(f.shape, f.dtype, f.requires_grad) for f in found.values()} == {
        (torch.Size([5, 16]), torch.float32, False)
    }
    assert torch.equal(model.encode(images.float()), model.encode(images))


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 1, 8, 16), (1, 8, 8), (5, 1, 16, 16)])
def test_images_of_another_size_or_channel_count_are_refused(model, shape):
    for one in (model, tiny.load(model.folder.parent.parent, "pixels:digits")):
        with pytest.raises(ConfigError, match="was built for images of 1x8x8 .*, got"):
            one.encode(torch.zeros(shape))


def test_a_layer_or_pooling_that_is_not_there_is_refused(model):
    for layer in (0, 3, -1):
        with pytest.raises(ConfigError, match=f"layer {layer}: .* has blocks 1 to 2"):
            model.encode(images_of(model), layer)
    with pytest.raises(ConfigError, match="unknown pooling 'max'.*There is: cls, mean"):
        model.encode(images_of(model), None, "max")


def test_an_encoder_without_a_class_token_pools_by_the_mean_only(tmp_path):
    tiny.plan(tmp_path, encoder=fakes.Dense())
    model = tiny.load(tmp_path)
    assert model.pools() == ("mean",)
    assert model.encode(images_of(model)).shape == (5, 16)
    with pytest.raises(ConfigError, match="unknown pooling 'cls'"):
        model.encode(images_of(model), None, "cls")


def test_an_objective_that_does_not_reconstruct_says_so(tmp_path):
    tiny.plan(tmp_path, objective=fakes.Labelled())
    with pytest.raises(NotApplicable, match="'labelled' does not reconstruct"):
        tiny.load(tmp_path).decoder()


@pytest.mark.parametrize("kind", ["file", "hf"])
def test_the_home_folder_of_nobody_is_one_line(kind):
    with pytest.raises(ConfigError, match="there is no home folder for ~nobody-here"):
        load_foreign(kind, "~nobody-here/vit.pth", {})


def test_an_unfinished_run_is_refused_with_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_SHARE", 0)
    plan = pretrain.prepare(tiny.config(machine={"checkpoint_seconds": 1e-9}), tmp_path)
    with pytest.raises(RunError, match=r"is not finished \(0 of 3 steps\)"):
        tiny.load(tmp_path)
    steps = pretrain.pretrain(plan)
    next(steps), next(steps)
    steps.close()
    with pytest.raises(RunError, match=r"is not finished \(2 of 3 steps\)"):
        tiny.load(tmp_path)
    assert tiny.load(tmp_path, "untrained:").kind == "untrained"


def test_a_run_whose_last_checkpoint_is_damaged_is_not_finished(tmp_path):
    plan = tiny.plan(tmp_path)
    state = checkpoints.steps(plan.run.folder / "checkpoint")[-1] / checkpoints.STATE
    state.write_bytes(state.read_bytes()[:-1])
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(RunError, match=r"\(0 of 3 steps\)"),
    ):
        tiny.load(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "unknown run 'nothing'"),
        ("untrained:nothing", "unknown run 'nothing'"),
        ("pixles:digits", "unknown kind of model 'pixles'.*Did you mean 'pixels"),
        ("pixels:digit", "unknown dataset 'digit'.*Did you mean 'digits'"),
    ],
)
def test_a_model_that_does_not_exist_is_named_with_what_there_is(results, plan, spec, message):
    with pytest.raises(MaebenchError, match=message):
        tiny.load(results, spec)


@pytest.mark.parametrize("spec", ["", "untrained:", "pixels:"])
def test_without_a_run_the_newest_one_cannot_be_taken(tmp_path, spec):
    with pytest.raises(RunError, match="no run in .*start one with"):
        tiny.load(tmp_path, spec)


@pytest.fixture
def birds(tmp_path):
    """Makes a folder of this path with two classes of gray images."""

    def make(path):
        for number in range(16):
            kind = tmp_path / path / ("train", "test")[number % 2] / "ab"[number // 2 % 2]
            kind.mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8), 16 * number + len(path), np.uint8)
            Image.fromarray(image).save(kind / f"{number}.png")
        return tmp_path / path

    return make


def of_folder(folder):
    return {"dataset": f"folder:{folder}", "limit": None, "image_size": 8}


def test_the_control_of_a_folder_has_its_name_and_is_found_again_by_it(tmp_path, birds):
    results = tmp_path / "results"
    folder = birds("data/birds")
    plan = tiny.plan(results, **of_folder(folder))
    mine = tiny.load(results, "pixels:")
    assert mine.name == "pixels:folder:birds"
    for spec in (mine.name, f"pixels:folder:{folder}"):
        again = tiny.load(results, spec)
        assert (again.name, again.config.dataset) == (mine.name, plan.config.dataset)
    assert tiny.load(results, mine.name).folder == mine.folder
    # no run here knows where such a folder lies: it is a path
    with pytest.raises(MaebenchError, match="folder:.*birds does not exist"):
        tiny.load(tmp_path / "others", mine.name)


def test_two_folders_of_one_name_are_told_apart(tmp_path, birds, monkeypatch):
    results = tmp_path / "results"
    first, second = birds("one/birds"), birds("another/birds")
    for folder in (first, second):
        tiny.plan(results, **of_folder(folder))
    with pytest.raises(ConfigError, match="several folders of this name") as caught:
        tiny.load(results, "pixels:folder:birds")
    assert f"pixels:folder:{first} or pixels:folder:{second}" in str(caught.value)
    monkeypatch.chdir(first.parent)
    with pytest.warns(UserWarning, match=f"is read as {first}; .* are on {second}"):
        found = tiny.load(results, "pixels:folder:birds")
    assert found.config.dataset.path == first


def test_a_copy_of_a_folder_has_the_same_control(tmp_path, birds):
    results = tmp_path / "results"
    folder = birds("data/birds")
    tiny.plan(results, **of_folder(folder))
    control = tiny.load(results, "pixels:").folder
    copy = tmp_path / "copy" / "birds"
    shutil.copytree(folder, copy)
    says = f"the train images of folder:{copy} are the same as those of folder:{folder}, so their run is"
    with pytest.warns(UserWarning, match=says):
        tiny.plan(results, **of_folder(copy))
    assert tiny.load(results, "pixels:").folder == control


# The data of a model from elsewhere.


def test_another_folder_is_other_data_and_does_not_keep_limit_and_size(tmp_path, birds):
    """Though both are data sets of the name "folder"."""
    run = tiny.plan(tmp_path / "results", **{**of_folder(birds("one/birds")), "limit": 4})
    base = {"dataset": run.config.dataset, "limit": 4, "image_size": (8, 8)}
    for folder, kept in ((birds("two/birds"), False), (run.config.dataset.path, True)):
        found = merged_data(base, {"dataset": f"folder:{folder}"}, fakes.names())
        assert ("limit" in found, "image_size" in found) == (kept, kept)


def test_files_are_read_as_the_run_reads_them_where_nothing_else_is_asked_for(tmp_path, birds):
    reading = {"background": "black", "exif": "ignore"}
    tiny.plan(tmp_path, **of_folder(birds("birds")), data=reading, machine={"memory_gb": 0})
    preprocess = Preprocess((8, 8), 1, [0.5], [0.5], "bicubic")
    own = data_config(preprocess, tmp_path, fakes.names(), {})
    assert own.data == Reading(**reading) and own.machine.memory_gb == 0
    other = data_config(preprocess, tmp_path, fakes.names(), {"data": {"exif": "apply"}})
    assert other.data == Reading(background="black")
