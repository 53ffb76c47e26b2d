"""maebench's own evaluations, written against its public names only."""

from __future__ import annotations

from maebench import Evaluation, hookimpl


@hookimpl
def register_evaluations() -> list[type[Evaluation]]:
    """The evaluations that ship with maebench."""
    from maebench_evals.attentive_probe import AttentiveProbe
    from maebench_evals.cka import CKA
    from maebench_evals.finetune import Finetune
    from maebench_evals.geometry import Geometry
    from maebench_evals.knn import KNN
    from maebench_evals.layers import Layers
    from maebench_evals.linear_probe import LinearProbe
    from maebench_evals.logistic import Logistic
    from maebench_evals.low_shot import LowShot
    from maebench_evals.reconstruction import ReconstructionQuality
    from maebench_evals.retrieval import Retrieval
    from maebench_evals.robustness import Robustness
    from maebench_evals.segmentation import Segmentation

    return [
        LinearProbe,
        Finetune,
        KNN,
        ReconstructionQuality,
        Logistic,
        AttentiveProbe,
        LowShot,
        Layers,
        Retrieval,
        Geometry,
        CKA,
        Robustness,
        Segmentation,
    ]
