"""A view's mask, as pretraining draws it."""

from __future__ import annotations

from maebench import Mask, Masking, View
from maebench.masking import draw


def draw_view(masking: Masking, ratio: float, patch: tuple[int, int], view: View) -> Mask:
    """The mask of what a view of patches holds; its count of hidden patches does not matter."""
    names = ("ids", "draws", "progress", "images", "boxes", "flips", "sizes")
    fields = {name: getattr(view, name) for name in names}
    return draw(masking, ratio, view.grid, patch, **fields, answers=view._providers)
