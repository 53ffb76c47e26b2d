"""Names people give to splits are known, class names that resemble them are not, doubt is told."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench.data.split_names import FILLERS, WORDS, Chosen, Shape, choose, role_of
from maebench.errors import DataError

FLAT = Shape(True)
LABELLED = Shape(False, frozenset({"cat", "dog"}))
CASES = (str.lower, str.upper, str.title)


@st.composite
def words_joined(draw, word):
    """A split's word in any case, with words that say nothing more around it, joined anyhow."""
    sep = draw(st.sampled_from("_-. "))
    around = [
        draw(st.lists(st.sampled_from([*FILLERS, "01", "2017"]), max_size=2)) for _ in range(2)
    ]
    return draw(st.sampled_from(CASES))(sep.join([*around[0], word, *around[1]]))


@given(st.data(), st.sampled_from(sorted(WORDS)))
def test_a_split_is_known_in_any_case_and_with_other_words_around(data, word):
    assert role_of(data.draw(words_joined(word))) == (WORDS[word], ())


@pytest.mark.parametrize(
    ("name", "role", "stem"),
    [
        *(("train", "train", ()), ("Training Set", "train", ()), ("trainset", "train", ())),
        *(("TestImages", "test", ()), ("imagesTrain", "train", ()), ("01_train", "train", ())),
        *(("train2017", "train", ()), ("val2017", "val", ()), ("VALID", "val", ())),
        *(("dev", "val", ()), ("eval", "test", ()), ("Held-Out set", "test", ())),
        *(("imagenet_train", "train", ("imagenet",)), ("trainA", "train", ("a",))),
        *(("DIV2K_valid_HR", "val", ("div", "k", "hr")), ("PublicTest", "test", ("public",))),
        *(("trainval", "train", ()), ("train_val", "train", ()), ("test.val", "test", ())),
        *(("train_test_split", None, ()), ("steam_train", "train", ("steam",))),
    ],
)
def test_what_names_say(name, role, stem):
    assert role_of(name) == (role, stem)


@pytest.mark.parametrize(
    "name",
    [
        *("trains", "trainers", "latest", "contest", "testis", "invalid", "values", "developer"),
        *("restrained", "medieval", "evaluator", "cat", "", "1", "images", "tr", "protest"),
    ],
)
def test_words_that_only_contain_a_split_are_none(name):
    assert role_of(name)[0] is None


@given(st.text(st.characters(codec="utf-8")))
def test_every_name_has_an_answer(name):
    role, stem = role_of(name)
    assert role in ("train", "val", "test", None)
    assert all(part == part.lower() for part in stem) or not name.isascii()


def shapes(*names, **others):
    return {name: LABELLED for name in names} | others


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("train", "valid"), ("train", "valid")),
        (("Training Set", "validation-set"), ("Training Set", "validation-set")),
        (("train2017", "val2017"), ("train2017", "val2017")),
        (("imagenet_train", "imagenet_val"), ("imagenet_train", "imagenet_val")),
        (("train", "dev"), ("train", "dev")),
        (("TRAIN", "EVAL"), ("TRAIN", "EVAL")),
        (("train", "test", "val"), ("train", "test", ("val",))),
        (("train", "test", "val", "dev"), ("train", "test", ("val", "dev"))),
        (("train", "imagenet_val"), ("train", "imagenet_val")),  # by the classes in them
    ],
)
def test_pairs_of_names_are_splits_and_test_comes_before_validation(names, chosen):
    assert choose("here", shapes(*names)) == Chosen(*chosen)


@given(st.data(), st.sampled_from(["train", "training"]), st.sampled_from(["val", "dev", "test"]))
def test_every_pair_with_the_same_other_words_is_a_split_even_without_labels(data, one, other):
    prefix = data.draw(st.sampled_from(["", "cars_", "my-", "X "]))
    names = [prefix + data.draw(words_joined(word)) for word in (one, other)]
    found = choose("here", {name: FLAT for name in names})
    assert found == Chosen(*names)


def test_further_folders_are_left_out_where_the_splits_hold_the_same_classes():
    found = choose("here", shapes("train", "test", extra=FLAT, masks=LABELLED))
    assert found == Chosen("train", "test", ("extra", "masks"))


@pytest.mark.parametrize(
    "found",
    [
        shapes("cats", "dogs"),
        shapes("trains", "buses"),
        dict.fromkeys(("steam_train", "bus"), FLAT),
        dict.fromkeys(("test_tube", "beaker"), FLAT),
        dict.fromkeys(("training shoes", "boots", "sandals"), FLAT),
        dict.fromkeys(("train", "bus", "car"), FLAT),  # vehicles
        {},
    ],
)
def test_classes_whose_names_contain_such_words_stay_classes(found):
    assert choose("here", found) is None


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (shapes("train"), "there is none of test"),
        (shapes("test"), "there is none of train"),
        (shapes("test", "val"), "there is none of train"),
        (shapes("train", "cats"), "train/ looks like a split, others do not"),
        (shapes("train", cats=FLAT), "train/ looks like a split, others do not"),
        (dict.fromkeys(("test", "cats", "dogs"), FLAT), "test/ looks like a split"),
        (dict.fromkeys(("valid", "invalid"), FLAT), "valid/ looks like a split"),
        (dict.fromkeys(("train_images", "cats"), FLAT), "train_images/ looks like a split"),
        (dict.fromkeys(("train", "test", "cats"), FLAT), "cats/ is none"),
        (shapes("train", "train_old", "test"), "train_old/ may be a split too"),
        (shapes("train", "Training", "test"), "train/ and Training/ may both be train"),
        (shapes("train", "test", "eval"), "test/ and eval/ may both be test"),
        (shapes("train", "PublicTest", "PrivateTest"), "may both be test"),
        (shapes("trainA", "testA", "trainB", "testB"), "more than one pair"),
        (dict.fromkeys(("steam_train", "test_tube"), FLAT), "no name in common"),
        (shapes("steam_train", "freight_train"), "there is none of test"),
    ],
)
def test_doubt_is_told_with_what_was_seen_and_what_to_say(found, why):
    with pytest.raises(DataError) as caught:
        choose("/data/x", found)
    message = str(caught.value)
    assert why in message and message.startswith("/data/x has folders that look like")
    assert "-o dataset.splits=TRAIN,TEST" in message and "=classes" in message
    for name in found:
        assert re.search(rf"\b{name}/ \((images|2 folders of images)\)", message), message
    assert "\n" not in message


def test_a_long_list_of_what_was_seen_is_cut_and_begins_with_what_looks_like_a_split():
    with pytest.raises(DataError, match=r": test/ .* and 95 more; say it"):
        choose("here", {**{f"{i:03}": FLAT for i in range(100)}, "test": FLAT})


@given(
    st.dictionaries(
        st.sampled_from(["train", "test", "val", "cat", "x_train", "x_val", "dev", "Train 2"]),
        st.sampled_from([FLAT, LABELLED, Shape(False, frozenset("ab"))]),
    )
)
def test_whatever_is_there_is_a_split_of_what_is_there_or_classes_or_told(found):
    try:
        chosen = choose("here", found)
    except DataError as error:
        assert "dataset.splits" in str(error)
        return
    if chosen is not None:
        assert role_of(chosen.train)[0] == "train" and role_of(chosen.test)[0] in ("val", "test")
        assert {chosen.train, chosen.test, *chosen.unused} == set(found)
    else:  # never a class whose name is a held-out split's
        assert not {"test", "val", "dev"} & set(found)


@pytest.mark.parametrize(
    "names",
    [
        *(["fold1", "fold2", "fold3"], ["Fold_1", "Fold_2"], ["cv0", "cv1"], ["part-1", "part-2"]),
        *(
            ["split 1", "split 2"],
            ["query", "gallery"],
            ["labeled", "unlabeled"],
            ["shard0", "shard1"],
        ),
    ],
)
def test_parts_that_say_not_which_is_train_are_refused_with_what_was_seen(names):
    shapes = {name: Shape(False, frozenset("ab")) for name in names}
    with pytest.raises(DataError, match="nothing says which part is which") as caught:
        choose("root", shapes)
    assert all(f"{name}/ (2 folders of images)" in str(caught.value) for name in names)
    assert "dataset.splits=TRAIN,TEST" in str(caught.value)


@pytest.mark.parametrize(
    "names", [["fold1", "cats"], ["part", "whole"], ["query", "answer"], ["manifold1", "manifold2"]]
)
def test_classes_that_are_called_like_parts_are_classes(names):
    assert choose("root", {name: Shape(True) for name in names}) is None
