"""What a finished `maebench run` printed: shown again while nothing it rests on has changed.

To know that a run is there already, its data are loaded, its model is built and torch is imported.
What was printed is therefore kept in the run's folder, beside all that it rests on: settings, code,
packages, machine, data, and the files of the results. Where any of it is not as it was, where a
plugin of others may have a say, or where nobody knows what a data set is read from, the command
goes the whole way. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any

import click

from maebench import files
from maebench.errors import MaebenchError, plain
from maebench.pretraining.runs import results_folder
from maebench.report.printed import Line, Sheet

if TYPE_CHECKING:
    from maebench.config.run import RunConfig
    from maebench.pretraining.plan import Plan

FORMAT = 2  # of what is kept
FOLDER = "printed"  # in a run's folder
PLUGINS = "MAEBENCH_PLUGINS"
# A file may change twice within one tick of a file system's clock; FAT's is the coarsest in use.
TICK_NS = 2 * 10**9
# Files of a folder that are looked at, 6 us each: more would take as long as importing torch does.
MOST_FILES = 200_000
# variables by which plugins, results and devices are chosen
VARIABLES = ("MAEBENCH_", "CUDA_", "NVIDIA_", "TORCH_", "PYTORCH_", "ATEN_", "ONEDNN_", "DNNL_")
CODE = ("maebench", "maebench_evals")
State = list[Any]  # of a file or a folder: equal where nothing has changed


@dataclass(frozen=True)
class Asked:
    """A command and what its answer rests on, beside data and results.

    Args:
        results: the folder of results.
        name: of the file that what was printed is kept in.
        rests: JSON values; None where nobody can say.
    """

    results: Path
    name: str
    rests: dict[str, Any] | None


@dataclass(frozen=True)
class Before:
    """What data were like before they were loaded.

    Args:
        states: by path; None where nobody knows what they are read from.
        moment: when it was looked at, in nanoseconds.
    """

    states: dict[str, State] | None
    moment: int


def asked(settings: Mapping[str, Any]) -> Asked:
    """The command of these flags."""
    results = results_folder(settings["results"])
    given = json.loads(json.dumps(dict(settings), default=str))
    place = _working_directory()
    name = files.short_hash([given, place])
    if any(e.dist is None or e.dist.name != "maebench" for e in _entry_points()):
        return Asked(results, name, None)
    rests = {
        "settings": given,
        "settings file": _file_of(settings["config"]),
        "folder": place,
        # by hashes: what somebody has in his environment is not written anywhere
        "variables": {
            name: files.short_hash(value)
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLES)
        },
        "python": [sys.version, list(sys.path), sys.flags.optimize],
        "packages": _packages(),
        "code": [state_of(folder, ".py") for folder in _folders_of_code()],
        "machine": _machine(),
    }
    return Asked(results, name, rests)


def show(command: Asked) -> bool:
    """Shows what this command printed before; False where it has to go the whole way."""
    if command.rests is None:
        return False
    for place in command.results.glob(f"runs/*/{FOLDER}/{command.name}.json"):
        with contextlib.suppress(MaebenchError, OSError, KeyError, TypeError):
            kept = files.read_sealed(place, _whose(place), hashed=(FORMAT,))
            if kept["format"] != FORMAT or kept["rests"] != command.rests:
                continue
            if any(state_of(Path(path)) != state for path, state in kept["files"].items()):
                continue
            parts = [(Sheet if "heads" in part else Line)(**part) for part in kept["parts"]]
            for line in kept["said"]:
                click.echo(plain(line), err=True)
            for part in parts:
                part.show()
            return True
    return False


def look(command: Asked, config: RunConfig) -> Before:
    """What the data of a config are like now, before they are loaded."""
    moment = time.time_ns()
    read = None if command.rests is None else config.dataset.read_from(config.splits().request)
    if read is None:
        return Before(None, moment)
    # label maps and the like; where data lie the data set has said
    named = {name: getattr(config, name) for name in type(config).model_fields}
    others = paths_in([v for k, v in named.items() if k not in ("dataset", "data_dir")])
    states = {str(path.absolute()): state_of(path) for path in (*read, *others)}
    known = {path: state for path, state in states.items() if state is not None}
    return Before(known if len(known) == len(states) else None, moment)


def keep(
    command: Asked,
    before: Before,
    plan: Plan,
    records: Iterable[str],
    said: Sequence[str],
    parts: Sequence[Line | Sheet],
) -> None:
    """Keeps what a finished run has printed, where its data would tell of any change from now on.

    Args:
        command: what was asked.
        before: the data.
        plan: the run.
        records: the files of its table's rows.
        said: lines on standard error that the command says each time.
        parts: what it printed.
    """
    if command.rests is None or before.states is None:
        return
    if any(state[0] >= before.moment - TICK_NS for state in before.states.values()):
        return
    folder = plan.run.folder.absolute()
    paths = [folder / "config.json", plan.masks, plan.spent, folder / "pictures" / "loss.png"]
    paths += [plan.checkpoints, *map(Path, records)]
    paths += [Path(path).with_suffix(".npz") for path in records]
    content = {
        "format": FORMAT,
        "rests": command.rests,
        "files": before.states | {str(path.absolute()): state_of(path) for path in paths},
        "said": list(said),
        "parts": [asdict(part) for part in parts],
    }
    with contextlib.suppress(MaebenchError):  # nothing depends on it but time
        place = folder / FOLDER / f"{command.name}.json"
        files.write_sealed(place, content, _whose(place))


def _whose(place: Path) -> str:
    """The run and the command that what was printed belongs to."""
    return f"{place.parents[1].name}/{place.stem}"


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """The warnings that are shown while it is entered."""
    shown, noted = warnings.showwarning, list[str]()

    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        noted.append(str(message))
        shown(message, *args, **kwargs)

    warnings.showwarning = note
    try:
        yield noted
    finally:
        warnings.showwarning = shown


def state_of(path: Path, suffix: str = "") -> State | None:
    """What changes with a file, or with any file below a folder, links followed.

    By sizes, time stamps and numbers of files: `st_ctime_ns`, the time of the last change of
    content or name, nobody can set.

    Args:
        path: the file or folder.
        suffix: of the files of a folder that count.

    Returns:
        The newest time stamp in nanoseconds, 0 where nothing is there, and what stands for the
        rest; None of a folder with too many files.
    """
    try:
        stat = path.stat()
    except OSError as error:
        return [0, f"not there: {error.strerror}"]
    if not S_ISDIR(stat.st_mode):
        return [_newest(stat), *_mark(stat)]
    newest, count, digest = 0, 0, hashlib.blake2b(digest_size=16)
    for name, found in _below(path, {(stat.st_dev, stat.st_ino)}):
        if suffix and name.endswith("__pycache__"):  # made by Python where code is first imported
            continue
        if S_ISDIR(found.st_mode) or name.endswith(suffix):
            # a folder's own time stamps tell of files that do not count, such as compiled ones
            mark = [] if S_ISDIR(found.st_mode) else _mark(found)
            newest = max([newest, *mark[1:3]])
            count += 1
            if count > MOST_FILES:
                return None
            digest.update(os.fsencode(f"{name}\0{mark}\0"))
    return [newest, count, digest.hexdigest()]


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """Each file and folder below a folder, by its path from there; what links lead to once."""
    pending = [str(folder)]
    while pending:
        place = pending.pop()
        try:
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:  # who reads it says so
            continue
        for entry in entries:
            try:
                stat = entry.stat()
            except OSError:  # a link that leads nowhere
                stat = entry.stat(follow_symlinks=False)
            yield entry.path[len(str(folder)) :], stat
            if S_ISDIR(stat.st_mode) and (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                pending.append(entry.path)


def _newest(stat: os.stat_result) -> int:
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _mark(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def paths_in(value: Any) -> list[Path]:
    """Every path among settings, however deep."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, tuple | list):
        return [path for item in value for path in paths_in(item)]
    fields = getattr(type(value), "model_fields", ())
    return [path for name in fields for path in paths_in(getattr(value, name))]


def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    """The plugins that are loaded; those of others may change anything that is printed."""
    found = importlib.metadata.entry_points(group="maebench")
    none = os.environ.get(PLUGINS, " ").strip(",") == ""
    return [e for e in found if not none or (e.dist is not None and e.dist.name == "maebench")]


def _folders_of_code() -> list[Path]:
    specs = [find_spec(name) for name in CODE]
    return [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]


def _packages() -> list[State]:
    """What is installed: the folders of metadata, which an installation makes anew."""
    found = []
    for place in sys.path:
        with contextlib.suppress(OSError), os.scandir(place or ".") as entries:
            found += [
                [entry.path, entry.stat().st_mtime_ns]
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info", ".pth"))
            ]
    return sorted(found)


def _machine() -> list[str]:
    """What devices and precision are chosen by."""
    found = [platform.node(), platform.platform(), platform.machine()]
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as info:
        lines = (line for line in info if line.startswith(("model name", "flags", "Features")))
        found += sorted({next(lines, ""), next(lines, "")})
    with contextlib.suppress(OSError):
        found += sorted(str(path) for path in Path("/dev").glob("nvidia*"))
        found.append(Path("/proc/driver/nvidia/version").read_text())
    return found


def _working_directory() -> str:
    """Where relative paths begin; empty where the folder is gone."""
    with contextlib.suppress(OSError):
        return str(Path.cwd())
    return ""


def _file_of(path: Path | None) -> str | None:
    """The hash of a file of settings; None where there is none."""
    if path is None:
        return None
    with contextlib.suppress(MaebenchError, OSError):
        return files.sha256(files.with_home(path))
    return None
