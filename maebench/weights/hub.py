"""Asking a hub, and telling in one line what it answered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from maebench.errors import RunError


@contextlib.contextmanager
def asking(spec: str, download: bool = True) -> Iterator[None]:
    """Turns what a hub or its cache answers into one line.

    Raises:
        RunError: it cannot be had, with the reason.
    """
    # huggingface_hub's errors and those of its network library, of whichever it has
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        more = "" if download else "; nothing was downloaded: --download asks the hub"
        raise RunError(f"{spec} is not to be had here{more}: {reason}") from error
