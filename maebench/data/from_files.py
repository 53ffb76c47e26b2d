"""A split from image files: decoded once where it fits into memory, else read on demand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from maebench.data.content import KnownFile, known
from maebench.data.decode import Decoding, deepest, read_header, unreadable
from maebench.data.images import Images, OnBadImage, check_room, in_memory_images, joined
from maebench.data.kept import Keeping, decoder
from maebench.data.levels import white_of
from maebench.data.look_alikes import one_colour
from maebench.data.on_disk import BLOCK, OnDisk, by_threads, num_workers
from maebench.data.reading import Reading
from maebench.data.remarks import remarks_of
from maebench.data.split_info import Remark, SplitInfo, digest, identity
from maebench.data.tree import readable
from maebench.encoders.inputs import Inputs
from maebench.errors import DataError

SIZES_SAMPLE = 64  # images whose size is read: it says how much the decoded ones take
LEVELS_SAMPLE = 64  # images whose levels are read: in one set they come from one camera
DARK = 16  # 12 bits in 16: 4095 is a 16th of 65535


def from_files(
    paths: Sequence[Path],
    labels: Sequence[int] | None,
    class_names: Sequence[str],
    root: Path,
    size: tuple[int, int],
    channels: int,
    on_bad_image: OnBadImage,
    memory_limit: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    groups: Sequence[int] | None = None,
    reading: Reading | None = None,
    remarks: Sequence[Remark] = (),
    same_levels: Sequence[Path] | None = None,
) -> Images:
    """A split from image files: decoded once where it fits into memory, else read on demand.

    Args:
        paths: the files in their order; an image's id is its position here, skipped or not.
        labels: one per file, or None.
        class_names: one per class.
        root: the folder that names are relative to.
        size: rows and columns every image is brought to.
        channels: 1 or 3.
        on_bad_image: "fail" or "skip".
        memory_limit: bytes up to which a split is decoded into memory.
        progress: called with (done, total).
        groups: one number per file, equal for images that belong together, or None.
        reading: how files become images; `Reading()` where it is left out.
        remarks: what is known of the files already.
        same_levels: files whose levels tell what white is; `paths` where it is left out.

    Raises:
        DataError: no image can be read, or one is bad and `on_bad_image` is "fail".
    """
    reading = reading or Reading()
    levels = None if reading.levels else levels_in(same_levels or paths)
    how = Decoding.of(reading, channels, levels, size)
    info = SplitInfo(
        ids=torch.arange(len(paths)),
        labels=_integers(labels),
        class_names=tuple(class_names),
        fingerprint="",
        inputs=Inputs.of_images(channels, size, len(class_names) if labels is not None else 0),
        groups=_integers(groups),
        remarks=(*remarks, *(too_dark(paths, levels[1]) if levels else ())),
    )
    in_memory = len(paths) * channels * size[0] * size[1] <= memory_limit
    good, traits, problem = list(range(len(paths))), list[frozenset[str]](), None
    if in_memory:
        check_room(len(paths), channels, size)
    pixels = torch.empty((len(paths) if in_memory else 0, channels, *size), dtype=torch.uint8)
    if in_memory or on_bad_image == "skip":
        good, traits, problem = _decode(paths, size, how, on_bad_image, pixels, progress)
    skipped = _skipped(good, paths, root, problem)
    info, chosen = replace(info.at(torch.tensor(good)), skipped=skipped), [paths[i] for i in good]
    if not in_memory:
        return on_disk(chosen, root, info, how, reading, progress)
    remarks = (*info.remarks, *remarks_of(traits, how), *blank(pixels[: len(good)]))
    info = replace(info, remarks=remarks)
    return in_memory_images(pixels[: len(good)], info, _names(chosen, root), chosen)


def _skipped(
    good: Sequence[int], paths: Sequence[Path], root: Path, problem: DataError | None
) -> tuple[str, ...]:
    """Names of the files that cannot be read.

    Raises:
        DataError: none can; says how many were tried, and the first problem.
    """
    if not good:
        tried = f"{len(paths)} files were tried, the first problem: {problem}"
        raise DataError(f"no image in {readable(str(root))} can be read ({tried})")
    bad = sorted(set(range(len(paths))).difference(good))
    return tuple(readable(paths[i].relative_to(root).as_posix()) for i in bad)


def _integers(values: Sequence[int] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.int64)


def on_disk(
    paths: Sequence[Path],
    root: Path,
    info: SplitInfo,
    how: Decoding,
    reading: Reading,
    progress: Callable[[int, int], None],
) -> OnDisk:
    """A split read on demand, with the fingerprint of what its files hold."""
    gigabytes = sum(_bytes(path) for path in paths) / 2**30
    whole = gigabytes <= reading.whole_gb
    found = known(paths, root, whole, progress)
    remarks = [*info.remarks, *remarks_of((file.traits for file in found), how, decoded=False)]
    if not whole:
        remarks.append(
            Remark(
                "sampled",
                len(found),
                f"the fingerprint covers the size and three parts of each of {len(found):,} files, "
                f"{gigabytes:,.0f} GiB together",
                "-o data.whole_gb=N reads up to N GiB whole",
            )
        )
    listing = [f"{n} {file.digest}" for n, file in zip(_names(paths, root), found, strict=True)]
    mark = digest(*identity(info), joined(listing), f"({how.mark}, {whole})".encode())
    info = replace(info, fingerprint=mark, remarks=tuple(remarks))
    kept = None if reading.cache_gb == 0 else keeping(found, info, how, root, reading.cache_gb)
    return OnDisk(tuple(found), info, how, num_workers(), kept)


def keeping(
    found: Sequence[KnownFile], info: SplitInfo, how: Decoding, root: Path, most_gb: float | None
) -> Keeping:
    """Where decoded images are kept: by what the files hold and what decides how it is read."""
    # three parts of a file do not tell every change of it, its time stamp nearly all
    held = [f"{f.size} {f.digest} {'' if f.whole else f.changed}".encode() for f in found]
    key = digest(info.ids.numpy().tobytes(), how.mark.encode(), decoder().encode(), *held)
    count = min(SIZES_SAMPLE, len(found))
    pixels = [0.0]
    for file in (found[i * len(found) // count] for i in range(count)):
        with contextlib.suppress(DataError):  # who decodes it says so
            header = read_header(file.path)
            factor = how.factor(header.kind.split()[0], header.height, header.width)
            pixels.append(header.height * header.width / factor**2)
    each = how.channels * sum(pixels) / max(1, len(pixels) - 1)
    return Keeping(key, str(root), how.channels, each, most_gb)


def blank(pixels: Tensor) -> list[Remark]:
    """What is said of images of one colour, such as white drawings over a white background."""
    count = sum(int(one_colour(part).sum()) for part in pixels.split(BLOCK))
    if not count:
        return []
    return [Remark("one colour", count, f"{count:,} of {len(pixels):,} images have one colour")]


def levels_in(paths: Sequence[Path]) -> tuple[float, float] | None:
    """Black and white by up to 64 evenly chosen images; None where none has more than 8 bits."""
    white = max((white for _, white in _looked_at(paths)), default=0.0)
    return (0.0, white) if white else None


def too_dark(paths: Sequence[Path], white: float) -> list[Remark]:
    """What is said of images whose own levels end far below the white of the whole set.

    Such are 12 bits in 16 where others of the set use all 16: no one white is right for both.
    """
    found = _looked_at(paths)
    # all-black images are as black by any white
    count = sum(high > 0 and own * DARK <= white for high, own in found)
    if not count:
        return []
    text = (
        f"{count:,} of {len(found):,} images looked at have no level above a {DARK}th of the "
        f"white of the set, {white:g}, and are nearly black"
    )
    return [Remark("nearly black", count, text, "bring all files to one range")]


def _looked_at(paths: Sequence[Path]) -> list[tuple[float, float]]:
    """Highest level, and white by it, of those of up to 64 images that have more than 8 bits."""
    count, looked = min(LEVELS_SAMPLE, len(paths)), list[tuple[float, float]]()
    for path in (paths[i * len(paths) // count] for i in range(count)):
        with contextlib.suppress(DataError, ValueError):  # who decodes it says so
            found = deepest(path)
            if found is not None:
                looked.append((float(found[1]), white_of(found)))
    return looked


def _decode(
    paths: Sequence[Path],
    size: tuple[int, int],
    how: Decoding,
    on_bad_image: OnBadImage,
    pixels: Tensor,
    progress: Callable[[int, int], None],
) -> tuple[list[int], list[frozenset[str]], DataError | None]:
    """Decodes files, into `pixels` one after the other unless it has no rows.

    Returns:
        Which can be read, the traits of those, and why the first of the others cannot.
    """
    good, traits, problem = list[int](), list[frozenset[str]](), None
    for i, found in enumerate(by_threads(paths, size, how)):
        if not isinstance(found, DataError):
            if len(pixels):
                pixels[len(good)] = found[0]
            good.append(i)
            traits.append(found[1])
        elif on_bad_image == "fail":
            raise found
        else:
            problem = problem or found
        progress(i + 1, len(paths))
    return good, traits, problem


def _bytes(path: Path) -> int:
    """The size of a file, which a data set's own list may name though it is missing."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error


def _names(paths: Sequence[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]
