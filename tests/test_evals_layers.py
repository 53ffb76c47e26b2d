"""Every layer has the probe it would have alone, and the best is chosen on train."""

from __future__ import annotations

import pytest
import tiny
import torch

from maebench import ConfigError
from maebench.component import parse
from maebench.evaluating import records, suite
from maebench.models.model import LoadedModel
from maebench_evals.layers import Layers, best_place
from maebench_evals.linear_probe import LinearProbe

QUICK = {"l2": (1e-3, 1e-1, 10.0)}


class Deep(tiny.Stub):
    """A model of three blocks; the classes are told apart best after the one that is asked for."""

    def __init__(self, best, pools=("mean",)):
        labels = torch.arange(400) % 4
        super().__init__(*(None, labels[:300], None, labels[300:]))
        self.best, self.classes = best, labels
        self.names, self.drawn, self.asked = pools, [], []

    def depth(self):
        return 3

    def pools(self):
        return self.names

    def class_names(self):
        return ("a", "b", "c", "d")

    def features(self, split, layer=None, pool="mean"):
        self.asked.append((split, layer, pool))
        generator = torch.Generator().manual_seed(3 * (layer or 4) + self.names.index(pool))
        signal = 6.0 if (layer, pool) in self.best else 0.6
        x = torch.randn(400, 6, generator=generator)
        x[:, :4] += signal * torch.nn.functional.one_hot(self.classes, 4)
        return x[:300] if split == "train" else x[300:]

    def picture(self, name, figure):
        self.drawn.append((name, figure))


def results(model, **options):
    found = list(Layers(**{**QUICK, **options}).run(model))
    assert found.pop().metric == "converged"
    top1 = {(r.where["layer"], r.where["pool"]): r for r in found if r.metric == "top1"}
    validation = {
        (r.where["layer"], r.where["pool"]): r.value.mean().item()
        for r in found
        if r.metric != "top1"
    }
    (chosen,) = [place for place, r in top1.items() if r.where.get("chosen")]
    return top1, validation, chosen


@pytest.mark.parametrize("best", [(1, "mean"), (3, "cls"), (None, "cls")])
def test_the_layer_and_pooling_that_tell_the_classes_best_are_chosen(best):
    model = Deep({best}, ("mean", "cls"))
    top1, validation, chosen = results(model)
    assert list(top1) == list(validation)
    assert list(top1) == [(i, p) for p in ("mean", "cls") for i in (1, 2, 3, "last")]
    assert chosen == (best[0] or "last", best[1])
    assert top1[chosen].value.mean() > 0.95 > 0.7 > top1[2, "mean"].value.mean()
    assert validation[chosen] == max(validation.values())


def test_of_equally_good_poolings_the_preferred_counts_and_of_its_layers_the_middle_one():
    everywhere = {(i, p) for i in (1, 2, 3, None) for p in ("mean", "cls")}
    model = Deep(everywhere, ("mean", "cls"))
    _, validation, chosen = results(model)
    best = [place for place, value in validation.items() if value == max(validation.values())]
    assert len(best) > 1
    preferred = [place for place in best if place[1] == best[0][1]]
    assert chosen == preferred[len(preferred) // 2]
    places = list(Layers(pool="cls", **QUICK).run(model))[:-1]
    assert {r.where["pool"] for r in places} == {"cls"}


def test_a_layer_is_chosen_within_a_pooling_and_never_between_two():
    assert best_place([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 3) == 1
    assert best_place([0.1, 0.2, 0.1, 0.9, 0.9, 0.9], 3) == 4
    assert best_place([0.1, 0.2, 0.9, 0.9, 0.1, 0.1], 3) == 2


def test_a_penalty_on_the_edge_of_its_grid_is_flagged_for_the_chosen_layer_alone():
    top1, _, chosen = results(Deep({(2, "mean")}), l2=(1e-3, 1e-1))
    edges = [place for place, r in top1.items() if r.where.get("edge")]
    assert edges == [chosen] == [(2, "mean")]
    alone, _, chosen = results(Deep({(2, "mean")}), l2=(1e-3,))
    assert "edge" not in alone[chosen].where, "there is no grid to widen"


def test_choices_are_made_on_train():
    model = Deep({(2, "mean")})
    before, chosen = results(model)[1:]
    model._labels["test"] = model._labels["test"].roll(1)
    assert results(model)[1:] == (before, chosen)


def test_the_picture_shows_accuracy_over_depth_with_a_line_per_pooling():
    model = Deep({(2, "cls")}, ("mean", "cls"))
    top1, validation, _ = results(model)
    ((name, figure),) = model.drawn
    assert name == "layers"
    (axes,) = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    for pool in ("mean", "cls"):
        test = [100 * top1[i, pool].value.mean().item() for i in (1, 2, 3, "last")]
        assert lines[f"{pool}, test"] == pytest.approx(test)
        held = lines[f"{pool}, held out of train"]
        assert held == pytest.approx([100 * validation[i, pool] for i in (1, 2, 3, "last")])
    assert lines["chosen on train: 2, cls"] == pytest.approx([lines["cls, test"][1]])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "3", "last"]


# ---- on models


@pytest.mark.slow
def test_one_pass_over_each_split_gives_every_layer_and_each_is_the_linear_probes(
    tmp_path, monkeypatch
):
    tiny.plan(tmp_path)
    model = tiny.load(tmp_path)
    passes, original = [], LoadedModel.encode_all

    def counted(self, images, layers=()):
        passes.append((len(images), tuple(layers)))
        return original(self, images, layers)

    monkeypatch.setattr(LoadedModel, "encode_all", counted)
    options = {"l2": (0.1,)}
    path = suite.evaluate(model, Layers(**options))
    assert passes == [(60, (1, 2)), (256, (1, 2)), (104, (1, 2))]
    rows = {
        (r["where"]["layer"], r["where"]["pool"]): r
        for r in records.read(path)
        if r["metric"] == "top1"
    }
    assert set(rows) == {(i, p) for i in (1, 2, "last") for p in ("mean", "cls")}
    assert (tmp_path / "runs" / model.name / "pictures" / "layers.png").stat().st_size > 5000
    for place in ((1, "cls"), ("last", "mean")):
        layer = None if place[0] == "last" else place[0]
        probe = LinearProbe(layer=layer, pool=place[1], **options)
        alone = [r for r in records.read(suite.evaluate(model, probe)) if r["metric"] == "top1"]
        assert rows[place]["value"] == alone[0]["value"]
    pixels = tiny.load(tmp_path, "pixels:")
    (row,) = records.read(suite.evaluate(pixels, Layers(**options)))
    assert (row["status"], row["reason"]) == (
        "not applicable",
        "pixels:digits has no blocks to compare",
    )


@pytest.mark.parametrize(
    ("option", "value"), [("pool", "flat"), ("l2", "0"), ("l2", ""), ("iterations", "0")]
)
def test_wrong_options_are_refused(option, value):
    with pytest.raises(ConfigError, match=rf"^eval\.{option}"):
        parse(Layers, {option: value}, {}, "eval")
