"""What `maebench compare` prints and writes: the table and the two answers in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from maebench import files
from maebench.analysis import arms
from maebench.analysis.comparison import LEVEL, Comparison
from maebench.evaluating.records import CONTROLS, examples_of
from maebench.outputs import write_figure
from maebench.report import formats
from maebench.report.footnotes import remarks

FLOORS = {"untrained": "untrained", **CONTROLS}
ORDER = ("run", *FLOORS)
FEW_SEEDS = 2
LEAST_ARMS = 3  # of two there is one pair, and no order
# after whom a method is, by a word of its name
SOURCES = (
    ("Wilson", "1927"),
    ("bootstrap", "Efron 1979"),
    ("Tango", "1998"),
    ("McNemar", "1947"),
    ("sign-flip", "Fisher 1935"),
)
LONGEST_NAME = 100  # characters of a file's name that come from options


def floor_names(models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The names of floors by kind and arm; with the arm where a kind has several."""
    floors = [model for model in dict.fromkeys(models) if model[0] in FLOORS]
    kinds = [kind for kind, _ in floors]
    return {
        (kind, arm): FLOORS[kind] + f" as {arm}" * (kinds.count(kind) > 1) for kind, arm in floors
    }


def ranges(numbers: Sequence[int]) -> str:
    """Numbers with those that follow each other as ranges: 0-2, 5."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def result_table(comparison: Comparison) -> pd.DataFrame:
    """One row per arm and floor, one column per evaluation: mean ± deviation over seeds.

    Where there is no number there is the state: not applicable, failed, to run.
    """
    table, scores, base = comparison.table(), comparison.scores(), comparison.design.baseline
    if table.empty:
        return table
    models = [(cell.kind, cell.arm) for cell in comparison.cells]
    floors = floor_names(models)
    lines: dict[tuple[str, str], dict[str, str]] = {
        model: {"arm": floors.get(model, model[1] + " (baseline)" * (model[1] == base))}
        for model in sorted(dict.fromkeys(models), key=lambda model: ORDER.index(model[0]))
    }
    for row in table.to_dict("records"):
        lines[row["kind"], row["arm"]][_head(row)] = _cell(row, _examples(comparison))
    for row in scores[scores["evaluation"].notna()].to_dict("records"):
        lines[row["kind"], row["arm"]].setdefault(_head(row), str(row["status"]))
    states = {model: cell.state for cell in comparison.cells for model in [(cell.kind, cell.arm)]}
    heads = dict.fromkeys(head for line in lines.values() for head in line)
    return pd.DataFrame(
        [{head: line.get(head, states[model]) for head in heads} for model, line in lines.items()]
    )


def _head(row: Mapping[Any, Any]) -> str:
    return f"{row['evaluation']} {row['metric']}" + (f" ({row['unit']})" * bool(row["unit"]))


def _cell(row: Mapping[Any, Any], examples: str) -> str:
    digits = 1 if row["unit"] == "%" else 3
    text = f"{row['mean']:.{digits}f}"
    if row["num_seeds"] > 1:
        text += f" ±{row['deviation']:.{digits}f} seeds (n={row['num_seeds']})"
    if not math.isnan(row["half_width"]):
        text += f" ±{row['half_width']:.{digits}f} {examples}"
    low, high = row["choice_low"], row["choice_high"]
    if pd.notna(low) and high > low:
        text += f" choice {low:.{digits}f}-{high:.{digits}f}"
    return text


def _examples(comparison: Comparison) -> str:
    return examples_of([comparison.design.arms[0].config.dataset.gives])


def answers(comparison: Comparison) -> list[str]:
    """Both questions answered in words, each with its interval and p value."""
    if not comparison.evaluations():
        return ["no cell has a result yet"]
    lines: list[str] = []
    pairs, models = comparison.pairs(), comparison.models()
    each = _examples(comparison)
    several = len(comparison.design.seeds) >= FEW_SEEDS
    lines.append(f"Are two ways of pretraining different? Over new seeds, on these test {each}:")
    if several:
        for row in pairs.to_dict("records"):
            lines += _of_ways(row, comparison)
    else:
        lines.append("  one seed says nothing about that: add seeds (--seeds 3)")
    lines.append(f"Are two models different? Given their weights, over test {each} of this kind:")
    lines += list(_of_models(models, comparison))
    if several:
        lines += [*_groups(comparison), *_parts(comparison)]
    lines += list(_disagreements(comparison))
    return lines


def _of_ways(row: Mapping[Any, Any], comparison: Comparison) -> list[str]:
    """One arm against the baseline over seeds: the answer, and below it what else is known."""
    head = f"  {row['evaluation']}, {row['arm']} minus {row['baseline']}: "
    if row["num_seeds"] < FEW_SEEDS:
        return [head + f"{row['num_seeds']} seeds done in both, nothing can be said yet"]
    unit = _unit(row)
    if not row["deviation"] > 0:
        same = f"{_number(row, row['value'])}{unit} for each of {row['num_seeds']} seeds"
        return [head + same + ": without a spread nothing can be tested, nor planned by it"]
    said = [f"{_number(row, row['value'])} {_ends(row)}{unit}", f"p {p_text(row['p'])}"]
    if row["family"] > 1:
        said.append(f"Holm {p_text(row['p_holm'])}")
    if row["different"]:
        better = (row["value"] > 0) == bool(row["higher_is_better"])
        verdict = f"different, {row['arm'] if better else row['baseline']} is better"
    else:
        verdict = f"no difference shown (found with 80 %: {row['detectable']:.2g}{unit})"
    more = [
        f"sign flip p {p_text(row['p_flip'])}, at least {row['least_p_flip']:.2g} over "
        f"{row['num_seeds']} seeds",
        f"{row['arm']} better for one new seed: {100 * row['beats']:.0f} %",
    ]
    if pd.notna(row.get("seeds_needed")):
        target = comparison.design.target
        more.append(f"a difference of {target:g}{unit} needs {row['seeds_needed']:.0f} seeds")
    if pd.notna(row.get("p_equivalent")):
        margin = comparison.design.margin
        verdicts = "equivalent" if row["equivalent"] else "equivalence not shown"
        more.append(f"{verdicts} within ±{margin:g}{unit}, p {p_text(row['p_equivalent'])}")
    if math.isfinite(row["pairing_gain"]):
        more.append(f"without pairing it would take {row['pairing_gain']:.2g} times the seeds")
    if pd.notna(row.get("owen")):
        more.append(f"spread over resampled seeds and images {row['owen']:.2g}{unit}")
    return [head + ", ".join(said) + f": {verdict}", f"    {'; '.join(more)}"]


def _of_models(models: pd.DataFrame, comparison: Comparison) -> Iterator[str]:
    """The pairs of models of each arm and the baseline, in a sentence per arm."""
    if models.empty:
        yield "  no pair of models is done yet"
        return
    base = comparison.design.baseline
    for (evaluation, arm), rows in models.groupby(["evaluation", "arm"], sort=False):
        first = rows.iloc[0].to_dict()
        said = []
        for row in rows.to_dict("records"):
            if pd.isna(row["value"]):
                said.append(f"seed {row['seed']} has no number")
                continue
            chosen = pd.notna(row.get("choice_low"))
            ends = _ends(row, *(("choice_low", "choice_high") if chosen else ("low", "high")))
            value = _number(row, row["value"])
            said.append(f"seed {row['seed']} {value} {ends} p {p_text(row['p_holm'])}")
        num = int(rows["different"].sum())
        yield (
            f"  {evaluation}, {arm} minus {base}, {num} of {len(rows)} pairs of models differ: "
            f"{'; '.join(said)}{_unit(first)}"
        )


def _ends(row: Mapping[Any, Any], low: str = "low", high: str = "high") -> str:
    """The interval, or that there is none."""
    if row.get(low) is None or pd.isna(row[low]):
        return "(no interval)"
    return f"[{_number(row, row[low])}, {_number(row, row[high])}]"


def _groups(comparison: Comparison) -> Iterator[str]:
    if len(comparison.design.arms) < LEAST_ARMS:
        return
    yield "Arms that cannot be told apart (no pair of a group differs; all pairs tested, Holm):"
    for evaluation in comparison.evaluations():
        groups = comparison.groups(evaluation)
        missing = [name for name in comparison.design.names if not any(name in g for g in groups)]
        text = " | ".join(", ".join(group) for group in groups)
        yield f"  {evaluation}: {text}" + f" (without {', '.join(missing)})" * bool(missing)


def _parts(comparison: Comparison) -> Iterator[str]:
    """Where a score varies, as standard deviations over the arms together."""
    table = comparison.table()
    runs = table[(table["kind"] == "run") & table["over_images"].notna()]
    if runs.empty:
        return
    yield "Where the score of one model varies (standard deviations, all arms together):"
    for evaluation, rows in runs.groupby("evaluation", sort=False):
        row = rows.iloc[0].to_dict()
        names = ("between_seeds", "between_probes", "over_images")
        seed, probe, image = (math.sqrt((rows[n].astype(float) ** 2).mean()) for n in names)
        text = f"between seeds of pretraining {seed:.2g}"
        text += (
            " (the probe's part with it)" if math.isnan(probe) else f", of the probe {probe:.2g}"
        )
        each = _examples(comparison)
        yield f"  {evaluation}: {text}, over test {each} {image:.2g}{_unit(row)}"


def _disagreements(comparison: Comparison) -> Iterator[str]:
    tau = comparison.agreement()
    if len(tau) < 2:
        return
    found = arms.disagreements(tau)
    names, values = [str(name) for name in tau.columns], tau.to_numpy(dtype=float)
    shown = [
        f"{names[a]} and {names[b]} {values[a, b]:+.2f}"
        for a in range(len(names))
        for b in range(a + 1, len(names))
        if not math.isnan(values[a, b])
    ]
    if shown:
        yield f"Do evaluations order the arms alike? Kendall's tau: {', '.join(shown)}"
    for a, b, _ in found:
        yield f"  {a} and {b} do not: which arm is better depends on the evaluation"


def after(methods: pd.Series) -> str:
    """The names of methods that were used, each with whom it is after."""
    names = sorted({str(name) for name in methods.dropna()})
    found = [next((who for what, who in SOURCES if what in name), "") for name in names]
    said = [f"{name} ({who})" if who else name for name, who in zip(names, found, strict=True)]
    return ", ".join(said) or "none"


def footnotes(comparison: Comparison) -> list[str]:
    """How each number was found, after whom, and what a reader has to know."""
    scores, models, pairs = comparison.scores(), comparison.models(), comparison.pairs()
    methods = after(scores["interval"])
    paired, tests = (
        after(models[name]) if name in models else "none" for name in ("interval", "test")
    )
    ways = ["paired t test and t interval over seeds (Student 1908)", "sign flip (Fisher 1935)"]
    ways.append(f"Holm (1979) over the arms of an evaluation at {100 * LEVEL:g} %")
    ways.append("better for one new seed: predictive t (Geisser 1993)")
    if comparison.design.margin is not None:
        ways.append("equivalence: two one-sided t tests (Schuirmann 1987)")
    if "owen" in pairs:
        ways.append("resampled seeds and images: pigeonhole bootstrap (Owen 2007)")
    each = _examples(comparison)
    again = "choice_low" in models and models["choice_low"].notna().any()
    lines = [
        f"mean ± standard deviation over seeds ± half the mean 95 % interval over test {each} "
        f"({methods}); choice: range over choices that validation cannot tell apart",
        f"ways: {'; '.join(ways)}",
        f"models: p by {tests}, Holm over all pairs of an evaluation; interval by {paired}"
        + ", where something was chosen on train the bootstrap that chooses again" * bool(again),
    ]
    if len(comparison.design.arms) >= LEAST_ARMS:
        lines.append(
            "arms: groups without a pair that differs (maximal cliques, Bron and Kerbosch 1973), "
            "Holm (1979) over all pairs; order by Kendall's tau-b (1945)"
        )
    groups = scores["num_groups"].dropna()
    if len(groups):
        lines.append(f"test {each} belong to {int(groups.max())} groups, which are resampled whole")
    protocols = ", ".join(dict.fromkeys(scores["protocol"].dropna()))
    lines.append(f"protocols {protocols}")
    names = floor_names((cell.kind, cell.arm) for cell in comparison.cells)
    bad = scores[(scores["status"] != "ok") & scores["evaluation"].notna()]
    for key, group in bad.groupby(["kind", "arm", "evaluation", "status", "reason"], sort=False):
        kind, arm, evaluation, status, reason = map(str, key)
        numbers = ranges(group["seed"].tolist())
        seed = "seed" if numbers.isdecimal() else "seeds"
        who = f"{names.get((kind, arm), arm)}, {seed} {numbers}"
        lines.append(f"{evaluation} of {who}: {status}: {' '.join(reason.split())}")
    failed = [cell for cell in comparison.cells if cell.state == "failed before"]
    for cell in failed:
        who = names.get((cell.kind, cell.arm), cell.arm)
        lines.append(f"failed: {who} seed {cell.seed}: {' '.join(cell.reason.split())}")
    notes = [*comparison.notes, *remarks(scores)]
    return [*lines, *(f"note: {note}" for note in notes)]


def write(comparison: Comparison) -> list[str]:
    """Writes tables as CSV, all of it as Markdown, and the pictures; gives the files' names."""
    folder, written = files.make_folder(comparison.folder), []
    tables = {"table": comparison.table(), "scores": comparison.scores()}
    if comparison.evaluations():
        tables |= {"pairs": comparison.pairs(), "models": comparison.models()}
        for evaluation in comparison.evaluations():
            tables[f"matrix-{_file_name(evaluation)}"] = comparison.matrix(evaluation).reset_index(
                names="arm"
            )
    for name, table in tables.items():
        files.write_text(folder / f"{name}.csv", formats.csv(table))
        written.append(f"{name}.csv")
    for name, figure in comparison.plot().items():
        write_figure(figure, folder / f"{name}.png")
        written.append(f"{name}.png")
    files.write_text(folder / "comparison.md", markdown(comparison))
    return [*written, "comparison.md"]


def _file_name(evaluation: str) -> str:
    """Of an evaluation with its options, which may hold any characters and be long."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in evaluation)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{files.short_hash(name)}"


def markdown(comparison: Comparison) -> str:
    """The table, both answers and the footnotes as one page."""
    table = result_table(comparison)
    parts = [f"# {comparison.name}", formats.markdown(table) if len(table) else ""]
    parts += [f"![{name}]({name}.png)" for name in comparison.plot()]
    for line in answers(comparison):
        depth, text = (len(line) - len(line.lstrip())) // 2, formats.as_markdown(line.strip())
        parts.append(f"{'  ' * (depth - 1)}- {text}" if depth else f"**{text}**")
    for evaluation in comparison.evaluations() if len(comparison.design.seeds) >= FEW_SEEDS else ():
        shown = formats.as_markdown(evaluation)
        parts.append(f"{shown}: p of every pair of arms over seeds, Holm over the pairs")
        parts.append(formats.markdown(comparison.matrix(evaluation).map(p_text), index=True))
    parts += [f"<sub>{formats.as_markdown(line)}</sub>" for line in footnotes(comparison)]
    return "\n\n".join(part for part in parts if part) + "\n"


def p_text(p: float) -> str:
    """A p value with two digits; what is smaller than a thousandth says so."""
    if math.isnan(p):
        return "unknown"
    return "<.001" if p < 0.001 else f"{p:.2g}".replace("0.", ".", 1)


def _unit(row: Mapping[Any, Any]) -> str:
    return " points" if row["unit"] == "%" else f" {row['unit']}" * bool(row["unit"])


def _number(row: Mapping[Any, Any], value: float) -> str:
    return f"{value:+.2f}" if row["unit"] == "%" else f"{value:+.4g}"
