"""Random: every set of patches is equally likely to be hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor


class Random(Masking):
    """Hides patches drawn uniformly without replacement, as the masked autoencoder does.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", section 3,
    arXiv 2111.06377.
    """

    name: ClassVar[str] = "random"

    def scores(self, view: View) -> Tensor:
        """One uniform number per patch, float32 (B, L)."""
        return view.draws.uniform(view.length)
