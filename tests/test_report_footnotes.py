"""What was lost or found in the images stands in a run's facts, its rows and under every table."""

import json
import warnings

import pandas as pd
import pytest
from messy import clean, noise, save

from maebench import Folder, RunConfig, load_records
from maebench.cli import main
from maebench.pretraining.plan import prepare
from maebench.report.footnotes import remarks

ALPHA = "train: transparent pixels of 1 of 9 images laid over white"
COPY = "1 of 5 test images, 20.0%, are in train too"
TINY = ("--encoder", "vit-nano", "-o", "encoder.width=16", "-o", "encoder.depth=1")


@pytest.fixture
def birds(tmp_path):
    """A folder with a picture drawn in alpha in train, and one of train in test."""
    root = clean(tmp_path / "birds")
    save(root / "train/a/drawn.png", noise(8, 8, 4))
    save(root / "test/a/again.png", noise(8, 8, 3, seed=5000))
    return root


def called(capsys, *arguments):
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code
    said = capsys.readouterr()
    return " ".join(said.out.split()), " ".join(said.err.split())


def test_each_remark_is_a_count_in_the_facts_of_a_run(birds, tmp_path):
    config = RunConfig(dataset=Folder(path=birds), budget="steps=1", device="cpu")
    run = prepare(config, tmp_path).run
    facts = json.loads((run.folder / "config.json").read_text())["facts"]
    assert facts["remarks"] == [
        {"split": "", "what": "in train and test", "count": 1, "text": COPY},
        {"split": "train", "what": "alpha", "count": 1, "text": ALPHA.removeprefix("train: ")},
    ]


def test_a_test_split_that_cannot_be_read_is_said_and_stops_no_pretraining(birds, tmp_path):
    (birds / "test/b/bad.png").write_bytes(b"nothing")
    config = RunConfig(dataset=Folder(path=birds), budget="steps=1", device="cpu")
    (said,) = (r for r in prepare(config, tmp_path).run.facts["remarks"] if r["what"] == "no test")
    assert "test/b/bad.png" in said["text"]


@pytest.mark.slow
def test_each_remark_is_a_line_on_the_screen_and_a_note_under_every_table(birds, tmp_path, capsys):
    results = ("--results", tmp_path / "results")
    run = ("run", "--dataset", f"folder:{birds}", "--budget", "steps=2", "--evals", "knn", *TINY)
    out, err = called(capsys, *run, *results)
    advice = "; -o data.background=COLOUR takes another colour"
    assert ALPHA + advice in err and COPY + "; -o data.on_duplicates=drop" in err
    note = f"folder:birds: {COPY}; {ALPHA}"
    assert note in out
    for command in (("table",), ("eval", "knn"), ("table", "--format", "markdown")):
        out, _ = called(capsys, *command, *results)
        assert note in out, command
    rows = load_records(tmp_path / "results")
    assert set(rows["remarks"]) == {f"{COPY}; {ALPHA}"}


@pytest.mark.slow
def test_a_comparison_says_it_in_its_plan_and_below_its_table(birds, tmp_path, capsys):
    compare = ("compare", "--dataset", f"folder:{birds}", "--budget", "steps=2", "--evals", "knn")
    arms = ("--masking", "random,block", "--seeds", "2", "-o", "workers=1")
    out, _ = called(capsys, *compare, *arms, *TINY, "--results", tmp_path / "results")
    assert out.count(ALPHA) == 2 and out.count(COPY) == 2
    (page,) = (tmp_path / "results/comparisons").rglob("*.md")
    assert ALPHA in page.read_text()


@pytest.mark.slow
def test_an_evaluation_on_other_images_than_a_run_learnt_from_says_so(birds, tmp_path, capsys):
    results = ("--results", tmp_path / "results")
    pretrain = ("pretrain", "--dataset", f"folder:{birds}", "--budget", "steps=2", *TINY)
    called(capsys, *pretrain, *results)
    save(birds / "train/a/0.png", noise(8, 8, 3, seed=4321))
    out, _ = called(capsys, "eval", "knn", *results)
    assert "the train images are not those any more that the run was pretrained on" in out


@pytest.mark.slow
def test_an_evaluation_reads_files_as_it_is_told(birds, tmp_path, capsys):
    results = ("--results", tmp_path / "results")
    pretrain = ("pretrain", "--dataset", f"folder:{birds}", "--budget", "steps=2", *TINY)
    called(capsys, *pretrain, *results)
    out, _ = called(capsys, "eval", "knn", "-o", "data.background=black", "-o", "k=1,3", *results)
    assert "1 of 9 images laid over black" in out and "knn(k=[1, 3])" in out


@pytest.mark.slow
def test_a_run_that_goes_on_looks_at_its_images_again(tmp_path, capsys):
    """A copy of a train image may have come into test since it began."""
    root = clean(tmp_path / "birds")
    config = RunConfig(
        dataset=Folder(path=root),
        encoder={"name": "vit-nano", "width": 16, "depth": 1},
        budget="steps=2",
    )
    begun = prepare(config, tmp_path / "results").run.name
    save(root / "test/a/again.png", noise(8, 8, 3, seed=5000))
    pretrain = ("pretrain", "--dataset", f"folder:{root}", "--budget", "steps=2", *TINY)
    out, err = called(capsys, *pretrain, "--results", tmp_path / "results")
    assert begun in out and COPY in err


def test_remarks_stand_once_for_each_data_set():
    rows = pd.DataFrame(
        {
            "dataset": ["birds", "birds", "birds", "fish", "digits"],
            "remarks": ["a; b", "b", "a; c", "a", None],
        }
    )
    # an evaluation of test alone says less; files read in two ways are two statements
    assert remarks(rows) == ["birds: a; b", "birds: a; c", "fish: a"]
    assert remarks(rows[4:]) == []
