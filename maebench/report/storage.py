"""What the results folder can do: room, speed, locks, renames, time stamps; and where it lies."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from maebench import files
from maebench.config.run import RunConfig
from maebench.errors import MaebenchError, RunError
from maebench.pretraining.checkpoints import KEPT
from maebench.pretraining.plan import build
from maebench.report.libraries import Checked

MOUNTS = Path("/proc/self/mountinfo")  # proc_pid_mountinfo(5)
# File systems whose bytes lie on another machine, by the names that Linux has for them.
NETWORK = {
    *("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "beegfs"),
    *("gpfs", "glusterfs", "ocfs2", "gfs2", "orangefs", "pvfs2", "virtiofs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse"),
    *("fuse.rclone", "fuse.juicefs", "fuse.mount-s3"),
}
IN_MEMORY = {"tmpfs", "ramfs"}
TRIED = 64 * 2**20  # bytes: about a checkpoint of vit-tiny, and too many for a disk's own cache
# At this rate a checkpoint of vit-base with its decoder (112M parameters, 1.3 GB) takes a minute.
SLOW = 20e6
ROOMY = 4e9  # bytes of three such checkpoints: those that are kept, and the one being written
STATES = 3  # AdamW keeps two numbers beside each parameter
BYTES = 4  # of a float32
POOLINGS = 2  # the class token and the mean of the others
RENAMES = 20  # so many times a file is replaced while another thread reads it
SKEW_SECONDS = 2.0  # the resolution of time stamps on FAT, the coarsest
ELSEWHERE = "Choose another folder with --results or MAEBENCH_RESULTS"


def storage(results: Path) -> Iterator[Checked]:
    """What is tried in the results folder, or above it where it is not made yet.

    All that is written lies in one folder, which is removed.
    """
    place = results.absolute()
    while not place.exists():
        place = place.parent
    said = str(results) if place == results.absolute() else f"{results} (not made yet: {place})"
    tried = place / f"{files.BESIDE}doctor-{secrets.token_hex(4)}"
    try:
        try:
            files.make_folder(tried)
        except RunError as error:
            why = str(error).partition(". Choose")[0].replace(str(tried), said)
            yield Checked("results", why, "error", ELSEWHERE)
            return
        yield kind_of_storage(said, place)
        for look in (space, write_speed, locks, renames, time_stamps):
            try:
                yield look(tried)
            except (MaebenchError, OSError) as error:
                name = look.__name__.replace("_", " ")
                yield Checked(name, str(error).replace(str(tried), said), "error", ELSEWHERE)
    finally:
        if tried.exists():
            files.remove(tried)


def kind_of_storage(said: str, place: Path) -> Checked:
    """Where results go, and whether that is this machine's disk."""
    mount = mount_of(place)
    if mount is None:  # macOS
        return Checked("results", said)
    text = f"{said} on {mount.kind} ({mount.point})"
    if mount.kind in IN_MEMORY:
        return Checked("results", f"{text}: gone when the machine stops", "warning", ELSEWHERE)
    if mount.kind in NETWORK:
        text += ", a network share: what works there is tried below, from this machine alone"
    return Checked("results", text)


@dataclass(frozen=True)
class Mount:
    """A mounted file system.

    Args:
        point: where.
        kind: as Linux names it, such as "ext4".
    """

    point: Path
    kind: str


def mount_of(place: Path) -> Mount | None:
    """The file system that a folder lies on; None where the system does not say."""
    best = None
    for line in MOUNTS.read_text().splitlines() if MOUNTS.exists() else ():
        before, _, after = line.partition(" - ")
        # a space in a name is written \\040
        name = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), before.split()[4])
        mount = Mount(Path(name), after.split()[0])
        inside = place.resolve().is_relative_to(mount.point)
        # of two on one place the later hides the one before it
        if inside and (best is None or len(mount.point.parts) >= len(best.point.parts)):
            best = mount
    return best


def space(tried: Path) -> Checked:
    """Whether what a run of the default settings keeps has room."""
    free, needed = shutil.disk_usage(tried).free, bytes_of_a_run(RunConfig())
    room, keeps = (files.size_text(size, step=1000) for size in (free, needed))
    text = f"{room} free; a run of the default settings keeps {keeps}"
    if free < needed:
        return Checked("space", text, "error", f"Make room there. {ELSEWHERE}")
    if free < ROOMY:
        text += f", of vit-base {files.size_text(ROOMY, step=1000)}"
        return Checked("space", text, "warning", f"Make room there. {ELSEWHERE}")
    return Checked("space", text)


def bytes_of_a_run(config: RunConfig) -> int:
    """About what a run's folder holds at most: its checkpoints, and features of every layer."""
    splits = config.splits()
    parts = [splits.load(name, lambda done, total: None) for name in ("train", "test")]
    module = build(config, parts[0].info.inputs)
    parameters = sum(each.numel() for each in module.parameters())
    checkpoints = (KEPT + 1) * STATES * parameters * BYTES
    encoder = module.encoder
    numbers = (encoder.depth + 1) * POOLINGS * encoder.width
    return checkpoints + sum(map(len, parts)) * numbers * BYTES


def write_speed(tried: Path) -> Checked:
    """How long it takes until bytes are on the disk."""
    part, file = os.urandom(2**20), tried / "speed"  # what can be compressed would be quicker

    def fill(beside: Path) -> None:
        beside.write_bytes(part * (TRIED // len(part)))

    began = time.monotonic()
    files.write(file, fill)
    seconds = time.monotonic() - began
    files.remove(file)
    rate = TRIED / max(seconds, 1e-9)
    text = f"{TRIED // 2**20} MiB in {seconds:.2f} s, {rate / 1e6:,.0f} MB/s"
    if rate < SLOW:
        text += ": a run waits for its checkpoints"
        return Checked("write speed", text, "warning", ELSEWHERE)
    return Checked("write speed", text)


def locks(tried: Path) -> Checked:
    """Whether a lock that is held keeps another one out, and is free again afterwards."""
    first, second = FileLock(tried / "lock"), FileLock(tried / "lock")
    with first:
        try:
            second.acquire(timeout=0)
            second.release()
        except Timeout:
            kept_out = True
        else:
            kept_out = False
    if not kept_out:
        text = "two hold one file at once: two commands would write into one run"
        return Checked("locks", text, "error", ELSEWHERE)
    with second.acquire(timeout=0):
        return Checked("locks", "the second waits for the first")


def renames(tried: Path) -> Checked:
    """Whether a file that is replaced is there at any moment, the old one or the new one."""
    file, stop, lost = tried / "renamed", threading.Event(), list[str]()

    def read() -> None:
        while not stop.is_set():
            try:
                if (text := file.read_text()) not in versions:
                    lost.append(f"read as {text!r}")
            except OSError as error:
                lost.append(error.strerror or type(error).__name__)

    versions = [str(number) for number in range(RENAMES)]
    files.write_text(file, versions[0])
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for text in versions:
            files.write_text(file, text)
    finally:
        stop.set()
        reader.join()
    if lost:
        text = f"a file that is replaced is {lost[0]} for a moment: a reader may find none"
        return Checked("renames", text, "error", ELSEWHERE)
    return Checked("renames", f"atomic: replaced {RENAMES} times under a reader")


def time_stamps(tried: Path) -> Checked:
    """Whether the storage's clock is this machine's: new files are told from old ones by it."""
    file = tried / "stamp"
    before = time.time()
    files.write_text(file, "now")
    stamp, after = file.stat().st_mtime, time.time()
    skew = stamp - before if stamp < before else max(0.0, stamp - after)
    if abs(skew) > SKEW_SECONDS:
        text = f"files are stamped {skew:+.1f} s from this machine's clock"
        return Checked("time stamps", text, "warning", "Set both machines' clocks by NTP")
    return Checked("time stamps", "by this machine's clock")
