"""Worker processes: cells of a comparison side by side, each on its own threads.

A worker reads one JSON object per line, a task, from its standard input and writes what happens as
JSON lines to its standard output; whatever else is printed goes to its log. It ends when its
standard input does: a comparison that is killed takes its workers along, wherever they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from maebench import files
from maebench.analysis.cells import Cell, Data, model_of
from maebench.config.run import RunConfig
from maebench.errors import DeviceError, MaebenchError, RunError
from maebench.evaluating import records
from maebench.evaluating.suite import evaluate
from maebench.plugins import installed
from maebench.pretraining import stopping
from maebench.pretraining.hardware import check_answers
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

Event = dict[str, Any]
Task = dict[str, Any]
EVENT_SECONDS = 0.5  # between two events of one cell: a person reads no faster
ENDED = "ended"  # what a worker's reader says when its output ends


def run_tasks(
    tasks: Sequence[Task],
    workers: int,
    threads: int,
    logs: Path,
    fail_fast: bool = False,
) -> Generator[Event]:
    """Does the tasks in order on so many worker processes and yields what happens.

    Events are {"task": its name, "what": "started", "step", "evaluation", "done" or "failed", ...}.
    With `fail_fast` nothing is begun after a failure. Where that, an error or `close` ends it
    early, what runs finishes its step and saves.

    Raises:
        RunError: a worker cannot be started.
    """
    if not tasks:
        return
    waiting = list(tasks)
    events: queue.Queue[tuple[int, Event]] = queue.Queue()
    team: dict[int, _Worker] = {}
    try:
        for number in range(min(workers, len(tasks))):
            team[number] = _Worker(number, threads, logs / f"worker-{number}.log", events)
            team[number].give(waiting.pop(0))

        def tell(number: int) -> None:
            for worker in team.values():
                worker.tell(number)

        with stopping.telling(tell):
            yield from _shared(team, waiting, events, threads, fail_fast)
    finally:
        # However it ends, whoever is at work finishes its step and saves. A second signal ends this
        # process, and they see it.
        for worker in team.values():
            worker.tell(signal.SIGTERM)
        for worker in team.values():
            worker.process.wait()
            worker.stop()


def _shared(
    team: dict[int, _Worker],
    waiting: list[Task],
    events: queue.Queue[tuple[int, Event]],
    threads: int,
    fail_fast: bool,
) -> Iterator[Event]:
    """What happens while workers share the tasks, until all are done."""
    while team:
        number, event = events.get()
        worker = team[number]
        if event["what"] == ENDED:
            lost = worker.task
            code = worker.process.wait()
            worker.stop()
            del team[number]
            if lost is not None:
                why = f"its worker ended with code {code}: see {worker.log}"
                yield {"task": lost["name"], "what": "failed", "reason": why}
                if fail_fast:
                    return
            if waiting:
                team[number] = _Worker(number, threads, worker.log, events)
                team[number].give(waiting.pop(0))
            continue
        yield event
        if event["what"] in ("done", "failed"):
            if event["what"] == "failed" and fail_fast:
                return
            ends = event.get("ends", False)
            worker.give(waiting.pop(0) if waiting and not ends else None)


class _Worker:
    """One process and the thread that reads what it says."""

    def __init__(
        self, number: int, threads: int, log: Path, events: queue.Queue[tuple[int, Event]]
    ) -> None:
        self.log, self.task = log, None
        # numbers change with threads by rounding: all cells of a comparison have as many
        kinds = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(kinds, str(threads))}
        with files.open_log(log) as errors:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "maebench.analysis.workers", str(threads)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    # Ctrl-C reaches the comparison alone, which ends its workers
                    start_new_session=True,
                    text=True,
                )
            except OSError as error:
                raise RunError(f"no worker process can be started: {error.strerror}") from error
        self._thread = threading.Thread(
            target=_read, args=(number, self.process.stdout, events), daemon=True
        )
        self._thread.start()

    task: Task | None

    def give(self, task: Task | None) -> None:
        """Gives the next task, or ends the process where there is none."""
        self.task = task
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has just died: the reader says so
            if task is None:
                self.process.stdin.close()
            else:
                self.process.stdin.write(json.dumps(task) + "\n")
                self.process.stdin.flush()

    def tell(self, number: int) -> None:
        """Sends the process a signal, by which it saves, or ends after its step."""
        with contextlib.suppress(OSError):  # it has just ended
            self.process.send_signal(number)

    def stop(self) -> None:
        """Ends the process at once if it is still there; what it wrote is whole."""
        self.process.kill()
        self.process.wait()
        self._thread.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _read(number: int, stream: IO[str] | None, events: queue.Queue[tuple[int, Event]]) -> None:
    assert stream is not None
    with contextlib.suppress(ValueError):  # closed while it was read
        for line in stream:
            events.put((number, json.loads(line)))
    events.put((number, {"what": ENDED}))


# ---- in the worker


def main() -> None:
    """Reads tasks until the standard input ends."""
    torch.set_num_threads(int(sys.argv[1]))
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a plugin prints is no event
    tasks: queue.Queue[Task] = queue.Queue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    try:
        with stopping.listening():
            serve(iter(tasks.get, None), lambda event: _say(said, event))
    except stopping.Stopped as stopped:
        os._exit(stopped.code)  # the thread that listens has nothing to wait for


def _listen(tasks: queue.Queue[Task]) -> None:
    """Takes tasks; where no more can come the process ends, whatever it does.

    Whoever gave the tasks has all results or is dead; files are whole at any moment.
    """
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)


def _say(stream: IO[str], event: Event) -> None:
    stream.write(json.dumps(event) + "\n")
    stream.flush()


def serve(tasks: Iterator[Task], say: Callable[[Event], None]) -> None:
    """Does tasks one after the other; one that fails is said and takes no other with it.

    Where its GPU has failed nothing more can be done by this process: it ends, and another begins.
    """
    data = Data()
    for task in tasks:
        try:
            say({"task": task["name"], "what": "started"})
            failed = do(task, say, data)
        except DeviceError as error:
            reason = " ".join(str(error).split())
            say({"task": task["name"], "what": "failed", "reason": reason, "ends": True})
            return
        except MaebenchError as error:
            failed = str(error)
        except Exception as error:
            traceback.print_exc()
            failed = f"{type(error).__name__}: {error}"
        stopping.check()
        if failed:
            say({"task": task["name"], "what": "failed", "reason": " ".join(failed.split())})
        else:
            say({"task": task["name"], "what": "done"})


def do(task: Task, say: Callable[[Event], None], data: Data) -> str:
    """Pretrains and evaluates one cell; gives what failed among its evaluations, or nothing.

    Raises:
        DeviceError: its GPU has failed.
    """
    names = installed()
    config = RunConfig(names, **task["config"])
    plan = prepare(config, Path(task["results"]), splits=data.of(config))
    last = time.monotonic()
    for step in pretrain(plan) if task["kind"] == "run" else ():
        now = time.monotonic()
        if now - last >= EVENT_SECONDS:
            last = now
            say({"task": task["name"], "what": "step", "share": step.done, "loss": step.loss})
    model = model_of(Cell("", config.seed, plan, task["kind"]), names)
    failed = []
    for evaluation in config.evals:
        for seed in task["seeds"]:
            say({"task": task["name"], "what": "evaluation", "evaluation": evaluation.name})
            path = evaluate(model, evaluation, seed, names=names)
            rows = records.read(path)
            bad = [row["reason"] for row in rows if row["status"] == "failed"]
            failed += [f"{evaluation.name}: {bad[0]}"] if bad else []
    if failed:
        check_answers(plan.device)
    return "; ".join(failed)


if __name__ == "__main__":
    main()
