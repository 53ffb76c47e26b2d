"""Checkpoints as other programs write them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch


def write(path: Path, content: Any, how: str = "zip") -> Path:
    """A file of torch.save, new ("zip") or "legacy", or of pickle alone ("pickle")."""
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path
