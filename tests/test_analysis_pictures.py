"""The pictures of a comparison show every arm, its seeds and its interval, without colour too."""

import numpy as np
import pytest
from made_up import comparison, design, drawn, replace, write
from matplotlib.backends.backend_agg import FigureCanvasAgg

from maebench.analysis.design import read_design
from maebench.analysis.pictures import COLOURS, LINES, MARKS
from maebench.plugins import installed


@pytest.fixture(scope="module")
def by_ratio(tmp_path_factory):
    asked = read_design(
        {"masking": ["random", "block"], "ratio": [0.5, 0.75]}, installed(), seeds=3
    )
    shares = dict(zip(asked.names, (0.5, 0.6, 0.7, 0.8), strict=True))
    outcomes = {
        name: drawn(np.random.default_rng(i), shares, asked.seeds)
        for i, name in enumerate(("knn", "linear-probe"))
    }
    return comparison(tmp_path_factory.mktemp("ratio"), outcomes, asked)


def test_accuracy_against_ratio_has_a_line_per_strategy_and_a_point_per_seed(by_ratio):
    figure = by_ratio.plot()["ratio"]
    assert len(figure.axes) == 2
    for axes, evaluation in zip(figure.axes, ("knn", "linear-probe"), strict=True):
        assert axes.get_title() == evaluation
        lines = {
            line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")
        }
        assert set(lines) == {"random", "block"}
        table = by_ratio.table().set_index(["evaluation", "arm"])
        for strategy, line in lines.items():
            assert line.get_xdata().tolist() == [0.5, 0.75]
            means = [table.loc[(evaluation, f"{strategy} {r:g}"), "mean"] for r in (0.5, 0.75)]
            assert line.get_ydata().tolist() == pytest.approx(means)
        points = [line for line in axes.lines if line.get_label().startswith("_")]
        assert sum(len(line.get_xdata()) for line in points) == 4 * 3
        assert len(axes.collections) == 2, "a band per strategy"


def test_strategies_are_told_apart_without_colour(by_ratio):
    axes = by_ratio.plot()["ratio"].axes[0]
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines)
    assert len(set(MARKS)) == len(MARKS)
    assert len(COLOURS) >= len(LINES)


def test_differences_have_their_interval_and_a_filled_mark_where_they_are_real(by_ratio):
    figure = by_ratio.plot()["differences"]
    pairs = by_ratio.pairs().set_index(["evaluation", "arm"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == by_ratio.design.rivals
    squares = [line for line in axes.lines if line.get_marker() == "s"]
    for line, rival in zip(squares, by_ratio.design.rivals, strict=True):
        row = pairs.loc[("knn", rival)]
        assert line.get_xdata()[0] == pytest.approx(row["value"])
        filled = line.get_markerfacecolor() == "black"
        assert filled == row["different"]
    assert len(axes.collections) == 3


def test_arms_without_a_ratio_stand_side_by_side(tmp_path):
    asked = read_design({"masking": ["random", "block"]}, installed(), seeds=2)
    outcomes = {"knn": drawn(np.random.default_rng(0), {"random": 0.5, "block": 0.7}, asked.seeds)}
    pictures = comparison(tmp_path, outcomes, asked).plot()
    assert set(pictures) == {"arms", "differences"}
    labels = [text.get_text() for text in pictures["arms"].axes[0].get_xticklabels()]
    assert labels == ["random", "block"]


def test_one_seed_has_points_and_no_interval(tmp_path):
    asked = design(seeds=1)
    outcomes = {"knn": drawn(np.random.default_rng(0), dict.fromkeys(asked.names, 0.5), (0,))}
    figure = comparison(tmp_path, outcomes, asked).plot()["differences"]
    assert len(figure.axes[0].collections) == 0


def test_an_arm_that_hides_nothing_is_a_level_line_and_every_floor_has_one(tmp_path):
    arms = [{"ratio": [0.5, 0.75]}, {"objective": "supervised"}]
    asked = read_design({}, installed(), arms=arms, seeds=2)
    rng = np.random.default_rng(0)
    outcomes = {"knn": drawn(rng, dict.fromkeys(asked.names, 0.5), asked.seeds)}
    found = comparison(tmp_path, outcomes, asked)
    floors = [
        replace(found.cells[0], arm=arm, kind="untrained", records=(path,))
        for arm, path in (
            (arm, write(tmp_path, f"floor-{i}", (np.arange(20) < i).astype(float)))
            for i, arm in enumerate(asked.names[:2], 4)
        )
    ]
    axes = replace(found, cells=(*found.cells, *floors)).plot()["ratio"].axes[0]
    level = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert "supervised" in level
    floors = [line.get_ydata()[0] for line in axes.lines if line.get_label() == "untrained"]
    assert floors == [20, 25]


def test_no_text_is_cut_where_one_evaluation_alone_is_shown(tmp_path):
    asked = read_design(
        {"masking": ["random", "inverse-block"], "ratio": [0.5, 0.75]}, installed(), seeds=2
    )
    shares = dict.fromkeys(asked.names, 0.5)
    made = comparison(
        tmp_path, {"knn": drawn(np.random.default_rng(0), shares, asked.seeds)}, asked
    )
    named = replace(made, name="digits-masking-ratio-e61ef216f8")  # as `compare` does
    for name, figure in named.plot().items():
        FigureCanvasAgg(figure).draw()
        for text in (*figure.texts, *figure.legends, *(axes.title for axes in figure.axes)):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, (name, text)
