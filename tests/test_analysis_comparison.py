"""What a comparison supports, on numbers made up so that the answers are known."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import comparison, design, drawn, write

from maebench.analysis.comparison import OWEN_SEEDS
from maebench.analysis.seeds import detectable, over_seeds
from maebench.analysis.stats import mcnemar

ARMS = ("0.25", "0.5", "0.75")


def shares(low=0.5, middle=0.6, high=0.9):
    return dict(zip(ARMS, (low, middle, high), strict=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng = np.random.default_rng(0)
    asked = design(seeds=4, target=1.0, margin=50.0)
    outcomes = {
        "knn": drawn(rng, shares(), asked.seeds),
        "linear-probe": drawn(rng, shares(0.9, 0.6, 0.5), asked.seeds),
    }
    return comparison(tmp_path_factory.mktemp("made"), outcomes, asked), outcomes


def test_an_arms_mean_is_that_of_its_seeds_in_per_cent(made):
    found, outcomes = made
    table = found.table().set_index(["evaluation", "arm"])
    for evaluation, by_arm in outcomes.items():
        for arm, by_seed in by_arm.items():
            scores = np.array([100 * values.mean() for values in by_seed.values()])
            row = table.loc[(evaluation, arm)]
            assert row["mean"] == pytest.approx(scores.mean())
            assert row["deviation"] == pytest.approx(scores.std(ddof=1))
            assert (row["low"], row["high"]) == pytest.approx(
                (over_seeds(scores).low, over_seeds(scores).high)
            )
            assert row["num_seeds"] == 4


def test_arms_stand_in_the_order_of_the_design(made):
    found, _ = made
    assert found.table()["arm"].tolist() == [arm for arm in ARMS for _ in range(2)]


def test_pairs_are_differences_of_the_same_seed_with_holm_over_the_rivals(made):
    found, outcomes = made
    pairs = found.pairs().set_index(["evaluation", "arm"])
    assert len(pairs) == 4
    for (evaluation, arm), row in pairs.iterrows():
        mine, base = (outcomes[evaluation][name] for name in (arm, ARMS[0]))
        each = np.array([100 * (mine[s].mean() - base[s].mean()) for s in mine])
        known = over_seeds(each)
        assert row["value"] == pytest.approx(each.mean())
        assert row["p"] == pytest.approx(known.p)
        assert row["detectable"] == pytest.approx(detectable(known.deviation, 4, 2))
        assert row["family"] == 2
        assert row["equivalent"] == (row["p_equivalent"] <= 0.05)
        assert row["seeds_needed"] > 2
    for evaluation in outcomes:
        p = pairs.loc[evaluation, "p"].to_numpy()
        assert pairs.loc[evaluation, "p_holm"].min() == pytest.approx(min(1.0, 2 * p.min()))


@pytest.mark.slow
def test_models_are_paired_over_images_seed_by_seed(made):
    found, outcomes = made
    models = found.models()
    assert len(models) == 2 * 2 * 4
    row = models[(models["evaluation"] == "knn") & (models["arm"] == "0.75")].iloc[2]
    mine, base = outcomes["knn"]["0.75"][2], outcomes["knn"]["0.25"][2]
    known = mcnemar(int(((mine == 1) & (base == 0)).sum()), int(((mine == 0) & (base == 1)).sum()))
    assert row["p"] == pytest.approx(known)
    assert row["test"] == "McNemar exact"
    assert row["value"] == pytest.approx(100 * (mine.mean() - base.mean()))
    assert row["low"] < row["value"] < row["high"]
    assert (models["p_holm"] >= models["p"]).all()


@pytest.mark.slow
def test_arms_far_apart_are_in_different_groups_and_evaluations_may_disagree(made):
    found, _ = made
    for evaluation in ("knn", "linear-probe"):
        for group in found.groups(evaluation):
            assert not {"0.25", "0.75"} <= set(group)
    # the best group comes first
    assert "0.75" in found.groups("knn")[0]
    assert "0.25" in found.groups("linear-probe")[0]
    assert found.agreement().loc["knn", "linear-probe"] == -1


@pytest.mark.slow
def test_one_seed_answers_for_models_and_not_for_ways(tmp_path):
    asked = design(seeds=1)
    found = comparison(
        tmp_path, {"knn": drawn(np.random.default_rng(1), shares(), asked.seeds)}, asked
    )
    assert found.pairs()["p"].isna().all()
    assert found.models()["p"].notna().all()
    assert found.groups("knn") == [ARMS]


def test_a_cell_without_a_result_is_in_no_mean_and_pairs_use_the_seeds_of_both(tmp_path):
    asked = design(seeds=3)
    outcomes = drawn(np.random.default_rng(2), shares(), asked.seeds)
    del outcomes["0.5"][1]
    found = comparison(tmp_path, {"knn": outcomes}, asked)
    assert not found.finished
    table = found.table().set_index("arm")
    assert table["num_seeds"].to_dict() == {"0.25": 3, "0.5": 2, "0.75": 3}
    pairs = found.pairs().set_index("arm")
    assert pairs["num_seeds"].to_dict() == {"0.5": 2, "0.75": 3}
    assert [c.state for c in found.cells].count("failed before") == 1


def test_without_any_result_nothing_breaks(tmp_path):
    found = comparison(tmp_path, {}, design())
    assert found.table().empty
    assert found.pairs().empty
    assert found.models().empty
    assert found.evaluations() == []
    assert found.plot() == {}


@pytest.mark.slow
def test_a_resample_of_seeds_and_images_is_made_from_eight_seeds_on(tmp_path):
    for seeds in (OWEN_SEEDS - 1, OWEN_SEEDS):
        asked = design(seeds=seeds)
        rng = np.random.default_rng(3)
        found = comparison(tmp_path / str(seeds), {"knn": drawn(rng, shares(), asked.seeds)}, asked)
        assert ("owen" in found.pairs()) == (seeds == OWEN_SEEDS)
    spread, outcomes = found.pairs()["owen"].iloc[0], 100
    # two independent shares of 100 images over eight seeds
    assert 1 < spread < 6, outcomes


def test_groups_of_images_are_resampled_and_no_mcnemar_is_used(tmp_path):
    asked = design(seeds=2)
    rng = np.random.default_rng(4)
    outcomes = {"knn": drawn(rng, shares(), asked.seeds)}
    found = comparison(tmp_path, outcomes, asked, groups=np.arange(100) // 5, num_groups=20)
    assert set(found.models()["test"]) == {"sign-flip of groups"}
    assert set(found.scores()["num_groups"]) == {20}


def test_the_interval_of_two_models_repeats_the_choice_made_on_train(tmp_path):
    """A grid in which validation cannot tell two choices apart whose test values lie apart."""
    rng = np.random.default_rng(5)
    asked = design(ratios=(0.25, 0.75), seeds=1)
    test = np.stack([np.r_[np.ones(60), np.zeros(40)], np.r_[np.ones(80), np.zeros(20)]])
    close = (rng.random((2, 200)) < 0.7).astype(float)
    clear = np.stack([np.ones(200), np.zeros(200)])
    paths = [
        write(tmp_path, name, test[0], tests=test, held_out=held, seed=0)
        for name, held in (("clear", clear), ("close", close))
    ]
    made = comparison(tmp_path, {}, asked)
    cells = [
        type(cell)(**{**vars(cell), "records": (path,), "state": "done"})
        for cell, path in zip(made.cells, paths, strict=True)
    ]
    made = type(made)(**{**vars(made), "cells": tuple(cells)})
    row = made.models().iloc[0]
    assert row["value"] == 0, "the same row was chosen"
    # where validation would have chosen the other row it is twenty points, and images vary
    assert row["choice_high"] >= 20
    assert row["high"] < 5


def test_seeds_of_the_probe_are_a_part_of_the_variance_of_their_own(tmp_path):
    """Every run has two seeds of its evaluation that differ by four points and nothing else does."""
    asked = design(ratios=(0.25, 0.75), seeds=3, probe_seeds=2)
    made = comparison(tmp_path, {}, asked)
    cells = []
    for cell in made.cells:
        paths = []
        for number, right in zip(asked.evaluation_seeds(cell.seed), (58, 62), strict=True):
            values = np.r_[np.ones(right), np.zeros(100 - right)]
            paths.append(
                write(tmp_path, f"{cell.arm[-1]}-{cell.seed}-{number}", values, seed=number)
            )
        cells.append(type(cell)(**{**vars(cell), "records": tuple(paths), "state": "done"}))
    made = type(made)(**{**vars(made), "cells": tuple(cells)})
    row = made.table().iloc[0]
    assert row["num_seeds"] == 3
    assert row["mean"] == pytest.approx(60)
    assert row["between_probes"] == pytest.approx(np.std([58, 62], ddof=1))
    assert row["between_seeds"] == 0
    assert row["over_images"] == pytest.approx(100 * (0.6 * 0.4 / 100) ** 0.5, rel=0.02)


def test_the_best_group_comes_first_where_lower_is_better(tmp_path):
    asked = design(seeds=5)
    outcomes = drawn(np.random.default_rng(6), shares(0.1, 0.5, 0.9), asked.seeds)
    found = comparison(tmp_path, {"error": outcomes}, asked, higher_is_better=False)
    assert found.groups("error") == [("0.25",), ("0.5",), ("0.75",)]


@pytest.mark.slow
def test_an_arm_that_lacks_seeds_takes_none_from_the_others(tmp_path):
    asked = design(ratios=(0.25, 0.5, 0.75, 0.9), seeds=5)
    arms = dict(zip((*ARMS, "0.9"), (0.2, 0.5, 0.9, 0.5), strict=True))
    outcomes = drawn(np.random.default_rng(7), arms, asked.seeds)
    outcomes["0.5"] = {0: outcomes["0.5"][0]}
    outcomes["0.9"] = {}
    found = comparison(tmp_path, {"knn": outcomes}, asked)
    matrix = found.matrix("knn")
    # of six pairs, those without a p-value count too
    known = over_seeds([outcomes["0.75"][s].mean() - outcomes["0.25"][s].mean() for s in range(5)])
    assert matrix.loc["0.25", "0.75"] == pytest.approx(6 * known.p)
    assert np.isnan(matrix.loc["0.25", "0.5"]), "one seed in common"
    assert matrix.loc["0.9"].drop("0.9").isna().all(), "it has no number"
    assert found.groups("knn") == [("0.5", "0.75"), ("0.25", "0.5")]


def test_seeds_that_only_one_arm_has_are_not_paired_in_a_resample(tmp_path):
    """Seeds are far apart and arms alike: one seed against another would be a wide spread."""
    asked = design(ratios=(0.25, 0.75), seeds=10)
    rng = np.random.default_rng(8)
    by_seed = {seed: (rng.random(100) < 0.1 + 0.08 * seed).astype(float) for seed in asked.seeds}
    whole = {"0.25": dict(by_seed), "0.75": dict(by_seed)}
    for seed in asked.seeds:
        changed = by_seed[seed].copy()
        changed[seed] = 1 - changed[seed]
        whole["0.75"][seed] = changed
    del whole["0.25"][9], whole["0.75"][0]
    found = comparison(tmp_path, {"knn": whole}, asked).pairs().iloc[0]
    assert found["num_seeds"] == 8
    assert found["owen"] < 1


@pytest.mark.slow
def test_images_that_belong_together_widen_every_spread_over_images(tmp_path):
    asked = design(ratios=(0.25, 0.75), seeds=8)
    rng = np.random.default_rng(9)
    groups = np.arange(200) // 20
    outcomes = {
        arm: {seed: (rng.random(10) < share).astype(float)[groups] for seed in asked.seeds}
        for arm, share in (("0.25", 0.4), ("0.75", 0.6))
    }
    found = [
        comparison(tmp_path / str(i), {"knn": outcomes}, asked, **more)
        for i, more in enumerate(({}, {"groups": groups, "num_groups": 10}))
    ]
    apart, together = (one.table()["over_images"].mean() for one in found)
    assert together == pytest.approx(apart * 20**0.5, rel=0.1), "ten groups, not 200 images"
    apart, together = (one.pairs()["owen"].iloc[0] for one in found)
    assert together > 1.3 * apart


def test_pairs_of_models_that_have_no_number_count_in_the_family(tmp_path):
    asked = design(seeds=3)
    outcomes = drawn(np.random.default_rng(2), shares(), asked.seeds)
    del outcomes["0.5"][1]
    models = comparison(tmp_path, {"knn": outcomes}, asked).models()
    assert len(models) == 2 * 3
    assert models["p"].isna().sum() == 1
    assert models["p_holm"].min() == pytest.approx(min(1, 6 * models["p"].min()))


def test_a_floor_alone_is_no_result_of_the_arms(tmp_path):
    found = comparison(tmp_path, {}, design())
    floor = write(tmp_path, "floor", np.ones(20))
    cell = found.cells[0]
    cells = (*found.cells, replace(cell, kind="untrained", records=(floor,), state="done"))
    found = replace(found, cells=cells)
    assert found.evaluations() == []
    assert found.plot() == {}
    assert len(found.table()) == 1
