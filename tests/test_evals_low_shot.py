"""Few labels: which images are used, how l2 is chosen without the others, and what is recorded."""

from __future__ import annotations

import pytest
import tiny
import torch

from maebench import ConfigError, Folds, MaebenchError, NotApplicable
from maebench.component import parse
from maebench.evaluating import records, suite
from maebench_evals.low_shot import ONE_SHOT_L2, LowShot, taken


@pytest.fixture(scope="module")
def digits():
    return tiny.digits()


def rows(model, **options):
    return {(r.metric, r.where["shots"]): r for r in LowShot(**options).run(model)}


def some_subsets(model, shots="5", draws=3):
    evaluation = LowShot(draws=draws)
    found = list(evaluation._subsets(model, model.labels("train"), shots))
    none = torch.zeros(1, len(found[0][0]), dtype=torch.bool)
    return (
        torch.stack([index for index, _ in found]),
        [none if folds is None else folds.held for _, folds in found],
    )


# ---- which images


@pytest.mark.parametrize("shots", ["1", "3", "1%", "10%", "100%"])
def test_a_subset_is_balanced_and_holds_no_image_twice(digits, shots):
    labels = digits.labels("train")
    index_RN, held_RFN = some_subsets(digits, shots)
    counts = labels.bincount()
    share = float(shots[:-1]) / 100 if "%" in shots else None
    wanted = [int(shots) if share is None else max(1, round(share * int(c))) for c in counts]
    for index, held_FN in zip(index_RN, held_RFN, strict=True):
        assert labels[index].bincount().tolist() == wanted
        assert len(index.unique()) == len(index)
        assert len(held_FN) == (2 * min(5, max(wanted)) if max(wanted) > 1 else 1)
        assert held_FN.any() == (max(wanted) > 1)
        # each image is held out as often, but for the only one of its class
        alone = labels[index].bincount()[labels[index]] == 1
        assert held_FN.sum(0).tolist() == [0 if a else 2 for a in alone.tolist()]
        for held in held_FN:  # whichever fold is held out, all classes are learned from
            assert len(labels[index][~held].unique()) == 10
    assert not torch.equal(index_RN[0], index_RN[1]) or shots == "100%"


def test_the_smaller_subset_of_a_draw_lies_in_the_larger_one(digits):
    small, large = (some_subsets(digits, shots)[0] for shots in ("2", "7"))
    for few, more in zip(small.tolist(), large.tolist(), strict=True):
        assert set(few) < set(more)


def test_a_share_takes_at_least_one_image():
    assert len(taken(torch.arange(3), "1%")) == 1
    assert taken(torch.arange(30), "10%").tolist() == [0, 1, 2]
    assert taken(torch.arange(30), "2").tolist() == [0, 1]


def test_l2_is_chosen_inside_the_subset_alone(digits):
    index_RN, _ = some_subsets(digits, "5", 2)
    other = tiny.Stub(
        digits.features("train").clone(),
        digits.labels("train"),
        digits.features("test"),
        digits.labels("test"),
    )
    outside = torch.ones(len(other.labels("train")), dtype=torch.bool)
    outside[index_RN.flatten()] = False
    other._features["train"][outside] = 7.0
    options = {"shots": ("5",), "draws": 2}
    before, after = rows(digits, **options), rows(other, **options)
    assert before["l2", "5"].value == after["l2", "5"].value
    assert torch.equal(before["top1", "5"].value, after["top1", "5"].value)


def test_a_subset_of_which_nothing_can_be_held_out_has_the_penalty_for_it(digits):
    found = rows(digits, shots=("1", "5"), draws=1, l2=(1e-2,))
    assert (found["l2", "1"].value, found["l2", "5"].value) == (ONE_SHOT_L2, 1e-2)


def test_images_of_a_group_are_held_out_of_a_subset_together(digits):
    class Grouped(tiny.Stub):
        def folds(self, index, purpose):
            asked.append(purpose)
            return Folds.of(self._labels["train"][index], 0, purpose, groups[index])

    asked, groups = [], torch.arange(1437) // 8
    model = Grouped(
        *(digits.features("train"), digits.labels("train")),
        *(digits.features("test"), digits.labels("test")),
    )
    index_RN, held_RFN = some_subsets(model, "10")
    assert len(set(asked)) == 3, "each draw has folds of its own"
    for index, held_FN in zip(index_RN, held_RFN, strict=True):
        assert held_FN.any()
        for held in held_FN:
            mine = groups[index]
            assert not set(mine[held].tolist()) & set(mine[~held].tolist())


# ---- what is recorded


def test_the_accuracy_is_the_mean_over_draws_and_rises_with_labels(digits):
    found = rows(digits, shots=("1", "10"), draws=4)
    few, more = found["top1", "1"].value, found["top1", "10"].value
    assert set((4 * more).tolist()) <= {0, 1, 2, 3, 4} and len(few) == 360
    assert 0.3 < few.mean() < more.mean() - 0.1
    assert 0 < found["spread", "10"].value < found["spread", "1"].value < 0.2
    assert (found["images", "1"].value, found["images", "10"].value) == (10, 100)
    assert found["l2", "1"].value == 0.1
    assert found["top1", "10"].where == {"shots": "10", "pool": "mean", "chosen": True}
    assert "chosen" not in found["top1", "1"].where


def test_an_entry_that_train_does_not_allow_is_a_row_that_says_so_and_one_draw_has_no_spread():
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 2  # five and four images
    few = tiny.Stub(x, labels, x, labels)
    found = rows(few, shots=("2", "4", "5"), draws=1)
    assert found["top1", "5"].value is None
    assert found["top1", "5"].reason == "shots=5: the rarest class of train has 4 images"
    assert found["top1", "4"].where["chosen"]
    assert found["spread", "4"].reason == "one draw has no spread"
    with pytest.raises(MaebenchError, match="-o low-shot.shots=5,6 for stub: the rarest class"):
        rows(few, shots=("5", "6"))
    with pytest.raises(NotApplicable, match="one class"):
        rows(tiny.Stub(x, labels * 0, x, labels * 0))


@pytest.mark.parametrize("text", ["abc", "0", "-1", "0%", "101%", "1.5", "%", "1,1", "5,abc", ""])
def test_a_wrong_entry_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match=r"^eval\.shots: ") as refused:
        parse(LowShot, {"shots": text}, {}, "eval")
    assert "\n" not in str(refused.value)


def test_numbers_are_entries_too():
    assert LowShot(shots=(1, 5)) == LowShot(shots=("1", "5"))
    assert parse(LowShot, {"shots": "3"}, {}, "eval").shots == ("3",)


def test_a_model_is_recorded_with_one_headline(tmp_path):
    tiny.plan(tmp_path)
    found = records.read(suite.evaluate(tiny.load(tmp_path), LowShot(draws=2)))
    (headline,) = [row for row in found if row["main"]]
    assert (headline["status"], headline["where"]["shots"]) == ("ok", "10%")
    gaps = [r["reason"] for r in found if r["status"] != "ok"]  # sixty images: five or six a class
    assert len(gaps) == 1 and gaps[0].startswith("shots=10: the rarest class of train has ")
