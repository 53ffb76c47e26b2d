"""A table never mixes: rows that differ in anything that changes a number stand apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench import Cell, files
from maebench.analysis.records import FROM_CONFIG
from maebench.analysis.stats import Difference
from maebench.evaluating import records
from maebench.report import differences, footnotes, formats, notes, table
from maebench.report.apart import MARK, column_names

# a row that chose nothing: what is paired lies beside it
STORED = [{"metric": "top1", "where": {}, "main": False, "status": "ok", "value": 0.5}]

COLUMNS = [*records.COLUMNS, *FROM_CONFIG, "file"]
ROW = {
    **{"model": "RUN", "model_kind": "run", "run": "RUN", "weights_hash": "9bc4a1b2aa"},
    **{"dataset": "digits", "dataset_fingerprint": "7e57f00d", "split": "test", "examples": 360},
    **{"train_examples": 1437, "train_fingerprint": "fu11fu11", "precision": "fp32", "seed": 0},
    **{"evaluation": "knn", "evaluation_version": 3, "protocol": "knn/majority@v3"},
    **{"options": "knn", "metric": "top1", "where": {}, "package": "maebench", "main": True},
    **{"value": 0.486, "low": 0.434, "high": 0.537, "interval": "Wilson", "unit": "%"},
    **{
        "num_groups": None,
        "status": "ok",
        "reason": "",
        "created": "2026-01-01",
        "masking": "random",
        "ratio": 0.75,
    },
    **{"settings": "s", "file": "results/runs/RUN/records/knn-v3-aaaaaaaaaa-s0.json"},
}
SIXTY = {"train_examples": 60, "train_fingerprint": "60606060", "created": "2026-01-02"}
FLOOR = {"model": "untrained:RUN", "model_kind": "untrained"}
RECONSTRUCTION = {
    **{"evaluation": "reconstruction", "options": "reconstruction", "metric": "r2", "unit": ""},
    **{"evaluation_version": 2, "protocol": "reconstruction@v2", "interval": "bootstrap"},
    **{"value": 0.341, "low": 0.318, "high": 0.362},
    **{"train_examples": None, "train_fingerprint": None},
    "where": {"space": "normalised-pixels", "chosen": True},
}
EARLIER = {"weights_hash": None, "train_examples": None, "train_fingerprint": None} | {
    "interval": None,
    "created": "2025-01-01",
}


def frame(*changes):
    return pd.DataFrame([{**ROW, **change} for change in changes], columns=COLUMNS)


def lines(found: pd.DataFrame) -> dict[tuple[str, str], dict[str, str]]:
    """The printed cells of each model and mark."""
    return {
        (row.pop("model"), row.pop(MARK, "")): {
            name: str(cell) for name, cell in row.items() if isinstance(cell, Cell)
        }
        for row in found.drop(columns="dataset").to_dict("records")
    }


# ---- the cases that were seen


def test_a_number_of_sixty_train_images_stands_beside_that_of_all_and_the_floor_says_its_own():
    found = lines(table.by_model(frame({}, RECONSTRUCTION, FLOOR, {**SIXTY, "value": 0.269})))
    knn, r2 = "knn top1 (%)", "reconstruction r2"
    assert found == {
        ("RUN", "1,437 train images"): {
            knn: "48.6 [43.4, 53.7]",
            r2: "0.341 [0.318, 0.362]",
        },
        ("RUN", "60 train images"): {knn: "26.9 [43.4, 53.7]", r2: "0.341 [0.318, 0.362]"},
        ("untrained:RUN", "1,437 train images"): {knn: "48.6 [43.4, 53.7]"},
    }


def test_numbers_of_old_and_of_new_weights_of_a_file_stand_apart():
    of_file = {"model": "file:vit.pth", "model_kind": "file", "run": None}
    probe = {"evaluation": "linear-probe", "options": "linear-probe", "value": 0.9}
    new = {"weights_hash": "55aa55aa55", "created": "2026-01-02"}
    rows = frame(of_file, {**of_file, **probe, **new})
    assert lines(table.by_model(rows)) == {
        ("file:vit.pth", "weights 9bc4a1b2"): {"knn top1 (%)": "48.6 [43.4, 53.7]"},
        ("file:vit.pth", "weights 55aa55aa"): {"linear-probe top1 (%)": "90.0 [43.4, 53.7]"},
    }
    assert notes.mixed(rows) == [
        "file:vit.pth: weights hash 55aa55aa55, 9bc4a1b2aa are not comparable"
    ]
    # another decoder is another hash too; what reads no train images stands with its weights
    again = table.by_model(frame(of_file, {**of_file, **RECONSTRUCTION, **new}))
    assert [mark for _, mark in lines(again)] == ["weights 9bc4a1b2", "weights 55aa55aa"]


# ---- one mark each


@pytest.mark.parametrize(
    ("change", "marks"),
    [
        ({}, [""]),
        ({"device": "cuda", "seconds": 3.0, "maebench_version": "0.2"}, [""]),
        ({"train_examples": 60}, ["1,437 train images", "60 train images"]),
        ({"train_fingerprint": "fu11fu22"}, ["train fu11fu11", "train fu11fu22"]),
        ({"dataset_fingerprint": "7e57beef"}, ["test 7e57f00d", "test 7e57beef"]),
        ({"dataset_fingerprint": "7e57f00d2"}, ["test 7e57f00d", "test 7e57f00d2"]),
        ({"precision": "bf16"}, ["fp32", "bf16"]),
        ({"weights_hash": "55"}, ["weights 9bc4a1b2", "weights 55"]),
        ({"num_groups": 12, "file": "r/runs/RUN/records/b.json"}, ["no groups", "12 groups"]),
        (EARLIER, ["", "earlier record"]),
    ],
)
def test_what_differs_is_marked_and_what_changes_no_number_is_not(change, marks):
    rows = frame({}, {**change, "created": change.get("created", "2026-01-02")})
    assert sorted(mark for _, mark in lines(table.by_model(rows))) == sorted(marks)
    by = table.by_settings(rows, ["masking"])
    assert sorted(by[MARK] if MARK in by else [""]) == sorted(marks)


def test_records_of_earlier_versions_that_lie_in_two_files_are_not_one_number():
    where = "results/runs/RUN/records/knn-v3-{}-s0.json"
    changes = [{**EARLIER, "file": where.format(name)} for name in ("aaaa", "bbbb")]
    found = lines(table.by_model(frame(*changes)))
    assert [mark for _, mark in found] == ["record aaaa", "record bbbb"]
    says = (
        "digits: records of earlier versions do not say of which train images and weights they "
        "are; evaluate again by `maebench eval NAME MODEL`, then delete the earlier "
    )
    assert notes.mixed(frame({}, changes[0])) == [says + where.format("aaaa")]
    assert notes.mixed(frame({}, *changes)) == [says + where.format("aaaa") + " (and 1 more)"]


def test_a_run_that_reads_no_train_images_has_a_line_of_its_own_only_where_there_is_no_other():
    assert list(lines(table.by_model(frame(RECONSTRUCTION)))) == [("RUN", "")]
    assert list(lines(table.by_model(frame(RECONSTRUCTION, {})))) == [("RUN", "")]
    found = lines(table.by_model(frame(RECONSTRUCTION, SIXTY, FLOOR)))
    assert list(found) == [("RUN", "60 train images"), ("untrained:RUN", "1,437 train images")]


def test_a_number_that_reads_no_train_images_stands_with_those_of_its_own_run():
    other = {"model": "B", "run": "B"}
    rows = frame({}, RECONSTRUCTION, {**SIXTY, **other}, {**RECONSTRUCTION, **other, "value": 0.1})
    by = table.by_settings(rows, ["masking"]).set_index(MARK)["reconstruction r2"]
    assert {mark: (cell.value, cell.num_runs) for mark, cell in by.items()} == {
        "1,437 train images": (0.341, 1),
        "60 train images": (0.1, 1),
    }
    alone = {**RECONSTRUCTION, "model": "C", "run": "C", "value": 0.2}
    by = table.by_settings(frame({}, RECONSTRUCTION, alone), ["masking"]).set_index(MARK)
    values = {mark: cell.value for mark, cell in by["reconstruction r2"].items()}
    assert values == {"": 0.2, "1,437 train images": 0.341}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"evaluation_version": 2, "protocol": "knn/majority@v2"}, ["knn@v3", "knn@v2"]),
        ({"protocol": "knn/dino@v3"}, ["knn by knn/majority", "knn by knn/dino"]),
        ({"package": "other"}, ["knn of maebench", "knn of other"]),
        ({"options": "knn(k=5)"}, ["knn", "knn(k=5)"]),
    ],
)
def test_columns_say_version_protocol_and_package_where_there_are_several(change, names):
    columns = [f"{name} top1 (%)" for name in names]
    assert column_names(frame({}, change)) == columns
    assert list(table.by_model(frame({}, change)).columns) == ["model", "dataset", *columns]
    assert list(table.by_settings(frame({}, change), ["masking"]).columns[2:]) == columns


def test_errors_in_two_spaces_are_two_columns():
    hog = {**RECONSTRUCTION, "model": "b", "where": {"space": "hog", "chosen": True}}
    names = column_names(frame(RECONSTRUCTION, hog))
    assert names == ["reconstruction r2 in normalised-pixels", "reconstruction r2 in hog"]


def test_several_seeds_of_an_evaluation_are_one_mean_that_says_so():
    rows = frame({}, {"seed": 1, "value": 0.5}, {"seed": 1, "value": 0.1, "created": "2025"})
    (cells,) = lines(table.by_model(rows)).values()
    assert cells == {"knn top1 (%)": "49.3 ±1.0 evaluation seeds (n=2) ±5.2 images"}
    rows = frame({}, {"seed": 1, "status": "failed", "value": None})
    (cells,) = lines(table.by_model(rows)).values()
    assert cells == {"knn top1 (%)": "48.6 [43.4, 53.7] (n=1)"}
    assert notes.left_out(rows, by=False) == ["knn top1 (%) of RUN: evaluation seed 1 has no value"]
    by = table.by_settings(frame({}, {"seed": 1, "value": 0.5}, {"model": "b"}), ["masking"])
    assert (by["knn top1 (%)"][0].num_runs, by["knn top1 (%)"][0].value) == (
        2,
        pytest.approx((0.493 + 0.486) / 2),
    )


def test_a_grid_whose_choice_was_made_on_other_images_does_not_hide_this_one():
    of = {"metric": "validation", "main": False}
    rows = frame(
        {**of, "where": {"k": 1, "chosen": True}},
        {**of, "where": {"k": 5}},
        {**of, **SIXTY, "where": {"k": 1}},
        {**of, **SIXTY, "where": {"k": 5}},
    )
    assert len(table.headlines(rows, "validation")) == 3


def test_costs_are_of_the_runs_of_the_line():
    cost = {"steps": 10, "tokens": 100}
    rows = frame(
        {**cost, "settings": "a"},
        {**cost, **SIXTY, "settings": "a"},
        {"model": "B", "run": "B", **cost, "steps": 30, "settings": "b"},
        FLOOR,
    )
    by = table.by_settings(rows, ["masking"], cost=True).set_index(MARK)["steps"]
    assert by.to_dict() == {"1,437 train images": 20, "60 train images": 10}
    model = table.by_model(rows, cost=True).set_index(["model", MARK])["steps"]
    assert model["RUN", "60 train images"] == 10
    assert pd.isna(model["untrained:RUN", "1,437 train images"])
    assert notes.several_settings(rows.assign(encoder=rows["model"]), ["masking"]) == [
        "random, digits, 1,437 train images: its runs differ in encoder"
    ]


def test_runs_that_were_pretrained_in_another_precision_are_named():
    bf16 = {"model": "B", "run": "B", "settings": "b", "pretraining_precision": "bf16"}
    rows = frame({"pretraining_precision": "fp32"}, bf16)
    assert notes.several_settings(rows, ["masking"]) == [
        "random, digits: its runs differ in pretraining_precision"
    ]


# ---- differences


def test_only_numbers_that_are_equal_in_all_but_the_model_are_paired(tmp_path):
    def row(name: str, value: float, **change: Any) -> dict[str, Any]:
        right = np.arange(100) < 100 * value
        path = records.write(tmp_path, name, STORED, {"ids": np.arange(100), "top1[]": right})
        return {"value": value, "file": str(path), **change}

    full, sixty = row("full", 0.5), row("sixty", 0.3, **SIXTY)
    floor = row("floor", 0.2, **FLOOR)
    ((name, found, _),) = differences.differences(frame(full, sixty, floor), "RUN", FLOOR["model"])
    assert (name, found.value, found.test) == ("knn top1 (%)", 0.3, "McNemar exact")
    rows = frame(sixty, floor)
    assert differences.differences(rows, "RUN", FLOOR["model"]) == []
    assert differences.unpaired(rows, "RUN", FLOOR["model"]) == [
        ("knn", "they differ in more than the encoder")
    ]
    small = row("small", 0.1, **FLOOR, **SIXTY)
    both = differences.differences(frame(full, sixty, floor, small), "RUN", FLOOR["model"])
    assert [(name, round(found.value, 3)) for name, found, _ in both] == [
        ("knn top1 (%), 1,437 train images, evaluation seed 0", 0.3),
        ("knn top1 (%), 60 train images, evaluation seed 0", 0.2),
    ]


def test_numbers_whose_images_are_grouped_in_other_ways_are_not_paired(tmp_path):
    def row(name: str, groups: Any, **change: Any) -> dict[str, Any]:
        values = {"ids": np.arange(6), "top1[]": np.arange(6) % 2, "groups": np.array(groups)}
        path = records.write(tmp_path, name, STORED, values)
        return {"file": str(path), "num_groups": 3, "interval": "bootstrap of groups", **change}

    mine, floor = row("mine", [0, 0, 1, 1, 2, 2]), row("floor", [7, 7, 4, 4, 5, 5], **FLOOR)
    assert len(differences.differences(frame(mine, floor), "RUN", FLOOR["model"])) == 1
    other = row("other", [0, 1, 1, 2, 2, 0], **FLOOR)
    assert differences.differences(frame(mine, other), "RUN", FLOOR["model"]) == []
    assert differences.unpaired(frame(mine, other), "RUN", FLOOR["model"]) == [
        ("knn", "they differ in more than the encoder")
    ]


# ---- whatever differs

VARIANTS: dict[str, list[Any]] = {
    "dataset_fingerprint": ["7e57f00d", "7e57f00d1"],
    "train_examples": [1437, 60],
    "train_fingerprint": ["fu11fu11", "fu11fu22"],
    "weights_hash": ["9bc4a1b2aa", "9bc4a1b2bb", None],
    "evaluation_version": [3, 2],
    "protocol": ["knn/majority@v3", "knn/dino@v3"],
    "options": ["knn", "knn(k=5)"],
    "precision": ["fp32", "bf16"],
    "package": ["maebench", None],
    "num_groups": [None, 12],
    "seed": [0, 1],
    "model": ["RUN", "OTHER"],
    "evaluation": ["knn", "reconstruction"],
    "status": ["ok", "failed"],
}
# few at a time: of rows that differ in everything, something always tells them apart
CHANGE = st.sampled_from([(name, value) for name, values in VARIANTS.items() for value in values])
VARIED = st.lists(CHANGE, max_size=2).map(dict)


@settings(max_examples=100)
@given(st.lists(VARIED, min_size=1, max_size=5), st.booleans())
@pytest.mark.slow
def test_no_two_different_numbers_fall_into_one_cell_and_equal_rows_fall_into_one(changes, by):
    rows, groups = [], {}
    for i, change in enumerate([{}, *changes]):
        row = {**ROW, "value": (i + 1) / 100, "created": f"2026-01-{i + 1:02}", **change}
        row["options"] = row["options"].replace("knn", row["evaluation"])
        if row["evaluation"] == "reconstruction" or row["weights_hash"] is None:
            row |= {"train_examples": None, "train_fingerprint": None}
        if row["weights_hash"] is None:
            row |= {"num_groups": None}
        same = tuple(row[name] for name in VARIANTS if name not in ("seed", "status"))
        # as in a results folder: a file for each set of conditions
        row["file"] = (
            f"r/runs/{row['model']}/records/x-{files.short_hash(same)}-s{row['seed']}.json"
        )
        if row["status"] != "ok":
            row |= dict.fromkeys(("value", "low", "high", "interval", "num_groups"))
        rows.append(row)
        if row["status"] == "ok":  # of equal rows the newest
            groups.setdefault(same, {})[row["seed"]] = row["value"]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if by:
        found = table.by_settings(frame, ["model"])
    else:
        found = table.by_model(frame)
    heads = [c for c in ("model", "dataset", MARK) if c in found]
    assert not found.duplicated(heads).any()
    shown = {
        (round(cell.value, 6), cell.num_runs or 1)
        for name in found.columns.difference(heads)
        for cell in found[name]
        if isinstance(cell, Cell) and cell.value is not None
    }
    expected = {
        (round(float(np.mean(list(seeds.values()))), 6), 1 if by else len(seeds))
        for seeds in groups.values()
    }
    assert shown == expected


# ---- below the table


def below(*changes):
    rows = frame(*changes)
    return footnotes.footnotes(rows, table.by_model(rows))


def test_the_methods_of_intervals_stand_below_the_table_and_of_what_each_is():
    assert below({}) == ["Values are means over test images with 95 % intervals: Wilson."]
    assert below(RECONSTRUCTION, {}, {"model": "b"})[0].endswith(
        "intervals: bootstrap (reconstruction r2); Wilson (knn top1)."
    )
    # versions that did not write the method had one
    assert below(EARLIER)[0].endswith("95 % intervals: bootstrap.")
    held_out = {"split": records.HELD_OUT}
    assert below(held_out)[0].startswith("Values are means over images held out of train with")
    assert below({"split": "train"})[0].startswith("Values are means over train images with")
    assert below({"status": "failed", "interval": None}) == []


def test_a_number_that_is_no_mean_is_called_none():
    plain = {"low": None, "high": None, "interval": None}
    assert below(plain) == []
    assert below({**plain, "metric": "mAP", "options": "retrieval"}, {}) == [
        "Values with an interval are means over test images with 95 % intervals: Wilson."
    ]


def test_the_mean_over_one_group_of_images_has_no_interval():
    one = {"low": None, "high": None, "interval": "bootstrap of groups", "num_groups": 1}
    assert below(one) == [
        "Values are means over test images.",
        "Images belong to 1 group: there is no interval.",
    ]
    two = below(one, {"dataset": "b", "num_groups": 7})
    assert two[1] == "Images belong to 1 group (digits), 7 groups (b), which are drawn again whole."


def test_groups_choices_seeds_and_marks_are_explained_where_they_are():
    assert below({"num_groups": 12})[1:] == [
        "Images belong to 12 groups, which are drawn again whole."
    ]
    two = below({"num_groups": 12}, {"dataset": "b", "num_groups": 7})
    assert "Images belong to 12 groups (digits), 7 groups (b), which" in two[1]
    assert below({"choice_low": 0.48, "choice_high": 0.49})[1:] == [footnotes.CHOICE]
    assert below({"choice_low": 0.486, "choice_high": 0.486})[1:] == []
    assert below({}, SIXTY)[1:] == [footnotes.MARKS]
    assert below({}, {"seed": 1})[1].startswith("evaluation seeds: ")


def test_the_methods_of_paired_differences_are_named():
    found = Difference(
        0.1, 0.0, 0.2, "Tango score interval", p=1.0, test="McNemar exact", examples=9
    )
    assert footnotes.of_differences([]) == ""
    text = "Paired differences: Tango score interval and McNemar exact test."
    assert footnotes.of_differences([("knn", found, "%")]) == text


def test_footnotes_are_below_what_a_person_reads_and_not_in_data():
    shown = table.by_model(frame({}))
    line = "top_1 & <b> 95 %"
    assert formats.render(shown, "markdown", [line]).endswith("|\n\ntop\\_1 & \\<b> 95 %")
    assert formats.render(shown, "html", [line]).endswith("<p>top_1 &amp; &lt;b&gt; 95 %</p>")
    assert "\\\\ top\\_1 \\& <b> 95 \\%" in formats.render(shown, "latex", [line])
    assert line not in formats.render(shown, "csv", [line])
