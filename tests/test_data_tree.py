"""Each real image is taken once, whatever links lead to it; what is no image is listed."""

import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maebench.data.layout import read_layout
from maebench.data.tree import below, composed, holds_image, is_image, readable, walk
from maebench.errors import DataError


def touch(*paths):
    """Files with an image's suffix: a walk opens none of them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def link(path, target, folder=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=bool(folder))
    return path


def drawn(path, form):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as opened:
        Image.fromarray(np.full((4, 4), 99, np.uint8)).save(opened, form)
    return path


def names(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


# Links.


def test_a_link_to_its_own_parent_is_named_and_not_followed(tmp_path):
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "2.png")
    up, self = link(tmp_path / "a" / "up", ".."), link(tmp_path / "b" / "self", ".")
    above = link(tmp_path / "b" / "above", tmp_path.parent)  # every folder of a neighbour
    tree = walk([tmp_path])
    assert names(tmp_path, tree.images) == ["a/1.png", "b/2.png"]
    places = [Path(os.path.realpath(path)) for path in (tmp_path, tmp_path.parent, tmp_path / "b")]
    assert tree.cycles == [(up, places[0]), (above, places[1]), (self, places[2])]


def test_a_circle_through_a_folder_elsewhere_is_not_followed(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    touch(root / "a" / "1.png", store / "2.png")
    link(root / "a" / "store", store)
    link(store / "back", root / "a")
    link(store / "out", root.parent)
    tree = walk([root])
    assert names(root, tree.images) == ["a/1.png", "a/store/2.png"]
    assert sorted(names(root, [cycle[0] for cycle in tree.cycles])) == [
        "a/store/back",
        "a/store/out",
    ]


def test_images_are_taken_where_they_lie_else_at_the_first_link(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    touch(root / "b" / "real.png", store / "far.png", store / "deep" / "x.png")
    link(root / "a" / "to_real.png", root / "b" / "real.png")
    link(root / "c" / "far2.png", store / "far.png")
    link(root / "a" / "far1.png", store / "far.png")
    link(root / "a" / "deep", store / "deep")
    link(root / "b" / "store", store)
    tree = walk([root])
    assert names(root, tree.images) == ["a/deep/x.png", "b/real.png", "b/store/far.png"]
    assert names(root, [link for link, _ in tree.again_images]) == [
        *("a/far1.png", "a/to_real.png", "c/far2.png")
    ]
    assert tree.again_folders == [(root / "b" / "store" / "deep", root / "a" / "deep")]


def test_a_data_set_made_of_links_works(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    touch(*(store / f"{i}.bin.png" for i in range(4)))
    for i in range(4):
        link(root / "ab"[i % 2] / f"{i}.png", store / f"{i}.bin.png")
    touch(store / "c" / "5.png")
    link(root / "c", store / "c", folder=True)
    tree = walk([root])
    assert names(root, tree.images) == ["a/0.png", "a/2.png", "b/1.png", "b/3.png", "c/5.png"]
    assert tree.again_images == tree.again_folders == tree.cycles == []
    assert names(root, tree.folders) == ["a", "b", "c"]


def test_links_that_lead_nowhere_are_images_by_their_suffix_or_listed(tmp_path):
    link(tmp_path / "a" / "gone.png", tmp_path / "nowhere.png")
    link(tmp_path / "a" / "lost", tmp_path / "nowhere")
    link(tmp_path / "a" / "loop", "loop")
    tree = walk([tmp_path])
    assert names(tmp_path, tree.images) == ["a/gone.png"]
    assert names(tmp_path, tree.broken) == ["a/loop", "a/lost"]


FOLDERS = ("train/a", "train/a/x", "train/b", "test/a", "test/b/y", "../store", "../store/z")
TARGETS = (*FOLDERS, "train", "test", ".", "..", "nowhere", "train/a/0.png", "../store/0.png")
LINKS = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(["l", "m", "n.png"]), st.integers(0, 13)),
    max_size=8,
    unique_by=lambda item: item[:2],
)


def build(root, links):
    for folder in FOLDERS:
        touch(root / folder / "0.png")
    for folder, name, target in links:
        (root / folder / name).symlink_to(root / TARGETS[target])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(LINKS, st.booleans(), st.randoms())
def test_in_any_tree_of_links_a_real_image_has_one_place_on_one_side(links, whole, random):
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "1", "root"), Path(folder, "2", "root")
        build(first, links)
        random.shuffle(links)
        build(second, links)
        answers = [answer(root, ("classes",) if whole else None) for root in (first, second)]
        assert answers[0] == answers[1], "the order in which links were made does not matter"
        if answers[0] is None:
            return
        sides = [{os.path.realpath(first / path) for path in side} for side in answers[0]]
        assert not sides[0] & sides[1]
        assert [len(side) for side in sides] == [len(side) for side in answers[0]]
        for place in FOLDERS[:5]:  # and no real one is lost
            assert os.path.realpath(first / place / "0.png") in sides[0] | sides[1]


def answer(root, splits):
    """The images of train and test, or None where the tree is refused."""
    try:
        layout = read_layout(root, "image", splits)
    except DataError as error:
        assert " link " in str(error) and "\n" not in str(error)
        return None
    return [names(root, split.paths) for split in (layout.train, layout.test)]


@pytest.mark.parametrize("folder", FOLDERS[:5])
@pytest.mark.parametrize("target", [".", "..", "../store", "/"])
def test_one_link_upwards_or_elsewhere_refuses_no_tree(tmp_path, folder, target):
    build(tmp_path / "root", [])
    (tmp_path / "root" / folder / "l").symlink_to(tmp_path / "root" / target)
    found = answer(tmp_path / "root", None)
    assert sum(map(len, found)) == (7 if target == "../store" else 5)


# Which files are images.


@pytest.mark.parametrize("name", ["x", "x.jfif", "x.dat", "x.jpg_large", "x.PNG?v=2", "x.jpeg~"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_an_image_is_known_by_its_content_whatever_its_suffix(tmp_path, name, form):
    path = drawn(tmp_path / name, form)
    tree = walk([tmp_path])
    assert tree.images == tree.by_content == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P6 is the name of a cell",
        b"BMW",
        b"GIF",
        b"<html>",
        b"\x89PNG",
        b"II*\0",
        b"\xff\xd8",
    ],
)
def test_text_and_damaged_beginnings_are_no_images(tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    assert not is_image(tmp_path / "notes")
    assert walk([tmp_path]).others == [tmp_path / "notes"]


def test_a_raw_photograph_is_not_taken_for_its_preview(tmp_path):
    assert not is_image(drawn(tmp_path / "x.NEF", "TIFF"))
    assert not is_image(drawn(tmp_path / "x.svs", "TIFF"))


def test_an_image_that_is_too_large_is_an_image_all_the_same(tmp_path, monkeypatch):
    path = drawn(tmp_path / "x", "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert is_image(path)  # its decoder will refuse it, by --on-bad-image


def test_files_with_an_images_suffix_are_not_opened(tmp_path, monkeypatch):
    touch(tmp_path / "1.png")
    monkeypatch.setattr(Image, "open", None)
    assert len(walk([tmp_path]).images) == 1


def test_another_file_is_opened_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"text")
    assert not is_image(path)
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **how: opened.append(1) or real(*args, **how))
    assert not is_image(path) and not opened
    assert is_image(drawn(path, "PNG")) and opened


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("x.png", "x"):
        os.mkfifo(tmp_path / name)
    found = []
    thread = threading.Thread(target=lambda: found.append(walk([tmp_path])), daemon=True)
    thread.start()
    thread.join(10)
    assert found and len(found[0].others) == 2 and found[0].images == []


# What operating systems leave behind.


@pytest.mark.parametrize(
    "name",
    ["__MACOSX", "lost+found", "@eaDir", ".ipynb_checkpoints", ".git", "$RECYCLE.BIN", "#recycle"],
)
def test_folders_of_a_system_are_not_looked_into(tmp_path, name):
    touch(tmp_path / "a" / name / "1.png", tmp_path / name / "1.png", tmp_path / "a" / "1.png")
    tree = walk([tmp_path])
    assert names(tmp_path, tree.images) == ["a/1.png"]
    assert sorted(names(tmp_path, tree.system_folders)) == sorted([name, f"a/{name}"])
    assert names(tmp_path, tree.folders) == ["a"]


def test_files_of_a_system_are_no_images_and_not_counted_as_others(tmp_path):
    found = ["._1.jpg", ".DS_Store", ".hidden.png", "Thumbs.db", "desktop.ini"]
    touch(*(tmp_path / name for name in found))
    tree = walk([tmp_path])
    assert sorted(names(tmp_path, tree.system_files)) == sorted(found)
    assert tree.images == tree.others == []


# Names.


def test_names_that_are_not_utf_8_can_be_printed():
    assert readable(os.fsdecode(b"caf\xe9/1.png")) == r"caf\xe9/1.png"
    assert readable("a\nb\u2028c") == r"a\nb\u2028c"
    assert readable("\u202egnp.exe") == r"\u202egnp.exe"  # else it turns the rest of a line around
    assert readable("e\u0301 \u3000日本 \U0001f600") == "é \u3000日本 \U0001f600"


@given(st.binary(min_size=1, max_size=20))
def test_any_name_of_a_file_system_can_be_printed_on_one_line(name):
    text = readable(os.fsdecode(name))
    assert text.encode() and len(text.splitlines()) <= 1


def test_the_order_does_not_depend_on_how_a_file_system_composes_names(tmp_path):
    for form, accent in (("composed", "é"), ("decomposed", "e\u0301")):
        touch(*(tmp_path / form / f"{letter}.png" for letter in ("e", accent, "f", "ez")))
    found = [
        [composed(path.name) for path in walk([tmp_path / form]).images]
        for form in ("composed", "decomposed")
    ]
    assert found[0] == found[1]


def test_below_takes_paths_apart_as_a_path_does(tmp_path):
    touch(tmp_path / "a" / "b" / "1.png", tmp_path / "ab" / "2.png")
    images = walk([tmp_path]).images
    assert [parts for _, parts in below(tmp_path, images)] == [
        list(path.relative_to(tmp_path).parts) for path in images
    ]
    assert [path.name for path, _ in below(tmp_path / "a", images)] == ["1.png"]
    assert list(below(Path("/"), [Path("/x/y")])) == [(Path("/x/y"), ["x", "y"])]


def test_whether_a_folder_holds_an_image_is_found_through_links_and_circles(tmp_path):
    link(tmp_path / "a" / "up", "..")
    assert not holds_image(tmp_path / "a")
    touch(tmp_path / "store" / "deep" / "1.png")
    link(tmp_path / "a" / "store", tmp_path / "store")
    assert holds_image(tmp_path / "a")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "1.png")

    def refuse(place):
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot list folder .*: Permission denied"):
        walk([tmp_path])
