"""Lists in settings become arms; what cannot be compared is refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import Block, ConfigError, Random
from maebench.analysis.design import PROBE_STEP, find_arm, merged, read_design, read_seeds
from maebench.config.sources import stated
from maebench.plugins import installed

NAMES = installed()


def made(flags=(), options=(), **more):
    return read_design(stated(dict(flags), options, None, NAMES), NAMES, **more)


def refused(*words, flags=(), options=(), **more):
    with pytest.raises(ConfigError) as caught:
        made(flags, options, **more)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_every_combination_of_lists_is_an_arm():
    design = made({"masking": "random,block", "ratio": "0.5,0.75"}, seeds=2)
    assert design.names == ["random 0.5", "random 0.75", "block 0.5", "block 0.75"]
    assert design.baseline == "random 0.5"
    assert design.rivals == design.names[1:]
    assert design.compared == (("masking",), ("ratio",))
    assert design.arm("block 0.75").config.ratio == 0.75


def test_what_is_not_compared_is_the_same_in_every_arm():
    design = made({"masking": "random,block", "batch": 32}, ["optimiser.warmup=0.2"])
    for arm in design.arms:
        assert (arm.config.batch, arm.config.optimiser.warmup) == (32, 0.2)
        other = arm.at(7)
        assert other.seed == 7
        assert other.model_copy(update={"seed": 0}) == arm.config


@pytest.mark.parametrize(
    "flags, options, names",
    [
        ({}, ["lr=1e-3,2e-3"], ["lr=0.001", "lr=0.002"]),
        ({"masking": "block"}, ["masking.aspect=0.3,0.4"], ["block", "block(aspect=0.4)"]),
        ({}, ["optimiser.beta2=0.95,0.99"], ["beta2=0.95", "beta2=0.99"]),
        ({}, ["augment.scale=0.2,1;0.6,1"], ["scale=(0.2, 1.0)", "scale=(0.6, 1.0)"]),
        ({"encoder": "vit-nano,vit-micro"}, [], ["vit-nano", "vit-micro"]),
        ({"objective": "mae,simmim"}, [], ["mae", "simmim"]),
        ({"budget": "steps=5"}, ["budget=steps=5,steps=6"], None),
    ],
)
def test_any_setting_may_be_a_list(flags, options, names):
    if names is None:  # a flag wins over -o
        refused("one arm", flags=flags, options=options)
    else:
        assert made(flags, options).names == names


def test_the_commas_of_a_value_that_is_a_list_are_its_own():
    refused("one arm", options=["augment.scale=0.2,1"])
    design = made({"masking": "random,block"}, ["knn.k=1,5", "evals=knn"])
    assert len(design.arms) == 2
    assert design.arms[0].config.evals[0].k == (1, 5)


def test_lists_of_python_and_of_yaml_are_the_same_as_texts(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text("masking: [random, block]\nratio: [0.5, 0.75]\n")
    from_yaml = read_design(stated({}, [], file, NAMES), NAMES)
    from_python = read_design({"masking": [Random(), Block()], "ratio": (0.5, 0.75)}, NAMES)
    from_text = made({"masking": "random,block", "ratio": "0.5,0.75"})
    assert from_yaml.arms == from_python.arms == from_text.arms


def test_arms_that_are_no_product_are_listed():
    arms = [{"masking": "random", "ratio": 0.25}, {"masking": "block", "ratio": [0.5, 0.6]}]
    design = made({"batch": 32}, arms=arms, baseline="block 0.6")
    assert design.names == ["random 0.25", "block 0.5", "block 0.6"]
    assert design.baseline == "block 0.6"
    supervised = made(arms=[{"masking": "random"}, {"objective": "supervised"}])
    assert supervised.names == ["random mae", "supervised"]


def test_a_baseline_may_be_the_number_that_yaml_reads():
    assert made({"ratio": "0.5,0.75"}, baseline=0.75).baseline == "0.75"


def test_an_option_goes_to_each_component_of_a_list():
    lists = {"masking": ["block", "random"], "ratio": [0.5, 0.75]}
    assert merged(lists, {"ratio": 0.6}) == {"masking": ["block", "random"], "ratio": 0.6}
    asked = merged({"masking": ["block", "inverse-block"]}, {"masking": {"aspect": 0.4}})
    design = read_design(asked, NAMES, seeds=1)
    assert design.names == ["block(aspect=0.4)", "inverse-block(aspect=0.4)"]
    own = {"masking": ["random", {"name": "block", "aspect": 0.5}]}
    with pytest.raises(ConfigError, match="masking: a list of maskings with their own options"):
        merged(own, {"masking": {"aspect": 0.3}})


def test_a_setting_that_takes_a_list_has_it_for_all_arms():
    machine = {"machine": {"trackers": ["csv"]}, "ratio": [0.5, 0.75]}
    try:
        design = read_design(machine, NAMES)
    except ConfigError as error:  # no such tracker here, but a list it may be
        assert "takes no list" not in str(error)
    else:
        assert len(design.arms) == 2


def test_ratios_that_differ_in_a_late_digit_are_two_arms():
    assert made({"ratio": "0.75,0.7500001"}).names == ["0.75", "0.7500001"]


def test_what_cannot_be_compared_is_refused_before_anything_runs():
    refused("one arm", "--masking random,block", flags={"masking": "random"})
    refused("the same", "random", flags={"masking": "random,random"})
    refused("arm masking=blok", "Did you mean 'block'", flags={"masking": "random,blok"})
    refused("a value is missing", flags={"masking": "random,"})
    refused(
        "supervised", "hides no patch", flags={"objective": "mae,supervised", "masking": "grid"}
    )
    refused("--seeds", flags={"masking": "random,block"}, options=["seed=3"])
    refused("arm ratio=1.5", "less than 1", flags={"ratio": "0.5,1.5"})
    refused("probe_seeds", flags={"masking": "random,block"}, probe_seeds=0)
    refused("target", flags={"masking": "random,block"}, target=float("nan"))
    refused("arms", arms=[{}])
    refused("arms: a list of settings", arms=5)
    refused("arms: knn is no setting of one arm", arms=[{"knn": {"k": 1}}, {"knn": {"k": 5}}])
    refused("arms: device is no setting of one arm", arms=[{"device": "cpu", "ratio": 0.5}])
    refused("arms: seed", "--seeds", arms=[{"seed": 1}, {"seed": 2}])
    two = {"masking": "random,block"}
    refused("probe_seeds: a whole number above 0", "1.5", flags=two, probe_seeds=1.5)
    refused("target: a number above 0", "'0.5'", flags=two, target="0.5")
    refused("baseline: the name of an arm", flags=two, baseline=["random"])
    with pytest.raises(ConfigError, match="dataset: takes no list"):
        read_design({"dataset": ["digits", "mnist"], "masking": ["random", "block"]}, NAMES)


def test_an_option_that_one_of_the_maskings_lacks_names_that_arm():
    refused(
        "masking=random",
        "aspect",
        flags={"masking": "block,random"},
        options=["masking.aspect=0.4"],
    )


def test_a_baseline_is_named_by_the_words_that_it_has_alone():
    names = ["random 0.5", "random 0.75", "block(aspect=0.5) 0.5"]
    assert find_arm(names, None) == "random 0.5"
    assert find_arm(names, "random 0.75") == "random 0.75"
    assert find_arm(names, "0.75,random") == find_arm(names, "0.75") == "random 0.75"
    assert find_arm(names, "block") == names[2]
    with pytest.raises(ConfigError, match=r"fits several arms: random 0\.5; random 0\.75"):
        find_arm(names, "random")
    with pytest.raises(ConfigError, match=r"Did you mean 'random 0\.75'"):
        find_arm(names, "randon 0.75")


def test_seeds_are_a_number_a_range_or_a_list():
    assert read_seeds(3) == read_seeds("3") == (0, 1, 2)
    assert read_seeds("3-5") == read_seeds([3, 4, 5]) == (3, 4, 5)
    wrongs = (0, "0", "5-3", "x", "-1", "1,2", [1, 1], [], 10_000, "0-100000")
    for wrong in (*wrongs, None, True, 2.5, [0, -1], [0, 1.5], ["0", "1"], list(range(5000))):
        with pytest.raises(ConfigError, match="--seeds") as caught:
            read_seeds(wrong)
        assert len(str(caught.value)) < 150


@given(st.integers(0, 500), st.integers(0, 400))
def test_a_range_has_both_ends_and_what_lies_between(first, more):
    found = read_seeds(f"{first}-{first + more}")
    assert found == tuple(range(first, first + more + 1))


def test_seeds_of_evaluations_begin_with_the_runs_own_and_never_meet_another_runs():
    design = made({"masking": "random,block"}, seeds=5, probe_seeds=3)
    found = [design.evaluation_seeds(seed) for seed in design.seeds]
    assert [each[0] for each in found] == list(design.seeds)
    assert len({number for each in found for number in each}) == 15
    assert PROBE_STEP > 1000
