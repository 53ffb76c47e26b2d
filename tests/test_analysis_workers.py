"""Workers do the cells that they are given, say what happens, and end with whoever gave them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from maebench import RunConfig
from maebench.analysis import workers
from maebench.analysis.cells import Cell
from maebench.errors import DeviceError, RunError
from maebench.evaluating import records
from maebench.pretraining import checkpoints, stopping
from maebench.pretraining.plan import prepare


def task(results, seed=0, steps=2, kind="run", **settings):
    config = RunConfig(limit=60, budget=f"steps={steps}", seed=seed, evals=("knn",), **settings)
    return Cell("arm", seed, prepare(config, results, write=False), kind).as_task([seed])


def served(*tasks):
    said = []
    workers.serve(iter(tasks), said.append)
    return said


def test_a_cell_is_pretrained_and_evaluated_and_its_events_are_said(tmp_path):
    said = served(task(tmp_path))
    what = [event["what"] for event in said if event["what"] != "step"]
    assert what == ["started", "evaluation", "done"]
    assert {event["task"] for event in said} == {said[0]["task"]}
    (path,) = records.paths(tmp_path)
    assert records.read(path)[0]["model_kind"] == "run"


@pytest.mark.slow
def test_floors_are_evaluated_without_pretraining(tmp_path):
    said = served(task(tmp_path, kind="untrained"), task(tmp_path, kind="pixels"))
    assert [e["what"] for e in said] == ["started", "evaluation", "done"] * 2
    kinds = {records.read(path)[0]["model_kind"] for path in records.paths(tmp_path)}
    assert kinds == {"untrained", "pixels"}
    assert not list(tmp_path.glob("runs/*/checkpoint"))


@pytest.mark.slow
def test_a_cell_that_fails_is_said_in_one_line_and_takes_no_other_with_it(tmp_path):
    said = served(task(tmp_path, lr=1e30, steps=3), task(tmp_path))
    ends = [event for event in said if event["what"] in ("done", "failed")]
    assert [event["what"] for event in ends] == ["failed", "done"]
    assert "the loss is" in ends[0]["reason"]
    assert "\n" not in ends[0]["reason"]


@pytest.mark.slow
def test_a_second_time_nothing_is_trained(tmp_path):
    served(task(tmp_path))
    (before,) = records.paths(tmp_path)
    written = before.stat().st_mtime_ns
    served(task(tmp_path))
    assert before.stat().st_mtime_ns == written


def test_no_tasks_start_no_process(tmp_path):
    assert list(workers.run_tasks([], 2, 1, tmp_path / "logs")) == []
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_processes_share_the_tasks_and_a_failure_is_one_event(tmp_path):
    tasks = [task(tmp_path, seed) for seed in range(3)] + [task(tmp_path, 9, lr=1e30, steps=3)]
    events = list(workers.run_tasks(tasks, 2, 1, tmp_path / "logs"))
    ends = {e["task"]: e["what"] for e in events if e["what"] in ("done", "failed")}
    assert sorted(ends.values()) == ["done", "done", "done", "failed"]
    assert len(records.paths(tmp_path)) == 3
    assert len(list((tmp_path / "logs").iterdir())) == 2


@pytest.mark.slow
def test_the_first_failure_ends_all_where_that_is_asked(tmp_path):
    tasks = [task(tmp_path, 9, lr=1e30, steps=3), *(task(tmp_path, seed) for seed in range(2))]
    events = list(workers.run_tasks(tasks, 1, 1, tmp_path / "logs", fail_fast=True))
    assert [e["what"] for e in events if e["what"] != "step"] == ["started", "failed"]
    assert records.paths(tmp_path) == []


@pytest.mark.slow
def test_a_worker_that_dies_fails_its_cell_and_another_goes_on(tmp_path):
    tasks = [task(tmp_path, 0, steps=100_000), task(tmp_path, 1)]
    ends = []
    for event in workers.run_tasks(tasks, 1, 1, tmp_path / "logs"):
        if event["what"] == "step" and not ends:
            for owner in tmp_path.glob("runs/*/owner.json"):
                with contextlib.suppress(ProcessLookupError):  # events that it said before
                    os.kill(json.loads(owner.read_text())["pid"], signal.SIGKILL)
        elif event["what"] in ("done", "failed"):
            ends.append(event)
    assert [e["what"] for e in ends] == ["failed", "done"]
    assert "its worker ended with code -9" in ends[0]["reason"]


def test_a_cell_whose_gpu_fails_ends_its_worker(tmp_path, monkeypatch):
    def fails(device):
        raise DeviceError(f"{device} does not answer any more")

    monkeypatch.setattr(workers, "evaluate", lambda *_, **__: tmp_path)
    monkeypatch.setattr(workers.records, "read", lambda path: [{"status": "failed", "reason": "x"}])
    monkeypatch.setattr(workers, "check_answers", fails)
    said = served(task(tmp_path), task(tmp_path, 1))
    assert said[-1]["what"] == "failed" and said[-1]["ends"]
    assert said[-1]["reason"] == "cpu does not answer any more"
    assert len({event["task"] for event in said}) == 1  # the second is another worker's


def saved(results, seed=""):
    """A run was stopped, and its last step is kept."""
    (run,) = results.glob(f"runs/*{seed}-*")
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert 0 < last < 100_000
    assert [p.name for p in run.glob("checkpoint/step-*")] == [checkpoints.folder_name(last)]


@pytest.mark.slow
@pytest.mark.parametrize("raised", [stopping.Stopped(signal.SIGTERM), RunError("no folder")])
def test_where_whoever_reads_the_events_is_ended_the_workers_save_all_the_same(tmp_path, raised):
    tasks = [task(tmp_path, 0, steps=100_000)]
    happens = workers.run_tasks(tasks, 1, 1, tmp_path / "logs")
    with pytest.raises(type(raised)), contextlib.closing(happens):
        for event in happens:
            if event["what"] == "step":
                raise raised
    saved(tmp_path)


@pytest.mark.slow
def test_what_runs_when_another_cell_fails_first_saves_too(tmp_path):
    tasks = [task(tmp_path, seed, steps=100_000) for seed in (0, 9)]
    ends, working = [], set()
    for event in workers.run_tasks(tasks, 2, 1, tmp_path / "logs", fail_fast=True):
        working |= {event["task"]} if event["what"] == "step" else set()
        if len(working) == 2:
            (owner,) = tmp_path.glob("runs/*-s9-*/owner.json")
            with contextlib.suppress(ProcessLookupError):  # events that were said before
                os.kill(json.loads(owner.read_text())["pid"], signal.SIGKILL)
        ends += [event["what"]] * (event["what"] in ("done", "failed"))
    assert ends == ["failed"]
    saved(tmp_path, "-s0")


class Broken:
    """A worker whose GPU fails in its first cell, without a process."""

    started = 0

    def __init__(self, number, threads, log, events):
        type(self).started += 1
        self.number, self.log, self.events, self.task = number, log, events, None
        self.process = SimpleNamespace(wait=lambda: 0)

    def give(self, task):
        self.task = task
        if task is None:
            self.events.put((self.number, {"what": workers.ENDED}))
            return
        ends = {"what": "failed", "reason": "gone", "ends": True} if task["breaks"] else {}
        self.events.put((self.number, {"task": task["name"], "what": "done", **ends}))

    def stop(self):
        pass


def test_after_a_gpu_has_failed_another_worker_does_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_Worker", Broken)
    tasks = [{"name": name, "breaks": name in "ac"} for name in "abcd"]
    ends = [(e["task"], e["what"]) for e in workers.run_tasks(tasks, 1, 1, tmp_path)]
    assert ends == [("a", "failed"), ("b", "done"), ("c", "failed"), ("d", "done")]
    assert Broken.started == 3


def test_a_worker_is_told_the_device_that_was_found(tmp_path):
    assert task(tmp_path, device="auto")["config"]["device"] in ("cpu", "cuda")


GIVER = """
import sys
from pathlib import Path
from maebench.analysis import workers
import json
tasks = json.loads(Path(sys.argv[1]).read_text())
for event in workers.run_tasks(tasks, 1, 1, Path(sys.argv[2])):
    print(event["what"], flush=True)
"""


@pytest.mark.slow
def test_workers_end_with_a_comparison_that_is_killed(tmp_path):
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps([task(tmp_path, 0, steps=100_000)]))
    command = [sys.executable, "-c", GIVER, str(tasks), str(tmp_path / "logs")]
    giver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert giver.stdout is not None
    assert any(line.strip() == "step" for line in giver.stdout)
    (owner,) = tmp_path.glob("runs/*/owner.json")
    pid = json.loads(owner.read_text())["pid"]
    giver.kill()
    giver.wait()
    giver.stdout.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status")
        with contextlib.suppress(OSError):  # it is gone
            if "State:\tZ" not in status.read_text():
                time.sleep(0.1)
                continue
        return
    raise AssertionError("the worker lives on")
