"""The cross-mask matrix: what it shows, what it marks, and what it refuses to compare."""

from __future__ import annotations

import pandas as pd
import pytest
from PIL import Image

from maebench import Block, MaebenchError, Random
from maebench.analysis.records import FROM_CONFIG, written
from maebench.evaluating import records
from maebench.report import across

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


def test_models_are_rows_masks_are_columns_and_what_a_run_was_trained_with_is_marked():
    assert across.has_cells(two())
    assert across.matrix(two()).to_dict("records") == [
        {
            "model": "a",
            "trained with": "random 0.75",
            "random 0.75": "0.500*",
            "block 0.5": "0.250",
        },
        {"model": "b", "trained with": "block 0.5", "random 0.75": "0.125", "block 0.5": "0.375*"},
    ]


def test_a_mask_that_one_grid_does_not_allow_is_empty_and_no_other_mask():
    found = across.matrix(frame(row("a", "random", 0.9, None, ""), row("b", "random", 0.9, 0.5)))
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
    found = across.matrix(frame(row("a", "random", 0.75, 0.5, **changes)))
    assert text in found["trained with"][0]
    assert found["random 0.75"][0] == "0.500" + "*" * (text == "random 0.75")


def test_other_masks_or_images_in_one_column_are_refused_in_one_line():
    for change, what in (
        ({"masks": "cc"}, "not the same masks under random 0.75: a has aa, b cc"),
        ({"dataset_fingerprint": "f2"}, "not the same images under random 0.75: a has f1, b f2"),
    ):
        rows = frame(row("a", "random", 0.75, 0.5), row("b", "random", 0.75, 0.5, **change))
        with pytest.raises(MaebenchError, match=what) as found:
            across.matrix(rows)
        assert "\n" not in str(found.value)


def test_of_one_model_the_newest_value_is_shown():
    rows = frame(
        row("a", "random", 0.75, 0.5, "cc", created="2026-01-02"),
        row("a", "random", 0.75, 0.1),
        row("b", "random", 0.75, 0.2, "cc"),
    )
    found = across.matrix(rows).set_index("model")["random 0.75"]
    assert found.to_dict() == {"a": "0.500*", "b": "0.200*"}


@pytest.mark.parametrize(("width", "bands"), [(200, 1), (60, 2), (10, 2)])
def test_a_narrow_terminal_has_the_matrix_in_parts_and_all_of_it(width, bands):
    rows = [row("a", "inverse-block", at / 10, at / 10, str(at)) for at in range(1, 7)]
    table = across.matrix(frame(*rows))
    found = list(across.bands(table, width))
    assert len(found) == bands
    assert {tuple(band.columns[:2]) for band in found} == {("model", "trained with")}
    assert [c for band in found for c in band.columns[2:]] == [
        f"inverse-\nblock\n{at / 10}" for at in range(1, 7)
    ]
    cells = [cell for band in found for cell in band.iloc[0, 2:]]
    assert cells == [f"{at / 10:.3f}" for at in range(1, 7)]


def test_records_without_common_masks_have_none():
    assert not across.has_cells(frame(row("a", "random", 0.75, 0.5, metric="r2")))


def test_the_picture_is_a_png_that_can_be_read(tmp_path):
    rows = [
        *two().to_dict("records"),
        row("untrained", "random", 0.75, -4.0, model_kind="untrained"),
    ]
    across.heat_map(frame(*rows), tmp_path / "pictures" / "across.png")
    with Image.open(tmp_path / "pictures" / "across.png") as picture:
        picture.load()
        assert picture.width > 300
        assert len(picture.convert("RGB").getcolors(10**6)) > 100


def test_a_picture_of_nothing_possible_is_empty_and_no_error(tmp_path):
    across.heat_map(frame(row("a", "random", 0.9, None, "")), tmp_path / "across.png")
    assert (tmp_path / "across.png").exists()
