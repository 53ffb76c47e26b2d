"""Words and pictures: the same transformer, the same ratios, on text and on images.

Masking a fifth of the words is said to teach a text model, and masking a fifth of an image to hide
almost nothing. For each ratio: how much of what is hidden is known without a model, how much a
trained model knows, and what its features gain over those of the untrained encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maebench.analysis import seeds
from maebench.analysis.comparison import Comparison
from maebench.analysis.design import Design, read_design
from maebench.component import parse
from maebench.config.run import RunConfig
from maebench.data.dataset import Dataset
from maebench.encoders.inputs import IMAGES, TEXT, Inputs
from maebench.errors import ConfigError
from maebench.evaluating import records
from maebench.evaluating.records import CONTROLS
from maebench.masking.mask import count_hidden
from maebench.plugins import Names
from maebench.rng import isolated

if TYPE_CHECKING:
    import pandas as pd

RATIOS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
CLAIM = 0.2  # the ratio that the claim speaks of
LIMIT = 10_000  # training images and windows: ten ratios and three seeds in an hour or two
PROBE, KNOWN = "linear-probe", "reconstruction"
KNOWN_AS = f"{KNOWN}(ratio=own)"  # in tables
POINTS = 100  # of a share
# what is known without a model: Laplace's equation between the seen pixels, seen neighbours
BASELINES = {TEXT: "bigram", IMAGES: "harmonic"}


@dataclass(frozen=True)
class Sides:
    """What is compared: a text data set and one of images, on transformers of one size.

    Args:
        text: settings of the runs on text.
        images: settings of the runs on images.
    """

    text: Mapping[str, Any]
    images: Mapping[str, Any]

    def designs(
        self, names: Names, ratios: Sequence[float], num_seeds: int | str, shared: Mapping[str, Any]
    ) -> dict[str, Design]:
        """A comparison of the ratios for each, windows being as long as images have patches.

        Args:
            names: the installed components.
            ratios: to compare, no two of which hide as many patches (`apart`).
            num_seeds: seeds of each ratio.
            shared: settings of all runs; a limit of None is LIMIT, or all where there are fewer.

        Raises:
            ConfigError: a data set of another kind, or the claim's ratio is not among the ratios.
        """
        self.check(names)
        if CLAIM not in ratios:
            raise ConfigError(f"--ratio: the claim speaks of {CLAIM}, which is not among them")
        evaluations = {"evals": [PROBE, KNOWN], KNOWN: {"ratio": "own"}}
        common = {**shared, **evaluations, "masking": "random"}
        # pixels as they are: normalised in its patch, a patch has no mean that could be known
        images = {**common, **self.images, "objective": {"name": "mae", "target": "pixels"}}
        text = {**common, **self.text, "objective": "bert"}
        text["dataset"] = {"name": text["dataset"], "length": self.length(names)}
        return {
            kind: read_design(
                {**_limited(settings, names), "ratio": list(ratios)},
                names,
                seeds=num_seeds,
                baseline=f"{CLAIM:g}",
            )
            for kind, settings in ((TEXT, text), (IMAGES, images))
        }

    def check(self, names: Names) -> None:
        """Refuses a data set of another kind.

        Raises:
            ConfigError: names it.
        """
        for kind, side in ((TEXT, self.text), (IMAGES, self.images)):
            gives = parse(Dataset, side["dataset"], names.context(), f"--{kind}").gives
            if gives != kind:
                raise ConfigError(f"--{kind}: dataset {side['dataset']!r} yields {gives}")

    def length(self, names: Names) -> int:
        """How many patches the encoder of images has, and tokens a window."""
        config = RunConfig(names, **self.images)
        with isolated(0, "encoder"):
            encoder = config.encoder.build(Inputs.of_images(1, config.size))
        return math.prod(encoder.grid)


def apart(ratios: Sequence[float], length: int) -> dict[float, float]:
    """The ratios that hide as many of so many patches as another one, which stays.

    Of two the claim's ratio stays, else the first.
    """
    stay: dict[int, float] = {}
    for ratio in sorted(ratios, key=lambda ratio: ratio != CLAIM):
        stay.setdefault(count_hidden(length, ratio), ratio)
    found = {ratio: stay[count_hidden(length, ratio)] for ratio in ratios}
    return {ratio: same for ratio, same in found.items() if same != ratio}


def _limited(settings: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The settings with a limit that train has."""
    if settings["limit"] is not None:
        return dict(settings)
    single = {key: v for key, v in settings.items() if key not in (KNOWN, "evals", "limit")}
    train = RunConfig(names, **single).splits().load("train")
    return {**settings, "limit": min(LIMIT, len(train))}


def rows(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """One row per kind of inputs and ratio: what is known of what is hidden, and the probe's gain.

    Columns kind, ratio, baseline (r2 without a model), model, model_low and model_high (r2 over
    seeds, with its t interval), probe, untrained and control (top-1 in per cent), gain, gain_low
    and gain_high (points over the untrained encoder of the same seed, t interval), num_seeds, p and
    p_holm (of the probe against the ratio of the claim, paired over seeds). Without labels there is
    no probe, and all that comes from it is NaN.
    """
    import pandas as pd

    return pd.DataFrame(
        [row for kind, found in comparisons.items() for row in _of_kind(kind, found)]
    )


def _of_kind(kind: str, found: Comparison) -> list[dict[str, Any]]:
    scores, pairs = found.scores(), found.pairs()
    probe = scores[(scores["evaluation"] == PROBE) & (scores["status"] == "ok")]
    probe = probe.assign(value=POINTS * probe["value"])
    floor = probe[probe["kind"] == "untrained"].set_index("seed")["value"]
    control = probe[probe["kind"].isin(CONTROLS)]["value"].mean()
    made = []
    for arm in found.design.arms:
        mine = probe[(probe["arm"] == arm.name) & (probe["kind"] == "run")].set_index("seed")
        own, base = mine["value"].align(floor, join="inner")
        known = scores[(scores["arm"] == arm.name) & (scores["kind"] == "run")]
        known = known[(known["evaluation"] == KNOWN_AS) & (known["status"] == "ok")]
        cell = next(c for c in found.cells if c.arm == arm.name and c.kind == "run")
        if cell.state != "done":
            continue
        gain, model = _over_seeds(own - base), _over_seeds(known["value"])
        pair = pairs[(pairs["arm"] == arm.name) & (pairs["evaluation"] == PROBE)]
        made.append(
            {
                **{"kind": kind, "ratio": cell.plan.run.facts["realised_ratio"], "arm": arm.name},
                "baseline": _baseline(found, arm.name, BASELINES[kind]),
                **{"model": model.value, "model_low": model.low, "model_high": model.high},
                **{"probe": own.mean(), "untrained": base.mean(), "control": control},
                **{"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high},
                "num_seeds": len(known),
                **{key: pair[key].iloc[0] if len(pair) else math.nan for key in ("p", "p_holm")},
            }
        )
    return made


def _over_seeds(values: pd.Series) -> seeds.SeedDifference:
    """The mean and its interval; NaN where nothing is there, as of images without labels."""
    return seeds.over_seeds(values.to_numpy() if len(values) else [math.nan])


def _baseline(found: Comparison, arm: str, name: str) -> float:
    """R2 of a baseline under the masks of an arm's ratio, which are the same for all seeds."""
    for cell in found.cells:
        if cell.arm != arm or cell.kind != "run":
            continue
        for path in cell.records:
            for row in records.readable(path):
                if row["metric"] == "r2" and row["where"].get("baseline") == name:
                    return float(row["value"])
    return math.nan
