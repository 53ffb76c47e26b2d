"""Text goes the whole way: every command, every evaluation, the same words as images."""

import json

import pytest
from click.testing import CliRunner

from maebench import load_records
from maebench.cli import cli
from maebench.pretraining import runs

SMALL = ["-o", "dataset.length=16", "-o", "dataset.vocabulary=600", "-o", "encoder.width=16"]
RUN = ["--dataset", "pydoc", "--budget", "steps=20", "--batch", "32", *SMALL]


def call(*arguments):
    ran = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert ran.exit_code == 0, (arguments, ran.output, ran.exception)
    return ran.output


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    call("run", *RUN, "--evals", "knn,reconstruction", "--results", folder)
    return folder


@pytest.mark.slow
def test_a_run_has_floor_and_control_beside_it(results):
    shown = call("run", *RUN, "--evals", "knn,reconstruction", "--results", results)
    for name in ("pretrained", "untrained", "TF-IDF"):
        assert f"│ {name}" in shown
    assert "means over test windows" in shown and "images" not in shown
    table = load_records(results)
    assert set(table["model_kind"]) == {"run", "untrained", "tf-idf"}
    assert set(table["inputs"]) == {"text"}
    assert table["image_size"].isna().all()


@pytest.mark.slow
def test_the_tokenizer_lies_beside_the_run(results):
    (run,) = runs.all_runs(results)
    kept = runs.read_kept(run)
    assert set(kept) == {"tokenizer.json", "python.txt"}
    assert json.loads(kept["tokenizer.json"])["truncation"]["max_length"] == 16
    assert run.facts["inputs"] == {
        **{"kind": "text", "shape": [16], "dtype": "int64"},
        **{"vocabulary": 600, "mask_id": 4, "class_id": 2},
    }


@pytest.mark.slow
def test_reconstruction_has_bits_and_accuracy_beside_two_baselines(results):
    table = load_records(results)
    table = table[(table["evaluation"] == "reconstruction") & (table["status"] == "ok")]
    assert set(table["metric"]) == {"r2", "bits", "token_accuracy"}
    mine = table[table["model_kind"] == "run"]
    values = {
        (row["metric"], row["where"].get("baseline", "model")): row["value"]
        for row in mine.to_dict("records")
    }
    assert values["r2", "unigram"] == pytest.approx(0, abs=1e-9)
    assert values["r2", "bigram"] > 0.1
    for who in ("model", "unigram", "bigram"):
        wanted = 1 - values["bits", who] / values["bits", "unigram"]
        assert values["r2", who] == pytest.approx(wanted)
        assert 0 <= values["token_accuracy", who] <= 1
    same = table[table["where"].map(lambda where: where.get("baseline") == "bigram")]
    assert len(same[same["metric"] == "bits"]["value"].unique()) == 1  # whatever the model


EVALUATIONS = {
    "linear-probe": ["-o", "iterations=3", "-o", "l2=0.01,1"],
    "logistic": ["-o", "max_iter=3", "-o", "C=0.01,1"],
    "low-shot": ["-o", "draws=1", "-o", "shots=1,10%"],
    "finetune": ["-o", "epochs=1"],
    "layers": [],
    "retrieval": [],
    "attentive-probe": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_evaluation_takes_text(name, results):
    call("eval", name, "--results", results, *EVALUATIONS[name])
    table = load_records(results)
    mine = table[(table["evaluation"] == name) & (table["model_kind"] == "run") & table["main"]]
    assert set(mine["status"]) == {"ok"}, list(mine["reason"])


@pytest.mark.slow
@pytest.mark.parametrize("option", ["mixup=0.8", "cutmix=1", "erase=0.5"])
def test_what_fine_tuning_does_to_pixels_is_refused_on_text(option, results):
    how = ["--results", str(results), "-o"]
    evaluated = CliRunner().invoke(cli, ["eval", "finetune", *how, option])
    run = ["run", "--dataset", "pydoc", "--evals", "finetune", *how, f"finetune.{option}"]
    pretrained = CliRunner().invoke(cli, run)  # before anything is trained
    for ran in (evaluated, pretrained):
        assert ran.exit_code == 1 and "pretrain" not in ran.output
        assert f"finetune.{option.split('=')[0]}=" in str(ran.exception)
        assert str(ran.exception).endswith("is of images, and the data set yields text")


@pytest.mark.slow
def test_another_text_is_cut_by_the_runs_tokenizer(results, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(12):
            text = f"The {name} statement number {i} is an expression of the class {name}. " * 8
            (tmp_path / name / f"{i}.txt").write_text(text)
    shown = call("eval", "knn", "--dataset", f"text:{tmp_path}", "--results", results)
    assert "means over test windows" in shown
    model = json.loads(next(results.glob("runs/*/config.json")).read_text())["name"]
    table = load_records(results)
    mine = table[(table["model"] == model) & (table["dataset"] == f"text:{tmp_path.name}")]
    assert set(mine[mine["main"]]["status"]) == {"ok"}


@pytest.mark.slow
def test_features_masks_and_speed_are_those_of_text(results, tmp_path):
    import numpy as np

    call("features", "--results", results, "--out", tmp_path / "f.npz")
    kept = np.load(tmp_path / "f.npz")
    assert kept["features"].shape == (len(kept["labels"]), 16)
    shown = call("masks", "--dataset", "pydoc", *SMALL, "--masking", "random,block,multi-block",
                 "--ratio", "0.5", "--results", tmp_path)  # fmt: skip
    assert "multi-block 0.5: not there: masking 'multi-block' needs rows and columns" in shown
    assert list(tmp_path.glob("masks/*.png"))
    assert "encoder" in call("speed", "--dataset", "pydoc", *SMALL, "--batch", "32")


@pytest.mark.slow
def test_a_comparison_of_ratios_is_over_windows(tmp_path):
    how = [*RUN, "--ratio", "0.15,0.5", "--seeds", "2", "--evals", "knn", "--results", tmp_path]
    shown = call("compare", *how, "-o", "workers=1")
    assert "over test windows of this kind" in shown and "TF-IDF" in shown


def test_data_check_counts_windows_and_has_no_picture(tmp_path):
    how = ["data", "check", "pydoc", "-o", "dataset.length=64", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli, how)
    assert ran.exit_code in (0, 3, 4), ran.exception
    assert "64 tokens, of 2,048" in ran.output and "picture" not in ran.output
    assert " windows; not from single files" in ran.output
    ran = CliRunner().invoke(cli, [*how, "--out", str(tmp_path / "x.png")])
    assert ran.exit_code == 1 and str(ran.exception) == "--out: dataset 'pydoc' yields text"


def test_windows_that_are_in_train_and_in_test_are_counted_and_dropped():
    from maebench import PyDoc, Request
    from maebench.data.copies import find_copies
    from maebench.data.dataset import Splits

    dataset = PyDoc(length=8, vocabulary=600)  # short ones are twice there
    splits = Splits(dataset, Request(""))
    train, test = splits.load("train"), splits.load("test")
    found = find_copies(train, test, mirrored=True)
    ours = {tuple(row) for row in train.values.tolist()}
    wanted = [i for i, row in enumerate(test.values.tolist()) if tuple(row) in ours]
    assert found.test.tolist() == wanted and wanted and not found.mirrored
    (remark,) = [r for _, r in splits.remarks() if r.what == "in train and test"]
    assert f"of {len(test):,} test windows" in remark.text


def test_words_for_examples_are_the_same_everywhere():
    from maebench.encoders.inputs import examples_of
    from maebench.evaluating import records

    for kind in ("images", "text", "signals"):
        assert records.examples_of([kind]) == examples_of(kind)
    assert records.examples_of([None, float("nan")]) == "images"
    assert records.examples_of(["text", "images"]) == "examples"


@pytest.mark.slow
def test_the_common_masks_of_images_are_none_of_text_and_this_is_said(results):
    call("eval", "reconstruction", "--results", results, "-o", "across=true")
    table = load_records(results)
    (row,) = table[table["metric"] == "across_r2"].to_dict("records")
    assert row["status"] == "not applicable"
    assert row["reason"] == "the common masks are of planes, text has none"
