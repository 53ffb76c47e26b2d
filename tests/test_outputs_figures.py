"""A figure with whatever names becomes a file, and shows them as text."""

from __future__ import annotations

import numpy as np
import pytest
from hostile import NAMES
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from maebench.errors import plain
from maebench.outputs import write_figure


@pytest.mark.parametrize("name", ["$x_{", "$x$ \x1b[31m", "caf\udce9 \u732b"])
def test_a_name_stops_no_picture_and_is_no_formula_in_it(name, tmp_path):
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    axes.plot(["a", name], [1, 2], label=name)  # a category of an axis
    axes.set(title=name, xlabel=name, ylabel=name)
    axes.set_yticks([1, 2], [name, "b"])
    axes.text(0, 1, name)
    figure.suptitle(name)
    figure.legend()
    write_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
    shown = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in shown)
    # title, labels, text, title of all, legend; a tick of each axis, which has a text on both sides
    assert [text.get_text() for text in shown].count(plain(name)) == 10


def test_no_name_stops_a_picture(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    for place, name in enumerate(NAMES):
        axes.text(0.5, place / len(NAMES), name)
    write_figure(figure, tmp_path / "a.png")
    assert {plain(name, lines=True) for name in NAMES} <= {t.get_text() for t in axes.texts}


def test_numbers_beside_an_axis_stay_as_they_are(tmp_path):
    pictures = []
    for way in (write_figure, lambda figure, path: figure.savefig(path, dpi=120)):
        figure = Figure()
        figure.subplots().plot([0, 1e-9], [-1e7, 1e7])
        way(figure, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            pictures.append(np.array(picture))
    assert (pictures[0] == pictures[1]).all()
