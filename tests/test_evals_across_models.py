"""The cross-mask matrix: what it shows, what it marks, and what it refuses to compare."""

from __future__ import annotations

import pandas as pd
import pytest
from PIL import Image

from maebench import Block, MaebenchError, Random, Summary
from maebench.analysis.records import FROM_CONFIG, written
from maebench.evaluating import records
from maebench.masking import BUILT_IN
from maebench.report import plots
from maebench_evals import across_models as across
from maebench_evals.reconstruction import ReconstructionQuality

COLUMNS = [*records.COLUMNS, *FROM_CONFIG, "file"]


def row(model, under, at, value, masks="aa", **changes):
    where = {"masking": under, "ratio": at} | ({"masks": masks} if masks else {})
    ok = value is not None
    return {
        **{"model": model, "model_kind": "run", "dataset_fingerprint": "f1", "main": False},
        **{"metric": "across_r2", "where": where, "value": value, "created": "2026-01-01"},
        **{"status": "ok" if ok else "not applicable", "reason": "" if ok else "too few"},
        **{"masking": "random", "ratio": 0.75, "realised_ratio": 0.75, "schedule": None},
        **changes,
    }


def frame(*rows):
    return pd.DataFrame(list(rows), columns=COLUMNS)


def two():
    """Two runs under two masks; the second was trained with blocks."""
    block = written(Block().model_dump(mode="json"))
    return frame(
        row("a", "random", 0.75, 0.5),
        row("a", "block", 0.5, 0.25, "bb"),
        row("b", "random", 0.75, 0.125, masking=block, ratio=0.5),
        row("b", "block", 0.5, 0.375, "bb", masking=block, ratio=0.5),
    )


def matrix(rows):
    return across.matrix(across.cells(rows)).reset_index()


def test_models_are_rows_masks_are_columns_and_what_a_run_was_trained_with_is_marked():
    assert matrix(two()).to_dict("records") == [
        {
            "model": "a",
            "trained with": "random 0.75",
            "random 0.75": "0.500*",
            "block 0.5": "0.250",
        },
        {"model": "b", "trained with": "block 0.5", "random 0.75": "0.125", "block 0.5": "0.375*"},
    ]


def test_a_mask_that_one_grid_does_not_allow_is_empty_and_no_other_mask():
    found = matrix(frame(row("a", "random", 0.9, None, ""), row("b", "random", 0.9, 0.5)))
    assert found["random 0.9"].tolist() == [across.EMPTY, "0.500"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"masking": written(Random().model_dump())}, "random 0.75"),
        ({"masking": written(Block(aspect=0.5).model_dump())}, "aspect=0.5) 0.75"),
        ({"masking": "mine(a=1)", "ratio": 0.6}, "mine(a=1) 0.6"),
        ({"schedule": "to 0.9 in 3 stages"}, "random 0.75 to 0.9 in 3 stages"),
        ({"realised_ratio": 0}, "nothing hidden"),
        ({"model_kind": "untrained"}, ""),
    ],
)
def test_only_the_same_masking_options_ratio_and_schedule_are_its_own(changes, text):
    # the common masks have default options: with others a run was trained with something else
    found = matrix(frame(row("a", "random", 0.75, 0.5, **changes)))
    assert text in found["trained with"][0]
    assert found["random 0.75"][0] == "0.500" + "*" * (text == "random 0.75")


def test_other_masks_or_images_in_one_column_are_refused_in_one_line():
    for change, what in (
        ({"masks": "cc"}, "not the same masks under random 0.75: a has aa, b cc"),
        ({"dataset_fingerprint": "f2"}, "not the same images under random 0.75: a has f1, b f2"),
    ):
        rows = frame(row("a", "random", 0.75, 0.5), row("b", "random", 0.75, 0.5, **change))
        with pytest.raises(MaebenchError, match=what) as found:
            matrix(rows)
        assert "\n" not in str(found.value)


def test_of_one_model_the_newest_value_is_shown():
    rows = frame(
        row("a", "random", 0.75, 0.5, "cc", created="2026-01-02"),
        row("a", "random", 0.75, 0.1),
        row("b", "random", 0.75, 0.2, "cc"),
    )
    found = matrix(rows).set_index("model")["random 0.75"]
    assert found.to_dict() == {"a": "0.500*", "b": "0.200*"}


def test_the_evaluation_shows_the_matrix_of_its_models_and_nothing_without_common_masks():
    (shown,) = ReconstructionQuality().summary(two())
    assert isinstance(shown, Summary) and shown.name == "across"
    assert shown.table.equals(across.matrix(across.cells(two())))
    assert shown.notes == ("R2 under common masks; * what a run was trained with",)
    assert (
        list(ReconstructionQuality().summary(frame(row("a", "random", 0.75, 0.5, metric="r2"))))
        == []
    )


def test_a_masking_with_default_options_is_said_by_its_name():
    assert {*across.NAMED} == {cls for cls in BUILT_IN if cls.spec is None}
    for cls in across.NAMED:
        assert across.with_options(cls()) == written(cls().model_dump(mode="json"))


def test_the_picture_is_a_png_that_can_be_read(tmp_path):
    rows = [
        *two().to_dict("records"),
        row("untrained", "random", 0.75, -4.0, model_kind="untrained"),
    ]
    plots.write_figure(across.heat_map(across.cells(frame(*rows))), tmp_path / "across.png")
    with Image.open(tmp_path / "across.png") as picture:
        picture.load()
        assert picture.width > 300
        assert len(picture.convert("RGB").getcolors(10**6)) > 100


def test_a_picture_of_nothing_possible_is_empty_and_no_error(tmp_path):
    figure = across.heat_map(across.cells(frame(row("a", "random", 0.9, None, ""))))
    plots.write_figure(figure, tmp_path / "across.png")
    assert (tmp_path / "across.png").exists()
