"""The command line: quick to help, one line for a mistake, the right exit code, every table."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from maebench import cli
from maebench.files import BESIDE
from maebench.outputs import FORMATS

number = itertools.count()


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def call(*arguments):
    """`maebench ARGUMENTS` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), None
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),  # main() changes how they are shown
    ):
        try:
            cli.main(list(map(str, arguments)))
        except SystemExit as end:
            code = end.code
    return Ran(code, out.getvalue(), err.getvalue())


def refused(*arguments, code=1):
    """The one line that a mistake is answered with, on stderr, and nothing else anywhere."""
    ran = call(*arguments)
    assert (ran.code, ran.out) == (code, ""), ran
    assert re.fullmatch(r"Error: [^\n]+\n", ran.err), ran.err
    return ran.err


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- help


HEAVY = {"torch", "timm", "torchvision", "sklearn", "scipy", "matplotlib", "transformers", "faiss"}


def loaded_by(*commands):
    """Which packages each command has loaded, with those before it, in one fresh interpreter."""
    ran = python(f"""
import sys
from maebench.cli import main
for arguments in {[list(map(str, command)) for command in commands]}:
    try:
        main(arguments)
    except SystemExit as end:
        print("LOADED", end.code, *{{m.split(".")[0] for m in sys.modules}})
""")
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines() if line.startswith("LOADED")]
    assert len(lines) == len(commands), ran
    return [(int(code), set(modules)) for _, code, *modules in lines]


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_imports_nothing_heavy(arguments):
    [(code, loaded)] = loaded_by(arguments)
    assert code == 0
    assert loaded & {*HEAVY, "pandas", "pydantic", "numpy", "rich"} == set()


def test_the_help_of_a_command_and_an_unknown_name_or_flag_import_no_torch():
    ours = [[command] for command in cli.COMMANDS]
    helps = [[*command, "--help"] for command in ours]
    flags = [[*command, "--wrong"] for command in [[], *ours, ["plugins", "new"]]]
    names = [["tabel"], ["plugins", "instal"], ["--help", "tabel"]]
    commands = [*helps, *flags, *names]
    codes = [0] * len(helps) + [2] * len(flags) + [1, 1, 0]
    for command, code, found in zip(commands, codes, loaded_by(*commands), strict=True):
        assert (found[0], found[1] & HEAVY) == (code, set()), command


def test_a_table_of_nothing_is_refused_without_torch(tmp_path):
    commands = [["table", "--results", tmp_path], ["table", "--format", "parquet"]]
    for command, found in zip(commands, loaded_by(*commands), strict=True):
        assert (found[0], found[1] & HEAVY) == (1, set()), command


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_line_of_a_command_is_its_own_first_sentence(name):
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert cli.COMMANDS[name][1] == command.help.split("\n")[0]
    assert command.name == name
    shown = call(name, "--help")
    assert shown.code == 0 and cli.COMMANDS[name][1] in shown.out
    assert "\\b" not in shown.out and "\b" not in shown.out
    if "Examples" in shown.out:
        assert re.search(r"\n  Examples:\n    maebench ", shown.out), "click has joined the lines"
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_help_shows_every_command_in_the_order_of_a_working_day():
    shown = call("--help")
    assert shown.code == 0 and call() == call("--help")
    assert re.findall(r"^  ([a-z]+)  ", shown.out, re.MULTILINE) == list(cli.COMMANDS)


def test_the_version_is_printed():
    assert re.fullmatch(r"maebench, version [\d.]+\n", call("--version").out)


def test_recipes_are_listed_with_what_they_are():
    from maebench.config.recipes import header, recipe_names

    shown = call("list", "recipes")
    lines = [f"  {n}\n      {header(n)['title']}\n" for n in recipe_names()]
    assert shown == Ran(0, "recipes\n" + "".join(lines), "")
    assert call("list").out.endswith(shown.out)


def test_every_option_that_is_listed_can_be_typed_as_it_stands():
    """Each `-o part.key=default` of `maebench list` gives back the default."""
    from maebench.config.sources import from_sources
    from maebench.plugins import installed

    names = installed()
    for kind in ("encoder", "masking", "objective", "evaluation"):
        shown = call("list", f"{kind}s").out
        for name, cls in names.table[kind].items():
            block = re.search(rf"^  {name}(?::\w+)?\n((?:      .*\n)+)", shown, re.MULTILINE)[1]
            options = re.findall(r"-o (\S+=\S*)", block)
            typed = f"{name}:PATH" if cls.spec else name
            plain = {"evals": [typed]} if kind == "evaluation" else {kind: typed}
            if "text" in getattr(cls, "takes", ()) and "images" not in cls.takes:
                plain["dataset"] = "pydoc"
            read = from_sources(plain, options, None, names)
            for option in options:
                key = option.partition("=")[0].partition(".")[2]
                part = read.evals[0] if kind == "evaluation" else getattr(read, kind)
                default = type(part).model_fields[key].default
                assert getattr(part, key) == pytest.approx(default), option


# --- mistakes


@pytest.mark.parametrize(
    "arguments",
    [
        ["--wrong"],
        ["run", "--wrong"],
        ["run", "--ratios", "0.5"],
        ["run", "--ratio"],
        ["run", "-o"],
        ["run", "stray"],
        ["eval"],
        ["eval", "knn", "--wrong"],
        ["features"],
        ["table", "--wrong"],
        ["list", "maskings", "stray"],
    ],
    ids=" ".join,
)
def test_an_unknown_flag_or_a_missing_argument_is_code_2(arguments):
    refused(*arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel"], ["unknown command 'tabel'", "Did you mean 'table'?", "pretrain"]),
        (["run", "--dataset", "digit"], ["dataset", "Did you mean 'digits'?"]),
        (["run", "--masking", "blok"], ["masking", "Did you mean 'block'?"]),
        (["run", "--masking", "block", "-o", "masking.aspect=7"], ["masking.aspect", "'7'"]),
        (["run", "--ratio", "1.5"], ["--ratio", "1.5", "0<x<1"]),
        (["run", "--ratio", "nan"], ["--ratio", "nan", "0<x<1"]),
        (["run", "--lr", "inf"], ["--lr", "inf", "x>0"]),
        (["run", "--image-size", "8x"], ["--image-size", "'8x'", "N or H,W"]),
        (["run", "--budget", "step=3"], ["--budget", "'step=3'", "steps=N"]),
        (["run", "--budget", "steps=0"], ["--budget", "greater than 0"]),
        (["run", "--on-bad-image", "skp"], ["--on-bad-image", "'skp'", "Did you mean 'skip'?"]),
        (["run", "--limit", "0"], ["--limit", "0", "x>=1"]),
        (["run", "--ratio", "0.01"], ["0.01"]),
        (["run", "--evals", "kn"], ["kn", "Did you mean 'knn'?"]),
        (["run", "--device", "tpu"], ["--device tpu", "cpu"]),
        (["run", "--limit", "99999"], ["--limit 99999", "train has only"]),
        (["run", "-o", "encoder.patch=3"], ["encoder.patch", "3x3", "8x8"]),
        (["run", "-o", "encoder.width=62"], ["encoder.width", "62"]),
        (["run", "--config", "no.yaml"], ["--config", "'no.yaml' does not exist"]),
        (["pretrain", "--seed", "-1"], ["--seed", "-1", "x>=0"]),
        (["eval", "kn"], ["eval", "unknown evaluation 'kn'", "Did you mean 'knn'?"]),
        (["eval", "knn", "-o", "k"], ["-o", "'k'", "key=value"]),
        (["eval", "knn", "-o", "k=0"], ["eval.k.0", "greater than 0"]),
        (["eval", "knn", "-o", "j=0"], ["unknown option 'j'"]),
        (["eval", "knn", "--seed", "x"], ["--seed", "'x'"]),
        (["eval", "knn", "--seed", "²"], ["--seed"]),
        (["eval", "reconstruction", "-o", "ratio=2"], ["eval.ratio", "less than 1", "'2'"]),
        (["eval", "knn"], ["no run in", "maebench run"]),
        (["eval", "knn", "-o", "across=true"], ["unknown option 'across' in knn"]),
        (["eval", "knn", "nothing"], ["unknown run 'nothing'"]),
        (["eval", "knn", "pixel:"], ["unknown kind of model 'pixel'", "pixels:", "untrained:"]),
        (["eval", "knn", "pixels:digit"], ["pixels:", "Did you mean 'digits'?"]),
        (["eval", "knn", "a" * 300], ["unknown run"]),
        (
            ["features", "--out", "x", "--split", "val"],
            ["--split", "unknown split 'val'", "test, train"],
        ),
        (["features", "--out", "x", "--layer", "last"], ["--layer", "'last'"]),
        (["table"], ["no results in", "maebench run", "--results"]),
        (["table", "--format", "word"], ["--format", "unknown format 'word'", "csv, html, latex"]),
        (["table", "--format", "parquet"], ["parquet", "--out"]),
        (["list", "mask"], ["unknown kind 'mask'", "Did you mean 'maskings'?"]),
        (["list", "recipy"], ["unknown kind 'recipy'", "Did you mean 'recipes'?"]),
        (["run", "--recipe", "mae-digit"], ["unknown recipe 'mae-digit'", "'mae-digits'?"]),
        (["run", "--recipe", "./a.yaml"], ["--recipe ./a.yaml", "--config"]),
        (["run", "--recipe", "mae-digits", "--ratio", "0.5"], ["ratio: recipe 0.75, given 0.5"]),
        (["pretrain", "--override"], ["--override", "--recipe NAME"]),
        (["plugins", "install"], ["unknown action 'install'"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_bad_value_is_code_1_and_one_line_that_says_what_is_allowed(
    arguments, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the default folder for results is here, and empty
    message = refused(*arguments)
    assert [word for word in words if word not in message] == [], message
    assert list(tmp_path.rglob("*.json")) == [], "nothing has begun"


@pytest.mark.parametrize("command", [["run"], ["pretrain"], ["eval", "knn", "pixels:digits"]])
def test_a_results_folder_that_cannot_be_written_is_one_line(tmp_path, command):
    (tmp_path / "file").write_text("x")
    ran = call(*command, "--results", tmp_path / "file" / "below")
    assert (ran.code, ran.out) == (1, "") and ran.err.count("Error: ") == 1, ran
    last = ran.err.splitlines()[-1]
    assert last.startswith(f"Error: cannot write to folder {tmp_path}/file") and "--results" in last


def test_an_interruption_is_one_line_and_the_shells_code(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("maebench.plugins.installed", interrupted)
    ran = call("list")
    assert (ran.code, ran.out) == (130, "")
    assert re.fullmatch(r"\n?Error: stopped[^\n]+\n", ran.err), "after the ^C that a terminal shows"


def test_a_reader_that_leaves_early_sees_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "maebench", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() in (0, 1)


# --- commands of other packages


def command_package(folder, package, command, code):
    module = f"command_{next(number)}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    entries = f"[maebench.commands]\n{command} = {module}:command\n"
    (metadata / "entry_points.txt").write_text(entries)


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    good = """
import click

@click.command()
@click.option("--times", type=int, default=1)
def command(times):
    click.echo("hello" * times)
"""
    command_package(tmp_path, "good", "greet", good)
    command_package(tmp_path, "broken", "broken", "import no_such_module")
    command_package(tmp_path, "leaving", "leave", "raise SystemExit(0)")
    command_package(tmp_path, "plain", "plain", "def command():\n    pass\n")
    command_package(tmp_path, "squatter", "run", "raise RuntimeError('loaded')")


def test_broken_commands_of_other_packages_do_not_take_help_away(third_party):
    before = set(sys.modules)
    shown = call("--help")
    loaded = {n for n in set(sys.modules) - before if n.startswith(("command_", "maebench"))}
    assert shown.code == 0 and loaded == set(), "help imports no command"
    rows = re.findall(r"^  ([a-z]+)  +(.*)", shown.out.split("Commands:")[1], re.MULTILINE)
    theirs = [("broken", "(from broken)"), ("greet", "(from good)"), ("leave", "(from leaving)")]
    assert rows[: len(cli.COMMANDS)] == [(n, text) for n, (_, text) in cli.COMMANDS.items()]
    assert rows[len(cli.COMMANDS) :] == [*theirs, ("plain", "(from plain)")]


def test_a_good_command_runs_and_a_broken_one_names_its_package(third_party):
    assert call("greet", "--times", "2") == Ran(0, "hellohello\n", "")
    assert "'x' is not a valid integer" in refused("greet", "--times", "x")
    refused("greet", "--time", code=2)
    for name, package, why in [
        ("broken", "broken", "No module named 'no_such_module'"),
        ("leave", "leaving", "SystemExit"),
        ("plain", "plain", "a click command is wanted"),
    ]:
        message = refused(name)
        assert f"command {name!r} of {package} does not load" in message and why in message
    assert "Did you mean 'greet'?" in refused("gret")
    assert call("run", "--help").code == 0, "a built-in's name stays ours"


# --- tables

WRITTEN: list[tuple[str, str]] | None = None  # path and mode, while this is a list
NAMELESS = getattr(os, "O_TMPFILE", 0)  # a file in a folder that nobody else can see


def watch(event, arguments):
    if event == "open" and WRITTEN is not None:
        path, mode, flags = arguments
        if NAMELESS and flags & NAMELESS == NAMELESS:  # a lock tries what the file system can do
            return
        if isinstance(path, str | bytes) and (
            set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)
        ):
            WRITTEN.append((os.fsdecode(path), mode or ""))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two short runs that differ in masking, each evaluated by kNN; the paths that were written."""
    global WRITTEN
    folder = tmp_path_factory.mktemp("results")
    sys.addaudithook(watch)  # stays for the process's life, does nothing while WRITTEN is None
    runs, WRITTEN = {}, []
    for masking in ("random", "block"):
        quick = ("--budget", "steps=3", "--evals", "knn", "--limit", "200")
        runs[masking] = call("run", "--masking", masking, *quick, "--results", folder)
        assert runs[masking].code == 0, runs[masking]
    written, WRITTEN = WRITTEN, None
    return folder, runs, written


def test_a_run_ends_with_its_table_and_says_what_is_next(results):
    folder, runs, _ = results
    out = runs["block"].out
    for row in ("pretrained", "untrained", "raw pixels"):
        assert re.search(rf"{row} +│ +\d+\.\d \[\d+\.\d, \d+\.\d\]", out), row
    assert "pretrained - untrained, knn top1 (%):" in out
    assert f"results   {folder}/runs/digits-vit-nano-mae-block-0.75-s0-" in out
    assert "next      maebench table" in out


@pytest.mark.slow
def test_a_table_in_a_format_of_our_own_imports_no_torch(results, tmp_path):
    folder, _, _ = results
    own = [[], ["--tidy"], ["--by", "masking", "--cost"]]
    own += [["--format", form] for form in FORMATS if form != "parquet"]
    own += [["--format", "parquet", "--out", tmp_path / "table.parquet"]]
    commands = [["table", "--results", folder, *more] for more in own]
    for command, found in zip(commands, loaded_by(*commands), strict=True):
        assert (found[0], found[1] & HEAVY) == (0, set()), command


def test_a_table_shows_what_pretraining_has_cost_on_request(results):
    folder, _, _ = results
    plain = call("table", "--format", "csv", "--results", folder).out
    assert "flops" not in plain and "tokens" not in plain
    shown = call("table", "--cost", "--format", "csv", "--results", folder).out
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(shown))}
    run = next(row for name, row in rows.items() if name.startswith("digits-"))
    assert (run["steps"], run["images"], run["tokens"]) == ("3", "192", "768")
    assert float(run["flops encoder"]) > float(run["flops decoder"]) > 0
    assert float(run["pretraining seconds"]) > 0
    assert "," not in run["tokens"] and run["flops encoder"].isdigit()  # exact
    for name in ("untrained:", "pixels:"):
        other = next(row for model, row in rows.items() if model.startswith(name))
        assert {other["steps"], other["flops encoder"]} == {""}
    grouped = call(
        "table", "--by", "masking,limit", "--cost", "--format", "csv", "--results", folder
    )
    assert [row["tokens"] for row in csv.DictReader(io.StringIO(grouped.out))] == ["768", "768"]


def test_the_same_run_again_does_nothing_but_print_the_table(results):
    folder, runs, _ = results
    files = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = call(
        *("run", "--masking", "block", "--budget", "steps=3", "--evals", "knn", "--limit", "200"),
        *("--results", folder),
    )
    assert again.out == runs["block"].out
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == files


def test_every_file_of_a_run_was_written_beside_and_renamed(results):
    folder, _, written = results
    ours = [(os.path.relpath(p, folder), m) for p, m in written if p.startswith(str(folder))]
    assert len(ours) > 20
    direct = {(p.split("/")[-1], m) for p, m in ours if f"/{BESIDE}" not in f"/{p}"}
    # the log grows line by line; the lock's content is the system's
    assert direct == {("log.jsonl", "a+"), ("lock", ""), (".lock", "")}
    assert not list(folder.rglob(f"{BESIDE}*")), "nothing is left half-written"


CHOICE = r"( choice \d+\.\d-\d+\.\d)?"


def table(folder, *arguments):
    ran = call("table", "--results", folder, *arguments)
    assert ran.code == 0, ran
    # beside data, what stands below a table is said apart
    assert all(
        line.startswith(("note: Values", "note: choice")) for line in ran.err.splitlines()
    ), ran
    return ran.out


def test_the_table_has_a_row_per_model_and_a_column_per_evaluation(results):
    import pandas as pd

    folder, _, _ = results
    frame = pd.read_csv(io.StringIO(table(folder, "--format", "csv")))
    assert list(frame.columns) == ["model", "dataset", "knn top1 (%)"]
    kinds = sorted(m.split(":")[0].split("-")[0] for m in frame["model"])
    assert kinds == ["digits", "digits", "pixels", "untrained", "untrained"]
    number = r"\d+\.\d"
    cell = rf"{number} \[{number}, {number}\]{CHOICE}"
    assert all(re.fullmatch(cell, v) for v in frame["knn top1 (%)"])
    assert table(folder).count("│") > 10, "for reading, as a drawn table"


@pytest.mark.parametrize(
    ("form", "sign"),
    [
        ("markdown", r"^\| model +\| dataset +\| knn top1 \(%\) +\|\n\|:-"),
        ("csv", r"^model,dataset,knn top1 \(%\)\n"),
        (
            "latex",
            r"^\\begin\{tabular\}(.|\n)*knn top1 \(\\%\)(.|\n)*\\end\{tabular\}\n(.|\n)*: Wilson\.",
        ),
        ("html", r"^<table(.|\n)*<th>knn top1 \(%\)</th>(.|\n)*</table>\n<p>Values(.|\n)*</p>$"),
    ],
)
def test_every_format_is_printed_or_written_to_a_file(results, tmp_path, form, sign):
    folder, _, _ = results
    text = table(folder, "--format", form)
    assert re.search(sign, text.rstrip("\n"))
    assert table(folder, "--format", form, "--out", tmp_path / "sub" / "table") == ""
    assert (tmp_path / "sub" / "table").read_text() == text


@pytest.mark.parametrize("more", [[], ["--tidy"], ["--by", "masking"]], ids=str)
def test_parquet_is_written_to_a_file(results, tmp_path, more):
    import pandas as pd

    folder, _, _ = results
    path = tmp_path / "table.parquet"
    assert table(folder, "--format", "parquet", "--out", path, *more) == ""
    columns = table(folder, "--format", "csv", *more).split("\n")[0]
    assert ",".join(pd.read_parquet(path).columns) == columns


def test_the_tidy_table_has_every_column_and_every_row(results):
    import pandas as pd

    from maebench import load_records
    from maebench.analysis.records import FROM_CONFIG
    from maebench.evaluating.records import COLUMNS

    folder, _, _ = results
    frame = pd.read_csv(io.StringIO(table(folder, "--tidy", "--format", "csv")))
    assert list(frame.columns[:-1]) == [*COLUMNS, *FROM_CONFIG]
    assert len(frame) == len(load_records(folder)) > 5 * 5
    assert set(frame["masking"].dropna()) == {
        "random",
        "block(smallest=0.08163265306122448, aspect=0.3)",
    }


def test_by_groups_the_runs_by_settings(results):
    import pandas as pd

    folder, _, _ = results
    by_both = ("table", "--results", folder, "--by", "masking,ratio", "--format", "csv")
    assert "differ in" not in call(*by_both).err
    frame = pd.read_csv(io.StringIO(table(folder, "--by", "masking,ratio", "--format", "csv")))
    assert list(frame.columns) == ["masking", "ratio", "dataset", "knn top1 (%)"]
    assert len(frame) == 2 and set(frame["ratio"]) == {0.75}
    assert all(
        re.fullmatch(rf"\d+\.\d \(n=1\) ±\d+\.\d images{CHOICE}", c) for c in frame["knn top1 (%)"]
    )
    ran = call("table", "--results", folder, "--by", "ratio", "--format", "csv")
    (row,) = pd.read_csv(io.StringIO(ran.out)).to_dict("records")
    # two maskings are no two seeds
    assert re.fullmatch(
        rf"\d+\.\d ±\d+\.\d runs \(n=2\) ±\d+\.\d images{CHOICE}", row["knn top1 (%)"]
    )
    assert "note: 0.75, digits: its runs differ in masking\n" in ran.err


def test_another_metric_is_shown_by_name(results):
    folder, _, _ = results
    for name in ("validation_top1", "knn/validation_top1"):
        assert "knn k=" in table(folder, "--metric", name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--by", "maskings"], ["--by", "unknown column 'maskings'", "Did you mean 'masking'?"]),
        (["--metric", "top9"], ["unknown metric 'top9'", "knn/top1"]),
        (["--metric", "probe/top1"], ["unknown metric 'probe/top1'", "knn/top1"]),
        (["--out", "."], ["no regular file"]),
        (["--out", "/dev/null/x"], ["cannot write"]),
    ],
    ids=str,
)
def test_a_table_of_what_is_not_there_is_one_line(results, arguments, words):
    message = refused("table", "--results", results[0], *arguments)
    assert [word for word in words if word not in message] == []


def test_models_of_a_run_are_evaluated_again_only_when_asked(results):
    folder, _, _ = results
    more = ("--results", folder, "-o", "k=1,5")
    first = call("eval", "knn", "untrained:", "pixels:", *more)
    assert first.code == 0 and first.out.count("record ") == 2, first
    assert call("eval", "knn", "untrained:", "pixels:", *more).out == first.out
    records = [line.split()[-1] for line in first.out.splitlines() if line.startswith("record")]
    before = [os.stat(path).st_mtime_ns for path in records]  # noqa: PTH116
    call("eval", "knn", "untrained:", "pixels:", *more, "--again")
    assert [os.stat(path).st_mtime_ns for path in records] != before  # noqa: PTH116


def test_features_of_an_evaluation_are_kept_in_what_is_asked_for(results):
    more = ("--results", results[0], "-o", "k=1", "-o")
    plain, half = (
        call("eval", "knn", "untrained:", *more, f"machine.features={kept}")
        for kept in ("fp32", "bf16")
    )
    assert plain.code == half.code == 0
    records = [
        Path(line.split()[-1]).read_text()
        for ran in (plain, half)
        for line in ran.out.splitlines()
        if line.startswith("record")
    ]
    assert ["with bf16 features" in record for record in records] == [False, True]
    message = refused("eval", "knn", *more, "machine.features=fp8")
    assert "machine.features" in message and "'bf16'" in message and "'fp8'" in message


@pytest.mark.slow
def test_models_are_compared_under_common_masks(results):
    from PIL import Image

    folder, _, _ = results
    names = sorted(path.name for path in (folder / "runs").iterdir())
    ran = call("eval", "reconstruction", *names, "-o", "across=true", "--results", folder)
    assert ran.code == 0, ran
    assert "reconstruction(across=true) r2" in ran.out
    # each run is marked once: the one masking and ratio that it was trained with
    assert len(re.findall(r"-?\d\.\d{3}\*", ran.out)) == 2, ran.out
    assert ran.out.count("inverse-") >= 3
    (picture,) = re.findall(r"^picture   (.*)$", ran.out, re.MULTILINE)
    with Image.open(picture) as image:
        image.load()
    assert picture.endswith("pictures/across.png")


def test_features_are_written_to_a_file(results, tmp_path):
    import numpy as np

    folder, _, _ = results
    ran = call("features", "--results", folder, "--out", tmp_path / "f.npz", "--pool", "cls")
    said = re.search(r"features (\d+)x64 of digits-vit-nano-mae-block-.*, test\n$", ran.out)
    assert ran.code == 0 and said, ran
    num_images = int(said[1])
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert found["features"].shape == (num_images, 64) and found["features"].dtype == np.float32
        assert found["ids"].shape == found["labels"].shape == (num_images,)
        assert len(found["class_names"]) == 10


# --- text that a spreadsheet would run


@pytest.mark.parametrize("start", "=+-@")
def test_csv_quotes_what_a_spreadsheet_would_run(start):
    import pandas as pd

    from maebench.report.formats import render

    frame = pd.DataFrame({"a": [f"{start}cmd()", "plain", "1=1"], "b": [-1.5, 2, 0]})
    found = pd.read_csv(io.StringIO(render(frame, "csv")))
    assert list(found["a"]) == [f"'{start}cmd()", "plain", "1=1"]
    assert list(found["b"]) == [-1.5, 2, 0], "numbers stay numbers"
    assert f"{start}cmd()" in render(frame, "html") and "'" not in render(frame, "markdown")


def test_an_empty_cell_stays_empty_in_csv():
    import pandas as pd

    from maebench.report.formats import render

    assert render(pd.DataFrame({"a": ["x", ""], "b": [1, 2]}), "csv") == "a,b\nx,1\n,2\n"
