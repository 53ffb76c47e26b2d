"""Files: the old content or the new one and nothing between, whatever happens on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import signal
import socket
import stat
import string
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maebench import files
from maebench.errors import ConfigError, ReadOnlyError, RunError
from maebench.files import locking

CHARACTERS = string.ascii_letters + string.digits + "._-"


def test_a_home_folder_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.with_home("~/a/b") == pathlib.Path("/home/me/a/b")
    assert files.with_home("a/~nobody-here") == pathlib.Path("a/~nobody-here")
    with pytest.raises(ConfigError, match=r"cannot read ~nobody-here/x\.csv: .*~nobody-here;"):
        files.with_home("~nobody-here/x.csv")


def leftovers(folder):
    return [p.name for p in folder.rglob(f"{files.BESIDE}*")]


def child(code, *arguments):
    """A Python process that runs `code`; its output is read line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


# --- names

DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(10)}


@given(st.text(max_size=30))
def test_a_safe_name_stays_in_its_folder_and_is_portable(name):
    try:
        safe = files.safe_name(name)
    except RunError as error:
        assert repr(name) in str(error) and "\n" not in str(error)
        return
    assert safe == name
    assert set(name) <= set(CHARACTERS) and name[0] not in "._-"
    assert pathlib.PurePosixPath("f", name).parent.name == "f"
    assert pathlib.PureWindowsPath("f", name).parent.name == "f"


@given(st.text(CHARACTERS, max_size=199), st.sampled_from(string.ascii_letters + string.digits))
def test_every_portable_name_is_taken(rest, first):
    assume(not (first + rest).endswith(".") and (first + rest).split(".")[0].lower() not in DEVICES)
    assert files.safe_name(first + rest) == first + rest


@pytest.mark.parametrize(
    "name",
    [
        "NUL",
        "com1.json",
        "a.",
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "a\0",
        "a\n",
        "ä",
        "a b",
        "a:b",
        "-rf",
        "a" * 201,
    ],
)
def test_a_name_that_could_escape_hide_or_break_is_refused(name):
    with pytest.raises(RunError, match="cannot be a file name"):
        files.safe_name(name)


# --- whole files


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was_written(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    files.write_text(path, text)
    assert path.read_bytes() == text.encode()


def test_json_comes_back_and_nan_is_refused_with_the_old_file_kept(tmp_path):
    path = tmp_path / "sub" / "a.json"
    files.write_json(path, {"ä": [1, None, 0.1]})
    assert files.read_json(path) == {"ä": [1, None, 0.1]}
    with pytest.raises(ValueError):
        files.write_json(path, {"x": float("nan")})
    assert files.read_json(path) == {"ä": [1, None, 0.1]}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ZeroDivisionError()])
def test_a_fill_that_raises_leaves_the_old_content_and_no_litter(tmp_path, error):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fill(beside):
        beside.write_text("half of the n")
        raise error

    with pytest.raises(RunError if isinstance(error, OSError) else ZeroDivisionError):
        files.write(path, fill)
    assert path.read_text() == "old" and leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path):
    path = tmp_path / "folder"
    files.write_folder(path, lambda beside: (beside / "a").write_text("old"))

    def fill(beside):
        (beside / "a").write_text("new")
        raise OSError(errno.EIO, "broken disk")

    with pytest.raises(RunError, match="broken disk"):
        files.write_folder(path, fill)
    assert (path / "a").read_text() == "old" and leftovers(tmp_path) == []
    files.write_folder(path, lambda beside: (beside / "b").write_text("new"))
    assert [p.name for p in path.iterdir()] == ["b"] and leftovers(tmp_path) == []


class Shim:
    """Lets the n-th of the system's calls that a write needs fail, or has a signal come with it."""

    def __init__(self, monkeypatch, number, code=0, after=False):
        self.left, self.code, self.after, self.failed = number, code, after, None
        for place, name in (
            (pathlib.Path, "mkdir"),
            (pathlib.Path, "write_bytes"),
            (os, "open"),
            (os, "fsync"),
            (pathlib.Path, "replace"),
            (pathlib.Path, "rename"),
        ):
            monkeypatch.setattr(place, name, self.wrap(name, getattr(place, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0 and not self.after:
                self.failed = name
                raise OSError(self.code, os.strerror(self.code)) if self.code else KeyboardInterrupt
            found = real(*args, **kwargs)
            if self.left == 0:
                self.failed = name
                raise KeyboardInterrupt
            return found

        return call


def attempts(tmp_path, write, read):
    """Writes with the 1st, 2nd ... call failing until none does; yields what each call broke."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        for number in range(1, 50):
            write("old")
            with pytest.MonkeyPatch.context() as patch:
                shim = Shim(patch, number, code)
                try:
                    write("new")
                    failed = None
                except RunError as error:
                    assert os.strerror(code) in str(error) and "\n" not in str(error)
                    failed = shim.failed
            assert read() in ("old", "new")
            assert leftovers(tmp_path) == []
            if shim.failed is None:
                assert read() == "new"
                break
            assert failed == shim.failed, "an error of the disk was swallowed"
            yield failed, read()
        else:
            pytest.fail("the writes never end")


def test_whichever_call_the_disk_fails_in_a_file_is_old_or_new(tmp_path):
    path = tmp_path / "a.txt"
    broken = list(attempts(tmp_path, lambda t: files.write_text(path, t), path.read_text))
    assert {"mkdir", "write_bytes", "fsync", "replace", "open"} == {name for name, _ in broken}
    assert all(
        text == "old" for name, text in broken if name in ("mkdir", "write_bytes", "replace")
    )


def test_whichever_call_the_disk_fails_in_a_new_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "steps" / "folder"

    def write(text):
        if text == "old":
            files.remove(path)
            return

        def fill(beside):
            (beside / "a").write_bytes(text.encode())
            (beside / "b").write_bytes(text.encode())

        files.write_folder(path, fill)

    def read():
        return (
            "new" if path.exists() and {p.read_text() for p in path.iterdir()} == {"new"} else "old"
        )

    broken = {name for name, _ in attempts(tmp_path, write, read)}
    assert {"mkdir", "write_bytes", "fsync", "rename"} <= broken


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whichever_call_a_signal_comes_with_a_replaced_folder_is_old_or_new(tmp_path, after):
    path, reached = tmp_path / "folder", []
    for number in range(1, 50):
        files.write_folder(path, lambda beside: (beside / "a").write_bytes(b"old"))
        with pytest.MonkeyPatch.context() as patch:
            shim = Shim(patch, number, after=after)
            with contextlib.suppress(KeyboardInterrupt):
                files.write_folder(path, lambda beside: (beside / "a").write_bytes(b"new"))
        (found,) = path.iterdir()
        assert found.read_bytes() in (b"old", b"new")
        # a signal while the old one is being removed leaves it to the next sweep
        assert leftovers(tmp_path) == [] or (found.read_bytes(), shim.failed) == (b"new", "open")
        for left in leftovers(tmp_path):
            files.remove(tmp_path / left)
        if shim.failed is None:
            break
        reached.append(shim.failed)
    assert found.read_bytes() == b"new" and reached.count("rename") == 2


def test_a_folder_whose_removal_is_interrupted_is_whole_or_gone(tmp_path, monkeypatch):
    path = tmp_path / "step-1"
    path.mkdir()
    for name in "abc":
        (path / name).write_text("x")

    def interrupted(folder):
        (folder / "a").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.remove(path)
    assert not path.exists() and len(leftovers(tmp_path)) == 1
    files.remove(path)  # what is gone is gone


def test_of_a_link_to_a_folder_the_link_alone_is_removed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    files.remove(tmp_path / "link")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_bytes_are_flushed_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(
        pathlib.Path, "replace", lambda *a: (events.append("rename"), replace(*a))[1]
    )
    files.write_text(tmp_path / "a", "x")
    assert events == ["fsync", "rename", "fsync"]  # the file, then its name, then the folder


def test_a_write_that_is_killed_leaves_old_or_new(tmp_path):
    """kill -9 at six moments of a process that writes without end."""
    path = tmp_path / "a.json"
    files.write_json(path, {"number": -1, "check": []})
    code = """
        import sys
        from pathlib import Path
        from maebench import files
        print("ready", flush=True)
        number = 0
        while True:
            number += 1
            files.write_json(Path(sys.argv[1]), {"number": number, "check": [number] * 20000})
    """
    numbers = []
    for trial in range(6):
        with child(code, path) as process:
            assert process.stdout.readline() == "ready\n"
            before = value = files.read_json(path)
            for _ in range(1000):  # the content is whole at any moment that somebody looks
                value = files.read_json(path)
                assert set(value["check"]) <= {value["number"]}
                if value != before:
                    break
                time.sleep(0.01)
            try:
                process.wait(0.01 + 0.007 * trial)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
        value = files.read_json(path)
        assert value["check"] == [value["number"]] * len(value["check"])
        numbers.append(value["number"])
    assert min(numbers) >= 1


def refusing(monkeypatch, name, code):
    """The system's `os.<name>` answers this code for folders."""
    real = getattr(os, name)

    def call(target, *rest):
        found = os.fstat(target) if isinstance(target, int) else pathlib.Path(target).stat()
        if stat.S_ISDIR(found.st_mode):
            raise OSError(code, os.strerror(code))
        return real(target, *rest)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("name", ["open", "fsync"])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM])
def test_a_file_system_that_flushes_no_folder_is_written_to_all_the_same(
    tmp_path, monkeypatch, name, code
):
    refusing(monkeypatch, name, code)
    files.write_text(tmp_path / "a.txt", "x")
    files.write_folder(tmp_path / "folder", lambda beside: (beside / "b").write_text("y"))
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_text() == "x"
    assert (tmp_path / "folder" / "b").read_text() == "y"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC])
@pytest.mark.parametrize("name", ["mkdir", "write_bytes", "open"])
def test_storage_that_is_read_only_is_told_from_a_full_one(tmp_path, monkeypatch, code, name):
    def refuse(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pathlib.Path, name, refuse)
    writes = {
        "mkdir": lambda: files.make_folder(tmp_path / "a"),
        "write_bytes": lambda: files.check_writable(tmp_path),
        "open": lambda: files.append_lines(tmp_path / "log.jsonl", [{}]),
    }
    with pytest.raises(RunError, match=os.strerror(code)) as caught:
        writes[name]()
    assert isinstance(caught.value, ReadOnlyError) == (code != errno.ENOSPC)


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path):
    files.check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_hosts_with_the_same_process_number_never_share_a_temporary_name(tmp_path, monkeypatch):
    path = tmp_path / ("a" * 205)
    names = set()
    for host in ("node-1", "node-1", "node-2", "ä" * 64):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        files.write(path, lambda beside: (names.add(beside.name), beside.write_text("x")))
    assert len(names) == 4
    assert all(name.startswith(files.BESIDE) and len(name.encode()) < 255 for name in names)
    assert [str(os.getpid()) in name for name in names] == [True] * 4
    hosts = {name.removeprefix(files.BESIDE).split("-")[0].split(".")[0] for name in names}
    assert hosts == {"node1", "node2", "host"}


@pytest.mark.parametrize("write", [files.write_text, lambda p, t: files.append_lines(p, [{}])])
def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path, write):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot write") as caught:
        write(tmp_path / "file" / "sub" / "a.txt", "x")
    assert str(tmp_path / "file") in str(caught.value)


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    """A rename would take the device away that --out /dev/null names."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match="no regular file"):
        files.write_text(pipe, "x")
    assert pipe.is_fifo()
    with pytest.raises(RunError, match="no regular file"):
        files.write_text(tmp_path, "x")


def test_a_name_too_long_for_the_disk_is_one_clear_error(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        files.write_text(tmp_path / ("a" * 300), "x")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\x00\x00", '{"a": 1}}'])
def test_json_that_is_cut_off_is_refused_by_name(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"a\.json cannot be read"):
        files.read_json(path)
    with pytest.raises(RunError, match=r"b\.json is missing"):
        files.read_json(tmp_path / "b.json")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"a"', "[" * 100_000])
def test_an_object_is_wanted_where_one_is(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"a\.json cannot be read") as caught:
        files.read_object(path)
    assert len(str(caught.value)) < len(str(path)) + 120


# --- lines


@given(st.integers(0, 150))
def test_lines_before_a_torn_one_and_after_it_are_all_there(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("lines") / "log.jsonl"
    rows = [{"step": n, "text": "zeile ä\u2028"} for n in range(3)]
    for row in rows:
        files.append_lines(path, [row])
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    # a row is there as long as its closing brace is
    braces = [i for i, byte in enumerate(path.read_bytes()) if byte == ord("}")]
    kept = rows[: len(braces)]
    assert files.read_lines(path) == kept
    files.append_lines(path, [{"step": 99}])
    assert files.read_lines(path) == [*kept, {"step": 99}]


def test_lines_that_are_no_objects_or_lack_a_number_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n[1]\n"step"\n{"step": "2"}\n{"other": 1}\n\xff\n{"step": 3}\n')
    assert files.read_lines(path, "step") == [{"step": 1}, {"step": 3}]
    assert len(files.read_lines(path)) == 4


def test_lines_of_a_file_that_is_not_there_are_none(tmp_path):
    assert files.read_lines(tmp_path / "log.jsonl") == []


def test_a_full_disk_while_a_line_is_added_is_one_clear_error(tmp_path):
    """The file size limit of the system stands for a full disk."""
    import resource

    path = tmp_path / "log.jsonl"
    files.append_lines(path, [{"step": 1}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
        with pytest.raises(RunError, match=r"cannot write .*log\.jsonl"):
            files.append_lines(path, [{"step": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    files.append_lines(path, [{"step": 3}])
    assert files.read_lines(path) == [{"step": 1}, {"step": 3}]


# --- locks


HOLD = """
    import sys, time
    from pathlib import Path
    from maebench import files
    with files.lock(Path(sys.argv[1])):
        (Path(sys.argv[1]) / f"{files.BESIDE}{1}-a").write_text("half")
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_folder_until_it_is_killed(tmp_path):
    with child(HOLD, tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {process.pid} on ") as caught:
            with files.lock(tmp_path):
                pytest.fail("two hold it")
        assert str(tmp_path) in str(caught.value)
        assert leftovers(tmp_path), "only the lock's holder may sweep"
        os.kill(process.pid, signal.SIGKILL)
    with files.lock(tmp_path):
        assert leftovers(tmp_path) == [], "what the killed one left half-written is gone"
        assert files.read_json(tmp_path / "owner.json")["pid"] == os.getpid()
    with files.lock(tmp_path):  # and free again
        pass
    assert not (tmp_path / "owner.json").exists()


def test_a_lock_is_freed_when_its_block_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), files.lock(tmp_path):
        raise ZeroDivisionError
    with files.lock(tmp_path):
        pass


def test_a_holder_that_never_gives_its_name_is_unknown(tmp_path, monkeypatch):
    with files.lock(tmp_path):
        monkeypatch.setattr(locking, "NAMELESS_SECONDS", 0.1)
        for text in ("{", "[]", "{}"):
            (tmp_path / "owner.json").write_text(text)
            with pytest.raises(RunError, match="in use by process unknown"), files.lock(tmp_path):
                pass


def test_a_lock_that_cannot_be_taken_is_one_clear_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(RunError, match="cannot lock"), files.lock(tmp_path):
        pass


def test_a_hash_does_not_depend_on_the_order_of_keys_and_refuses_nan():
    assert files.short_hash({"a": 1, "b": {"c": 2, "d": 3}}) == files.short_hash(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert files.short_hash({"a": 1}) != files.short_hash({"a": "1"})
    with pytest.raises(ValueError):
        files.short_hash({"a": float("nan")})
