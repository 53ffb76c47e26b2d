"""What `maebench speed` prints: how fast pretraining is, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from maebench.pretraining.speed import PURE, Speed

NAMES = {"data": "data (crops)", "decoder": "decoder, loss", "other": "other (seeding)"}


def title(speed: Speed) -> str:
    """What was measured and on what."""
    config, machine = speed.config, speed.environment
    parts = [config.dataset.name, config.encoder.name, config.objective.name]
    if config.objective.hides:
        parts.append(f"{config.masking.name} {config.ratio:g}")
    threads = machine["threads"]
    where = machine["gpu"] or f"{machine['processor']}, {threads} thread{'s' * (threads != 1)}"
    return (
        f"{', '.join(parts)}, batch {config.batch}; {machine['precision']} on {machine['device']} "
        f"({where}), torch {machine['torch']}"
    )


def rates(speed: Speed) -> pd.DataFrame:
    """Images, tokens and FLOPs per second, memory and start-up: a row each."""
    step = speed.step
    rows = {
        "images/s": digits(speed.images_per_second),
        "tokens/s": digits(speed.tokens_per_second),
        "GFLOP/s": digits(speed.flops_per_second / 1e9),
        "of the peak": f"{100 * speed.share_of_peak:.1f} % of {digits(speed.peak / 1e9)} GFLOP/s",
        "whole step": f"{ms(step.median)} ms [{ms(step.low)}, {ms(step.high)}]",
        "end-to-end over pure": f"{100 * speed.pure:.1f} %",
        "peak memory": f"{speed.memory / 2**20:,.0f} MiB",
        "start-up": "not available" if speed.startup is None else f"{speed.startup:.2f} s",
        "first step": f"{digits(speed.first)} s",
    }
    return pd.DataFrame({"measured": rows.keys(), "value": rows.values()})


def phases(speed: Speed) -> pd.DataFrame:
    """The milliseconds of each phase of a watched step, and its share of them all."""
    whole = sum(speed.phases.values())
    found = [
        {
            "phase": NAMES.get(name, name),
            "ms": ms(seconds),
            "share": f"{100 * seconds / whole:.1f} %",
        }
        for name, seconds in speed.phases.items()
    ]
    return pd.DataFrame([*found, {"phase": "sum", "ms": ms(whole), "share": "100.0 %"}])


def lines(speed: Speed) -> Iterator[str]:
    """What the numbers mean, below the tables."""
    count = speed.steps // speed.group
    each = f"group{'s' * (count > 1)} of {speed.group} " * (speed.group > 1)
    yield (
        f"Medians over {count} {each}step{'s' * (speed.steps > 1)}, in brackets 10th and 90th "
        f"percentile. Phases are of as many that were watched; these took {ms(speed.watched)} ms."
    )
    there = [name for name in PURE if name in speed.phases]
    yield f"end-to-end over pure: what {', '.join(there)} are of the whole step, watched."
    yield "Peak: a product of large square matrices, here and now, with this precision and threads."
    ratios = speed.config.ratios
    if speed.config.objective.hides and len(ratios) > 1:
        yield f"The ratio is the first of the schedule, {ratios[0]:g}; it goes to {ratios[-1]:g}."
    yield from (f"note: {note}" for note in speed.notes)


def ms(seconds: float) -> str:
    """Milliseconds with three digits that mean something, and never fewer than a thousandth."""
    return f"{1e3 * seconds:,.3f}" if seconds < 1e-3 else digits(1e3 * seconds)


def digits(value: float) -> str:
    """Three digits of a number that is below a thousand, all whole ones above."""
    places = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{places}f}"
