"""What an IDX file holds: the format of MNIST and its relatives, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from maebench.errors import DataError

if TYPE_CHECKING:
    import numpy as np

MAGIC = {b"\0\0\x08" + bytes([n]): n for n in (1, 2, 3)}  # 8: unsigned bytes, in n dimensions


def read_idx(path: Path) -> np.ndarray:
    """The numbers of an IDX file of bytes in their shape, uint8.

    Raises:
        DataError: the file cannot be read, is cut off or is no such file; names it.
    """
    import numpy as np

    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}. Fetch it again") from error
    if data[:4] not in MAGIC:
        raise DataError(f"{path} is no IDX file of bytes: it starts with {data[:4].hex(' ')!r}")
    start = 4 + 4 * MAGIC[data[:4]]
    shape = struct.unpack(f">{MAGIC[data[:4]]}I", data[4:start].ljust(start - 4, b"\0"))
    if len(data) != start + math.prod(shape):
        wanted = f"{start} + {' x '.join(map(str, shape))}"
        raise DataError(f"{path} has {len(data)} bytes, its header wants {wanted}. Fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()  # torch writes to it
