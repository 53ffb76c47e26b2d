"""Figures as files: the loss of a run, and what evaluations draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maebench.outputs import write_figure
from maebench.pretraining import runs


def loss_curve(run: runs.Run, path: Path) -> None:
    """Writes the loss of each step, and its running mean over a fiftieth of the run, as a PNG."""
    from matplotlib.figure import Figure

    # a step whose update was skipped has no loss
    logged = runs.read_log(run.folder / "log.jsonl", run.facts["steps"])
    rows = [row for row in logged if type(row.get("loss")) in (int, float)]
    if not rows:  # the log was lost: there is nothing to draw
        return
    steps = np.array([row["step"] for row in rows])
    loss = np.array([row["loss"] for row in rows])
    width = max(1, len(loss) // 50)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, loss, color="0.8", linewidth=0.6, label="each step")
    axes.plot(steps[width - 1 :], smooth, color="C0", label=f"mean of {width} steps")
    axes.set(xlabel="step", ylabel="loss", title=run.name)
    axes.set_ylim(bottom=min(0.0, float(loss.min())))
    axes.legend()
    write_figure(figure, path)
