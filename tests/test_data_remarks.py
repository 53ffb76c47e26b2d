"""What is lost or changed on the way from files to pixels is said with its count."""

import numpy as np
import pytest
from PIL import Image

from maebench import DataError, Folder, RunConfig
from maebench.data.decode import Decoding
from maebench.data.remarks import remarks_of


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)


def splits(folder, memory_gb=1.0, **reading):
    return RunConfig(
        dataset=Folder(path=folder),
        image_size=8,
        data=reading,
        on_bad_image="skip",
        machine={"memory_gb": memory_gb},
    ).splits()


def said(folder, split="train", **how):
    """{what: text} of one split."""
    loaded = splits(folder, **how)
    loaded.load(split)
    return {remark.what: remark.text for _, remark in loaded.remarks()}


@pytest.fixture
def folder(tmp_path):
    """Train of eight gray images in two classes, and test of four."""
    for split, count in (("train", 8), ("test", 4)):
        for i in range(count):
            save(tmp_path / f"{split}/{'ab'[i % 2]}/{i}.png", noise(8, 8, seed=10 * len(split) + i))
    return tmp_path


def test_ordinary_files_are_not_remarked(folder):
    assert said(folder) == said(folder, "test") == said(folder, memory_gb=0.0) == {}


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_alpha_is_counted(folder, memory):
    drawn = np.concatenate([noise(8, 8, 1)] * 4, -1)
    save(folder / "train/a/drawn.png", drawn)
    text = said(folder, memory_gb=memory, background="black")["alpha"]
    what = "transparent pixels" if memory else "the alpha channel"
    assert text == f"{what} of 1 of 9 images laid over black"


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_images_turned_by_exif_are_counted(folder, memory):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "xy":
        save(folder / f"train/a/{name}.png", noise(8, 8), exif=exif)
    text = "the EXIF orientation of 2 of 10 images was "
    assert said(folder, memory_gb=memory)["orientation"] == text + "applied"
    ignored = said(folder, memory_gb=memory, exif="ignore")
    assert ignored["orientation"] == text + "ignored"


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_twelve_bits_in_sixteen_come_out_whole_and_are_counted(folder, memory):
    """They were nearly black, 16 of 255, where 16 bits were assumed."""
    save(folder / "test/a/deep.png", np.full((8, 8), 4095, "uint16"))
    save(folder / "train/a/deep.png", np.full((8, 8), 2048, "uint16"))
    loaded = splits(folder, memory_gb=memory)
    train, test = loaded.load("train"), loaded.load("test")
    levels = {int(image.max()) for image in next(train.whole(99)) if len(image.unique()) == 1}
    assert levels == {128}
    assert 255 in {int(i.min()) for i in next(test.whole(99)) if len(i.unique()) == 1}
    texts = {f"{split} {remark.text}" for split, remark in loaded.remarks()}
    assert "train levels 0 to 4095 of 1 of 9 images became 0 to 255" in texts
    assert "test levels 0 to 4095 of 1 of 5 images became 0 to 255" in texts


@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_twelve_bits_beside_sixteen_are_said_to_be_nearly_black(folder, memory):
    for split, top in (("train", 65535), ("test", 4095)):
        for path in sorted((folder / split).rglob("*.png")):
            levels = np.linspace(0, top, 64).reshape(8, 8).astype("uint16")
            Image.fromarray(levels).save(path)
    assert said(folder, "test", memory_gb=memory)["nearly black"] == (
        "4 of 4 images looked at have no level above a 16th of the white of the set, 65535, and "
        "are nearly black"
    )
    assert "nearly black" not in said(folder, "train", memory_gb=memory)
    stated = said(folder, "test", memory_gb=memory, levels=(0, 65535))
    assert "nearly black" not in stated, "who gives the levels knows them"


def test_fractions_beside_levels_to_255_are_said_to_be_nearly_black_and_black_ones_not(folder):
    for number, path in enumerate(sorted((folder / "train").rglob("*.png"))):
        levels = np.full((8, 8), (0.5, 255, 0)[number % 3], "float32")
        Image.fromarray(levels).save(path.with_suffix(".tif"))
        path.unlink()
    assert said(folder)["nearly black"].startswith("3 of 8 images")


def test_a_user_says_which_levels_are_black_and_white(folder):
    save(folder / "train/a/deep.tif", np.array([[-1000, 400]] * 2, "int32").repeat(4, 0))
    with pytest.raises(DataError, match=r"-o data\.levels=BLACK,WHITE"):
        RunConfig(dataset=Folder(path=folder), image_size=8).splits().load("train")
    found = said(folder, levels=(-1000, 0))
    assert found["deep"] == "levels -1000 to 0 of 1 of 9 images became 0 to 255"
    assert found["outside"] == "levels outside of -1000 to 0 were cut off in 1 of 9 images"


def test_a_colour_image_among_those_of_test_keeps_its_colour(folder):
    """Which were made gray where those of train are."""
    save(folder / "test/a/colour.png", noise(8, 8, 3))
    loaded = splits(folder)
    assert loaded.load("train").info.channels == loaded.load("test").info.channels == 3
    texts = {f"{split} {remark.text}" for split, remark in loaded.remarks()}
    assert "train 8 of 8 images are gray, and were given to all channels" in texts
    assert "test 4 of 5 images are gray, and were given to all channels" in texts


def test_colours_that_are_lost_all_the_same_are_counted(folder, monkeypatch):
    monkeypatch.setattr("maebench.data.folder.HEADERS", 1)  # of many files a few are looked at
    save(folder / "train/b/zz.png", noise(8, 8, 3))
    text = "colours were lost in 1 of 9 images, for the images looked at are gray"
    assert said(folder)["colour"] == text


def test_large_splits_of_which_parts_are_read_say_so(folder):
    text = said(folder, memory_gb=0.0, whole_gb=0.0)["sampled"]
    assert text == (
        "the fingerprint covers the size and three parts of each of 8 files, 0 GiB together"
    )


def test_what_is_said_of_both_splits_alike_is_said_once(folder):
    (folder / "notes.txt").write_text("of no split")
    (folder / "train/a/notes.txt").write_text("of a class")
    loaded = splits(folder)
    for split in ("train", "test"):
        loaded.load(split)
    found = [(split, remark.what) for split, remark in loaded.remarks()]
    assert found.count(("", "other files")) == 1 and len({what for _, what in found}) == len(found)


def test_a_remark_says_what_does_otherwise_on_the_screen_alone():
    (remark,) = remarks_of([frozenset({"alpha"})], Decoding(3))
    assert remark.text == "transparent pixels of 1 of 1 images laid over white"
    assert str(remark).endswith("white; -o data.background=COLOUR takes another colour")


def test_white_drawings_over_white_are_said_to_have_one_colour(folder):
    drawn = np.full((8, 8, 4), 255, "uint8")
    drawn[..., 3] = noise(8, 8)
    save(folder / "train/a/drawn.png", drawn)
    assert said(folder)["one colour"] == "1 of 9 images have one colour"
    assert "one colour" not in said(folder, background="black")


# Content.


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_files_overwritten_by_others_of_the_same_size_are_other_data(folder, memory, monkeypatch):
    for path in folder.rglob("*.png"):
        path.unlink()
        save(path.with_suffix(".bmp"), noise(8, 8, seed=int(path.stem)))
    before = splits(folder, memory).load("train").info.fingerprint
    path = next((folder / "train").rglob("*.bmp"))
    size = path.stat().st_size
    save(path, noise(8, 8, seed=1234))
    assert path.stat().st_size == size
    assert splits(folder, memory).load("train").info.fingerprint != before


def test_files_that_change_while_a_run_goes_on_are_noticed(folder):
    loaded = splits(folder, memory_gb=0.0).load("train")
    save(folder / "train/a/0.png", noise(8, 8, seed=77))
    with pytest.raises(DataError, match=r"0\.png was changed while the run went on"):
        list(loaded.whole(4))
    with pytest.raises(DataError, match="was changed"):
        loaded.pick(range(4))


def test_the_way_files_are_read_is_in_the_fingerprint_of_what_it_changes(folder):
    drawn = np.concatenate([noise(8, 8, 1)] * 4, -1)
    save(folder / "train/a/drawn.png", drawn)
    for memory in (0.0, 1.0):
        marks = {
            splits(folder, memory, background=colour).load("train").info.fingerprint
            for colour in ("white", "black")
        }
        assert len(marks) == 2


def test_a_jpeg_decoded_at_a_reduced_size_is_other_data_only_where_it_is_large(folder):
    rng = np.random.default_rng(0)
    for memory in (0.0, 1.0):
        for file in (folder / "train/a").glob("*.jpg"):
            file.unlink()
        before = splits(folder, memory).load("train").info.fingerprint
        small = splits(folder, memory, reduced_jpeg=True).load("train").info.fingerprint
        # files that are not decoded when a split is loaded may be large, whatever they are
        assert (small == before) == (memory > 0)
        pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train/a/large.jpg")
        marks = {
            splits(folder, memory, reduced_jpeg=reduced).load("train").info.fingerprint
            for reduced in (False, True)
        }
        assert len(marks) == 2
