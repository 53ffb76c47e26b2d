"""Accuracy under corruption: what is counted, what it stands beside, what is refused."""

from __future__ import annotations

import pytest
import tiny
import torch
from fakes import names

from maebench import ConfigError, Draws
from maebench.component import parse
from maebench.evaluating import suite
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluating.records import read
from maebench.evaluation import Evaluation
from maebench.testing import EvaluationContract
from maebench_evals.corruptions import OF_IMAGES
from maebench_evals.linear_probe import LinearProbe
from maebench_evals.mistakes import OF_TEXT
from maebench_evals.robustness import Robustness

pytestmark = pytest.mark.slow  # models are trained and asked anew


class TestContractOfRobustness(EvaluationContract):
    component = Robustness(corruptions=("gaussian-noise", "contrast"), severities=(1, 5))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robustness")
    tiny.plan(folder, limit=200)
    return folder


def rows(results, evaluation, spec="", seed=0):
    loaded = tiny.load(results, spec)
    model = EvaluatedModel(loaded, evaluation, loaded.splits, seed)
    return list(evaluation.run(model)), model


def test_clean_accuracy_is_the_linear_probes_to_the_image(results):
    found, _ = rows(results, Robustness(corruptions=("contrast",), severities=(1,)))
    probe, _ = rows(results, LinearProbe())
    (clean,) = [r.value for r in found if r.metric == "clean_top1"]
    (own,) = [r.value for r in probe if r.metric == "top1" and r.where.get("chosen")]
    assert torch.equal(clean, own)


def test_an_image_counts_the_share_of_corruptions_and_severities_under_which_it_is_right(results):
    names_, severities = ("impulse-noise", "brightness"), (2, 5)
    found, _ = rows(results, Robustness(corruptions=names_, severities=severities))
    each = {r.where["corruption"]: r.value for r in found if r.metric == "corrupted_top1"}
    (whole,) = [r.value for r in found if r.metric == "top1"]
    assert torch.allclose(whole, (each["impulse-noise"] + each["brightness"]) / 2)
    for value in each.values():
        assert set(value.tolist()) <= {0.0, 0.5, 1.0}
    (clean,) = [float(r.value.mean()) for r in found if r.metric == "clean_top1"]
    (drop,) = [r.value for r in found if r.metric == "drop"]
    assert drop == pytest.approx(1 - (float(whole.mean()) - 0.1) / (clean - 0.1))
    alone = []
    for severity in severities:
        one, _ = rows(results, Robustness(corruptions=("impulse-noise",), severities=(severity,)))
        alone += [r.value for r in one if r.metric == "corrupted_top1"]
    assert torch.allclose(each["impulse-noise"], torch.stack(alone).mean(0))


def test_a_model_that_knows_less_than_guessing_loses_more_than_all(results, monkeypatch):
    def never_right(self, model, name, classify, scale, right, pool):
        return torch.zeros(len(right), dtype=torch.float64)

    monkeypatch.setattr(Robustness, "_corrupted", never_right)
    found = read(suite.evaluate(tiny.load(results), Robustness(corruptions=("brightness",))))
    assert {row["status"] for row in found} == {"ok"}
    (drop,) = [row["value"] for row in found if row["metric"] == "drop"]
    assert drop > 1


def test_what_is_encoded_are_whole_levels_of_the_corrupted_image(results, monkeypatch):
    given = []
    encode = EvaluatedModel.encode
    monkeypatch.setattr(
        EvaluatedModel, "encode", lambda self, x, *a: given.append(x) or encode(self, x, *a)
    )
    evaluation = Robustness(corruptions=("gaussian-noise",), severities=(3,))
    _, model = rows(results, evaluation, "pixels:digits")
    images = model.images("test")
    pixels = images.pick(range(len(images))).float() / 255
    draws = Draws(0, "robustness/corruption gaussian-noise 3", images.info.ids)
    expected = (OF_IMAGES["gaussian-noise"](pixels, 3, draws).clamp(0, 1) * 255).round()
    assert torch.equal(torch.cat(given), expected)


def test_windows_of_text_get_mistakes(tmp_path):
    tiny.plan(tmp_path, **tiny.suited("bert"))
    found, model = rows(tmp_path, Robustness(severities=(5,)))
    each = {r.where["corruption"] for r in found if r.metric == "corrupted_top1"}
    assert each == set(OF_TEXT)
    (whole,) = [r.value for r in found if r.metric == "top1"]
    assert whole.shape == (len(model.images("test")),)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"corruptions": ("contras",)}, "unknown corruption 'contras'. Did you mean 'contrast'"),
        ({"corruptions": ()}, "at least one is wanted"),
        ({"corruptions": ("jpeg", "jpeg")}, "each once"),
        ({"severities": ()}, "at least one is wanted"),
        ({"severities": (2, 2)}, "each once"),
        ({"severities": (6,)}, "at most 5|less than or equal to 5"),
    ],
)
def test_wrong_options_are_one_line(options, what):
    with pytest.raises(ConfigError, match=what) as caught:
        parse(Evaluation, {"name": "robustness", **options}, names().context(), "evals")
    assert "\n" not in str(caught.value)


def test_a_corruption_of_another_kind_is_refused_and_the_right_ones_are_named():
    with pytest.raises(ConfigError, match=r"robustness of text: .*dropped-words"):
        Robustness(corruptions=("jpeg",)).suited("text")
    with pytest.raises(ConfigError, match=r"robustness of images: .*gaussian-noise"):
        Robustness(corruptions=("typing-errors",)).suited("images")
    assert Robustness().suited("images").corruptions == tuple(OF_IMAGES)
    assert Robustness().suited("signals").corruptions == ()
