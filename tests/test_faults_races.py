"""Many processes and two hosts at once on the same files: each file is whole, nobody is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from attempts import attempt, processes_of
from soaked import DATA

from maebench import files
from maebench.errors import DamagedError
from maebench.evaluating import records
from maebench.pretraining import checkpoints

PROCESSES, RECORDS = 16, 500
HOST = """
    import socket, sys
    host = sys.argv[1]
    if host:
        socket.gethostname = lambda: host
"""
# Half of the records are everybody's, half of them each process's own.
WRITES = """
    from pathlib import Path
    import numpy as np
    from maebench.evaluating import records
    folder, me, count = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        name = f"all-{number}" if number % 2 else f"own-{me}-{number}"
        row = {"metric": "top1", "where": {}, "main": True, "status": "ok", "value": float(me)}
        records.write(folder, name, [row], {"top1[]": np.full(50, me), "ids": np.arange(50)})
"""
HOLDS = """
    from pathlib import Path
    from maebench import errors, files
    folder = Path(sys.argv[2])
    try:
        with files.lock(folder):
            print("has it", flush=True)
            sys.stdin.readline()
    except errors.RunError as error:
        print(error, flush=True)
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(HOST + code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def children(code: str, count: int, *arguments: object) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of two hosts, which have imported all when they are given."""
    hosts = ["node-1", "node-2"]
    found = [child(code, hosts[n % 2], arguments[0], n, *arguments[1:]) for n in range(count)]
    try:
        for process in found:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in found:
            process.stdin.write("go\n")
            process.stdin.flush()
        yield found
    finally:
        for process in found:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_records_that_many_processes_of_two_hosts_write_at_once_are_all_there_and_whole(tmp_path):
    folder = tmp_path / "runs" / "run" / "records"
    read = 0
    with children(WRITES, PROCESSES, folder, RECORDS) as processes:
        while any(process.poll() is None for process in processes):
            for path in sorted(folder.glob("all-*.json"))[-3:]:
                (row,) = records.whole(path)  # never half of one and half of another
                assert row["value"] in range(PROCESSES)
                read += 1
        said = [process.communicate()[1] for process in processes]
    assert said == [""] * PROCESSES and read > 100
    paths = records.paths(tmp_path)
    assert len(paths) == RECORDS // 2 * (PROCESSES + 1)
    for path in paths:
        (row,) = records.whole(path)
        ids, values = records.values(path, row)
        assert np.array_equal(ids, np.arange(50)) and set(values) == {row["value"]}
        assert not path.name.startswith("own-") or path.name.split("-")[1] == f"{row['value']:.0f}"
    assert len(list(folder.iterdir())) == 2 * len(paths) + 1, "and the lock, no leftovers"


@pytest.mark.slow
def test_values_whose_rows_never_came_are_damaged_after_a_second(tmp_path):
    path = records.write(tmp_path / "run" / "records", "knn", [ROW], {"ids": np.arange(3)})
    with path.with_suffix(".npz").open("wb") as file:
        np.savez(file, ids=np.arange(4))
    with pytest.raises(DamagedError, match="is not as it was written with knn.json"):
        records.whole(path)


ROW = {"metric": "top1", "where": {}, "main": True, "status": "ok", "value": 1.0}


def test_of_two_hosts_one_gets_the_folder_and_the_other_is_told_by_whom(tmp_path):
    with child(HOLDS, "node-1", tmp_path) as first, child(HOLDS, "node-2", tmp_path) as second:
        one, two = first.stdout.readline(), second.stdout.readline()
        holder, other = (first, second) if one == "has it\n" else (second, first)
        host = "node-1" if holder is first else "node-2"
        said = two if holder is first else one
        assert said.startswith(f"{tmp_path} is in use by process {holder.pid} on {host}; ")
        assert other.wait() == 0
        who = files.read_json(tmp_path / files.OWNER)
        assert (who["host"], who["pid"]) == (host, holder.pid)
        holder.kill()  # and the system frees what it held, whatever it was called
    with files.lock(tmp_path):
        assert files.read_json(tmp_path / files.OWNER)["pid"] == os.getpid()


def test_a_sweep_leaves_what_another_host_is_writing(tmp_path):
    place = tmp_path / "records"
    place.mkdir()
    code = """
        from pathlib import Path
        from maebench import files
        beside = files.leftovers.beside(Path(sys.argv[2]) / "records" / "knn.json")
        beside.write_text("half")
        print(beside, flush=True)
    """
    with child(textwrap.dedent(code), "node-2", tmp_path) as process:
        theirs = Path(process.stdout.readline().strip())
    with files.lock(tmp_path):
        assert theirs.exists(), "its process cannot be asked from here"


@pytest.mark.slow
def test_many_processes_that_evaluate_one_model_at_once_keep_one_whole_record(tmp_path):
    results = tmp_path / "results"
    run = ("run", "--budget", "steps=3", "--evals", "knn", *DATA, "--results", str(results))
    made = attempt(run, tmp_path / "first")
    assert made.wait() == 0, made.said
    (path,) = results.glob("runs/*/records/knn-*.json")
    before, expected = records.whole(path), path.with_suffix(".npz").read_bytes()
    command = ("eval", "knn", "--again", "--results", str(results))
    many = [attempt(command, tmp_path / "said", f"eval-{n}") for n in range(PROCESSES)]
    assert [made.wait() for made in many] == [0] * PROCESSES, [made.said for made in many]
    assert not any("damaged" in made.said or "Traceback" in made.said for made in many)
    (after,) = [records.whole(path)]
    assert [row["value"] for row in after] == [row["value"] for row in before]
    assert path.with_suffix(".npz").read_bytes() == expected
    left = [p for p in results.rglob("*") if p.name.startswith((files.BESIDE, files.ASIDE))]
    assert left == []


@pytest.mark.slow
def test_a_comparison_that_is_stopped_saves_in_its_workers_and_leaves_no_process(tmp_path):
    arguments = ("compare", "--masking", "random,block", "--seeds", "1", "--budget", "steps=100000")
    kept = ("-o", "machine.checkpoint_seconds=1000")
    machine = ("-o", "workers=2", *DATA, *kept)
    results = tmp_path / "results"
    made = attempt(
        [*arguments, "--evals", "knn", *machine, "--results", str(results)], tmp_path / "said"
    )

    def steps() -> list[int]:
        logs = results.glob("runs/*/log.jsonl")
        return [len(log.read_text().splitlines()) for log in logs]

    assert made.until(lambda: len(steps()) == 2 and min(steps()) > 20), made.said
    made.send(signal.SIGTERM)
    assert made.wait(60) == 143, made.said
    assert "goes on by: maebench compare" in made.said and "Traceback" not in made.said
    assert processes_of(made.mark) == []
    for run in results.glob("runs/*"):
        last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]
        assert [p.name for p in run.glob("checkpoint/step-*")] == [checkpoints.folder_name(last)]
