"""Every extension point on one page.

A plugin is a module with any of these functions, each marked with `@maebench.hookimpl`, and named
under the entry-point group `maebench` of its package:

    [project.entry-points.maebench]
    my-plugin = "my_package"

A function takes no argument and returns a list of classes. A plugin is inert until a config names
one of them.
"""

from __future__ import annotations

import pluggy

from maebench.data.dataset import Dataset
from maebench.encoders.encoder import Encoder
from maebench.evaluation import Evaluation
from maebench.masking.mask import Masking
from maebench.objectives.objective import Objective
from maebench.outputs import Report, Tracker

hookspec = pluggy.HookspecMarker("maebench")
hookimpl = pluggy.HookimplMarker("maebench")


@hookspec
def register_maskings() -> list[type[Masking]]:  # type: ignore[empty-body]
    """Ways to score patches; the highest scores are hidden.

    Example: return [Checkerboard]
    """


@hookspec
def register_encoders() -> list[type[Encoder]]:  # type: ignore[empty-body]
    """Modules that turn images into tokens.

    Example: return [MyViT]
    """


@hookspec
def register_objectives() -> list[type[Objective]]:  # type: ignore[empty-body]
    """What pretraining minimises.

    Example: return [Denoising]
    """


@hookspec
def register_datasets() -> list[type[Dataset]]:  # type: ignore[empty-body]
    """Images with or without labels.

    Example: return [Plankton]
    """


@hookspec
def register_evaluations() -> list[type[Evaluation]]:  # type: ignore[empty-body]
    """Tasks that give a model one or more metrics.

    Example: return [Clustering]
    """


@hookspec
def register_trackers() -> list[type[Tracker]]:  # type: ignore[empty-body]
    """Places that the numbers of a pretraining go to.

    Example: return [TensorBoard]
    """


@hookspec
def register_reports() -> list[type[Report]]:  # type: ignore[empty-body]
    """Ways to render the table of results.

    Example: return [OrgMode]
    """
