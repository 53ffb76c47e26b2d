"""What a comparison supports: its table, its pairs and its groups, as tidy DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maebench.analysis import arms, pictures, seeds, stats
from maebench.analysis.cells import Cell
from maebench.analysis.choices import with_choices
from maebench.analysis.design import Design
from maebench.evaluating import records
from maebench.evaluating.records import CONTROLS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LEVEL = seeds.SIGNIFICANCE
OWEN_SEEDS = 8  # from so many on a resample of seeds says something
KEY = ["evaluation", "metric", "unit", "higher_is_better"]  # of a number that is compared
SCALE = {"%": 100.0}  # shares are shown in per cent, and so are their differences


@dataclass(frozen=True)
class Comparison:
    """A designed comparison and what is known of it so far.

    Numbers are in the unit that is shown: accuracies in per cent, their differences in percentage
    points. Arms that have no number yet are in no table; `cells` say why.

    Args:
        name: of its folder.
        folder: results/comparisons/<name>/.
        design: arms, seeds, baseline.
        cells: runs and floors with what is done of them.
        machine: device, threads and precision that every cell is computed with.
        notes: what a reader of its tables has to know, such as that it was extended.
    """

    name: str
    folder: Path
    design: Design
    cells: tuple[Cell, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether every cell is done."""
        return all(cell.state == "done" for cell in self.cells)

    def scores(self) -> pd.DataFrame:
        """One row per cell, evaluation and seed of the evaluation: its main metric.

        A cell that failed before it had any is one row with the reason.

        Columns arm, kind, seed, evaluation_seed, evaluation, metric, unit, higher_is_better, value,
        low, high, interval, choice_low, choice_high, num_groups, status, reason, file, dataset and
        remarks.
        """
        return self._scores.copy()

    @cached_property
    def _scores(self) -> pd.DataFrame:
        import pandas as pd

        found = []
        for cell in self.cells:
            for path in cell.records:
                rows = records.readable(path)  # one that cannot be read is its cell's reason
                found += [_score(cell, path, row) for row in rows if row["main"]]
            if cell.state == "failed before" and not any(map(records.readable, cell.records)):
                named = {"arm": cell.arm, "kind": cell.kind, "seed": cell.seed}
                found.append({**named, "status": "failed", "reason": cell.reason})
        return pd.DataFrame(found, columns=_SCORES)

    def table(self) -> pd.DataFrame:
        """One row per arm (and floor) and evaluation: its mean over seeds and what it varies by.

        Columns arm, kind, evaluation, metric, unit, num_seeds, mean, low, high (t interval of the
        mean over seeds), deviation (over seeds), half_width (mean half interval over test images),
        and the parts of the deviation: between_seeds, between_probes, over_images.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        import pandas as pd

        found = []
        for (arm, kind, *key), group in self._groups(["arm", "kind"]):
            values = _by_seed(group)
            mean = seeds.over_seeds(values.to_numpy())
            half = (group["high"] - group["low"]).mean() / 2
            parts = _components(group)
            found.append(
                {
                    **{"arm": arm, "kind": kind, **dict(zip(KEY, key, strict=True))},
                    **{"num_seeds": len(values), "mean": mean.value},
                    **{"low": mean.low, "high": mean.high, "deviation": mean.deviation},
                    **{"half_width": half, **parts},
                    **{name: group[name].mean() for name in ("choice_low", "choice_high")},
                }
            )
        return _ordered(pd.DataFrame(found), self.design)

    def pairs(self) -> pd.DataFrame:
        """Every arm against the baseline, over seeds: are these two ways of pretraining different?

        The mean of the per-seed differences with its t interval; the paired t test decides, Holm
        over the arms of one evaluation. Further columns: p_flip and least_p_flip (exact sign flip
        and the least it can be), deviation (of the differences), detectable (the smallest
        difference found with 80 % power), seeds_needed (for the design's target), beats (chance
        that the arm is better for one new seed), pairing_gain, p_equivalent and equivalent (for
        the design's margin), owen (spread over resampled seeds and images, from eight seeds on).
        """
        return self._pairs.copy()

    @cached_property
    def _pairs(self) -> pd.DataFrame:
        import pandas as pd

        found = []
        for key, group in self._groups():
            by_arm = {arm: _by_seed(part) for arm, part in group.groupby("arm", sort=False)}
            rows = [self._pair(key, group, by_arm, rival) for rival in self.design.rivals]
            adjusted = seeds.holm([row["p"] for row in rows])
            for row, p_holm in zip(rows, adjusted, strict=True):
                found.append(row | {"p_holm": p_holm, "different": bool(p_holm <= LEVEL)})
        return pd.DataFrame(found)

    def _pair(
        self, key: Sequence[Any], group: pd.DataFrame, by_arm: dict[Any, pd.Series], rival: str
    ) -> dict[str, Any]:
        design, base = self.design, self.design.baseline
        family, named = len(design.rivals), dict(zip(KEY, key, strict=True))
        row: dict[str, Any] = {**named, "arm": rival, "baseline": base, "family": family}
        if rival not in by_arm or base not in by_arm:
            return row | {"num_seeds": 0, "p": float("nan")}
        mine, theirs = by_arm[rival].align(by_arm[base], join="inner")
        if mine.empty:
            return row | {"num_seeds": 0, "p": float("nan")}
        difference = (mine - theirs).to_numpy()
        found = seeds.over_seeds(difference)
        names = ("value", "low", "high", "p", "p_flip", "least_p_flip", "deviation", "num_seeds")
        row |= {name: getattr(found, name) for name in names}
        several = len(difference) > 1
        row["detectable"] = seeds.detectable(found.deviation, len(difference), family)
        better = difference if named["higher_is_better"] else -difference
        row["beats"] = seeds.beats(better)
        gain = seeds.pairing_gain(mine.to_numpy(), theirs.to_numpy()) if several else float("nan")
        row["pairing_gain"] = gain
        if design.target is not None and several:
            row["seeds_needed"] = seeds.seeds_needed(found.deviation, design.target, family)
        if design.margin is not None:
            row["p_equivalent"], row["equivalent"] = seeds.equivalent(difference, design.margin)
        if len(difference) >= OWEN_SEEDS:
            both = group[group["seed"].isin(mine.index)]
            outcomes = _outcomes(both, rival, base)
            if outcomes is not None:
                row["owen"] = seeds.owen_spread(outcomes, _groups_of_images(both))
        return row

    def models(self) -> pd.DataFrame:
        """Every run against the baseline's run of its seed: are these two models different?

        Given their weights, paired over test images: McNemar's exact test where answers are right
        or wrong, else a sign flip; Holm over all pairs of an evaluation, those too that have no
        number yet. choice_low and choice_high end the interval in which also the choice made on
        train is repeated in each resample.
        """
        return self._models.copy()

    @cached_property
    def _models(self) -> pd.DataFrame:
        import pandas as pd

        found = []
        for key, group in self._groups():
            first = group[group["evaluation_seed"] == group["seed"]].set_index(["arm", "seed"])
            rows = []
            for rival in self.design.rivals:
                for seed in self.design.seeds:
                    pair = (rival, seed), (self.design.baseline, seed)
                    row = {**dict(zip(KEY, key, strict=True)), "arm": rival, "seed": seed}
                    if all(place in first.index for place in pair):
                        mine, theirs = (first.loc[place] for place in pair)
                        row |= _of_models(mine, theirs, SCALE.get(key[2], 1.0))
                    else:
                        row |= {"value": float("nan"), "p": float("nan")}
                    rows.append(row)
            adjusted = seeds.holm([row["p"] for row in rows])
            for row, p_holm in zip(rows, adjusted, strict=True):
                found.append(row | {"p_holm": p_holm, "different": bool(p_holm <= LEVEL)})
        return pd.DataFrame(found)

    def matrix(self, evaluation: str) -> pd.DataFrame:
        """P values of all pairs of arms, each over the seeds that both have; Holm over the pairs.

        NaN where a pair has no p-value; it counts among the pairs.
        """
        import pandas as pd

        names, scores = self._by_arm(evaluation)
        return pd.DataFrame(arms.pairwise_p(scores), index=names, columns=names)

    def groups(self, evaluation: str) -> list[tuple[str, ...]]:
        """Groups of arms that cannot be told apart, the best first; an arm may be in several.

        An arm without a number is in none.
        """
        names, scores = self._by_arm(evaluation)
        there = np.isfinite(scores).any(axis=1).nonzero()[0]
        matrix = arms.pairwise_p(scores)[np.ix_(there, there)]
        sign = 1 if self._higher(evaluation) else -1
        means = sign * np.nanmean(scores[there], axis=1)
        ordered = sorted(arms.groups_of(matrix, LEVEL), key=lambda group: -max(means[list(group)]))
        return [tuple(names[there[i]] for i in group) for group in ordered]

    def agreement(self) -> pd.DataFrame:
        """Kendall's tau between evaluations: whether they order the arms alike."""
        table = self.table()
        table = table[table["kind"] == "run"]
        sign = np.where(table["higher_is_better"].astype(bool), 1, -1)
        means = table.assign(mean=table["mean"] * sign)
        return arms.agreement(means.pivot(index="arm", columns="evaluation", values="mean"))

    def plot(self) -> dict[str, Figure]:
        """Its pictures by name: accuracy of each arm with its seeds, and the differences."""
        return pictures.of(self)

    def evaluations(self) -> list[str]:
        """Those that a run has numbers of, in the order of the settings."""
        found = self.scores()
        there = (found["status"] == "ok") & (found["kind"] == "run")
        return list(dict.fromkeys(found.loc[there, "evaluation"]))

    def _groups(self, by: Sequence[str] = ()) -> Any:
        scores = self.scores()
        scores = scores[scores["status"] == "ok"]
        if not by:
            scores = scores[scores["kind"] == "run"]
        for key, group in scores.groupby([*by, *KEY], sort=False):
            factor = SCALE.get(str(key[len(by) + 2]), 1.0)
            numbers = ["value", "low", "high", "choice_low", "choice_high"]
            scaled = group[numbers].astype(float) * factor
            yield key, group.assign(**{name: scaled[name] for name in numbers}, factor=factor)

    def _by_arm(self, evaluation: str) -> tuple[list[str], NDArray[np.floating]]:
        """The arms and their scores (arms, seeds), NaN where there is none."""
        group = next(g for key, g in self._groups() if key[0] == evaluation)
        wide = _by_seed(group, "arm").unstack("seed").reindex(self.design.names)
        return self.design.names, wide.to_numpy()

    def _higher(self, evaluation: str) -> bool:
        found = self.scores()
        return bool(found.loc[found["evaluation"] == evaluation, "higher_is_better"].iloc[0])


_SCORES = [
    *("arm", "kind", "seed", "evaluation_seed", *KEY, "value", "low", "high", "interval"),
    *("choice_low", "choice_high", "choices", "choices_alike", "num_groups", "protocol", "status"),
    *("reason", "file", "dataset", "remarks"),
]


def _score(cell: Cell, path: Path, row: records.Row) -> dict[str, Any]:
    kept = {name: row.get(name) for name in _SCORES}
    named = {"arm": cell.arm, "kind": cell.kind, "seed": cell.seed, "evaluation_seed": row["seed"]}
    return {**kept, **named, "evaluation": row["options"], "file": str(path)}


def _by_seed(group: pd.DataFrame, *also: str) -> pd.Series:
    """The value of each seed of pretraining: the mean over seeds of its evaluation."""
    return group.groupby([*also, "seed"], sort=True)["value"].mean()


def _values(row: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Image ids and per-example values of the main row of a file."""
    path = Path(row["file"])
    main = next(r for r in records.read(path) if r["main"])
    return records.values(path, main)


def _stacked(group: pd.DataFrame) -> NDArray[np.float64] | None:
    """Per-example values (seeds, seeds of the evaluation, images); None where there are none."""
    found = [
        [_values(row) for row in part.sort_values("evaluation_seed").to_dict("records")]
        for _, part in group.groupby("seed", sort=True)
    ]
    if any(one is None for part in found for one in part) or len({len(p) for p in found}) > 1:
        return None
    return np.array([[one[1] for one in part if one is not None] for part in found])


def _groups_of_images(group: pd.DataFrame) -> NDArray[np.int64] | None:
    """Which test images belong together: the same for all models that are tested on them."""
    return records.groups(Path(group["file"].iloc[0]))


def _components(group: pd.DataFrame) -> dict[str, float | None]:
    """What an arm's score varies by: seeds of pretraining, of the evaluation, and test images."""
    outcomes = _stacked(group)
    if outcomes is None or outcomes.shape[0] < 2:
        return dict.fromkeys(("between_seeds", "between_probes", "over_images"))
    one = outcomes if outcomes.shape[1] > 1 else outcomes[:, 0]
    found = seeds.components(one, _groups_of_images(group))
    factor = group["factor"].iloc[0]
    probes = None if found.probes is None else found.probes * factor
    return {
        "between_seeds": found.seeds * factor,
        "between_probes": probes,
        "over_images": found.images * factor,
    }


def _outcomes(group: pd.DataFrame, rival: str, base: str) -> NDArray[np.float64] | None:
    """Per-example differences (seeds, images) of an arm to the baseline, in the shown unit."""
    both = []
    for arm in (rival, base):
        stacked = _stacked(group[group["arm"] == arm])
        if stacked is None:
            return None
        both.append(stacked.mean(1))
    if both[0].shape != both[1].shape:
        return None
    found: NDArray[np.float64] = (both[0] - both[1]) * group["factor"].iloc[0]
    return found


def _of_models(mine: Any, theirs: Any, factor: float) -> dict[str, Any]:
    """The difference of two given models on the same test images."""
    values, others = _values(mine), _values(theirs)
    if values is None or others is None:
        return {"p": float("nan"), "value": mine["value"] - theirs["value"]}
    paths = Path(mine["file"]), Path(theirs["file"])
    found = stats.paired_difference(*values, *others, groups=records.groups(paths[0]))
    row = {"value": found.value, "low": found.low, "high": found.high}
    if choice := with_choices(*paths):
        row |= {"choice_low": choice.low, "choice_high": choice.high}
    row = {name: number * factor for name, number in row.items()}
    return row | {"p": found.p, "interval": found.method, "test": found.test}


def _ordered(table: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Arms in the order of the design, then the floors."""
    if table.empty:
        return table
    place = {name: i for i, name in enumerate(design.names)}
    kinds = ("run", "untrained", *CONTROLS)
    order = [
        (kinds.index(row["kind"]), place.get(row["arm"], 0)) for row in table.to_dict("records")
    ]
    index = sorted(range(len(order)), key=lambda i: order[i])
    return table.iloc[index].reset_index(drop=True)
