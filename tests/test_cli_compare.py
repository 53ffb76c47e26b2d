"""`maebench compare`: lists on the command line, the plan first, and what is refused."""

import pytest

from maebench import cli
from maebench.analysis import workers
from maebench.cli.compare import split_options
from maebench.errors import ConfigError

TINY = ["--limit", "60", "--budget", "steps=2", "--evals", "knn", "--device", "cpu"]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Calls the command; gives its exit code and what it printed."""

    def in_this_process(tasks, num, threads, logs, fail_fast=False):
        for task in tasks:
            said = []
            workers.serve(iter([task]), said.append)
            yield from said

    monkeypatch.setattr(workers, "run_tasks", in_this_process)

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(["compare", *arguments, "--results", str(tmp_path / "results")])
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return call


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--masking", "random"], 1, "one arm and nothing to compare"),
        (["--masking", "random,block", "--baseline", "grid"], 1, "no arm. There is: random; block"),
        (["--masking", "random,block", "--batch", "32,64"], 1, "takes no list"),
        (["--masking", "random,block", "--dataset", "digits,mnist"], 1, "takes no list"),
        (["--masking", "random,block", "--seeds", "0"], 1, "--seeds"),
        (["--masking", "random,block", "--seeds", "none"], 1, "such as 3-10"),
        (["--masking", "random,block", "--target", "-1"], 1, "--target"),
        (["--masking", "random,blok"], 1, "Did you mean 'block'"),
        (["--masking", "random,block", "-o", "workers=two"], 1, "whole number above 0"),
        (["--masking", "random,block", "-o", "seed=2"], 1, "use --seeds N"),
        (["--masking", "random,block", "-o", "evals=kn"], 1, "Did you mean 'knn'"),
        (["--masking", "random,block", "--seed", "2"], 2, "No such option '--seed'"),
        (["--masking", "random,block", "more"], 2, "unexpected extra argument"),
        (["--config", "missing.yaml"], 1, "missing.yaml"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(run, tmp_path, arguments, code, words):
    found, out, err = run(*arguments)
    assert found == code
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "results").exists()


def test_the_plan_alone_writes_nothing(run, tmp_path):
    code, out, _ = run("--masking", "random,block", "--seeds", "2", "--dry-run", *TINY)
    assert code == 0
    assert "2 arms x 2 seeds" in out
    assert "test: block against random for each evaluation" in out
    assert "7 cells: 7 to run" in out
    assert "ms per update" in out
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_from_one_command_to_tables_and_pictures(run, tmp_path):
    arguments = ["--masking", "random,block", "--seeds", "2", "--name", "first", *TINY]
    code, out, err = run(*arguments)
    assert code == 0
    folder = tmp_path / "results" / "comparisons" / "first"
    for name in ("comparison.md", "table.csv", "pairs.csv", "models.csv", "arms.png"):
        assert (folder / name).exists()
    assert "random (baseline)" in out
    assert "Are two ways of pretraining different?" in out
    assert "Are two models different?" in out
    assert f"written   {folder}" in out
    assert "7/7" in err
    code, again, err = run(*arguments)
    assert code == 0
    assert "7 cells: 7 done" in again
    assert again.split("┏")[-1] == out.split("┏")[-1], "the same table and answers"
    assert err == ""


@pytest.mark.slow
def test_a_yaml_file_says_the_same(run, tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(
        "limit: 60\nbudget: steps=2\nevals: [knn]\ndevice: cpu\nseeds: 2\nbaseline: block 0.5\n"
        "probe-seeds: 2\narms:\n  - {masking: random, ratio: 0.75}\n  - {masking: block, ratio: 0.5}\n"
    )
    code, out, _ = run("--config", str(file), "--dry-run")
    assert code == 0
    assert "test: random 0.75 against block 0.5" in out
    code, out, _ = run("--config", str(file), "--dry-run", "--seeds", "4", "--baseline", "random")
    assert "2 arms x 4 seeds" in out, "a flag wins over the file"
    assert "test: block 0.5 against random 0.75" in out


@pytest.mark.slow
def test_a_failed_cell_ends_with_code_1_and_its_reason(run):
    code, out, err = run("-o", "lr=1e-3,1e30", "--seeds", "1", *TINY, "--budget", "steps=3")
    assert code == 1
    assert "failed: lr=1e+30 seed 0: run" in out
    assert "the loss is" in err


def test_workers_and_threads_are_no_settings_of_a_run():
    assert split_options(("workers=2", "knn.k=1", "threads=1")) == (
        ["knn.k=1"],
        {"workers": 2, "threads": 1},
    )
    with pytest.raises(ConfigError, match="workers=0"):
        split_options(("workers=0",))
