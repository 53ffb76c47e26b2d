"""`maebench data check` as a user calls it: what it prints, its picture and its exit code."""

import warnings

import numpy as np
import pytest
import tiny
from messy import clean, noise, save
from PIL import Image

from maebench.cli import main
from maebench.cli.evaluate import other_splits
from maebench.config.run import RunConfig
from maebench.data.check import check
from maebench.errors import DataError
from maebench.report.data import CLASSES, class_table, drawn, lines, summary


def called(capsys, *arguments):
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:  # main() shows its own
        main(["data", "check", *map(str, arguments)])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_a_clean_folder_is_told_in_numbers_and_a_picture(tmp_path, capsys):
    root = clean(tmp_path / "birds")
    code, out, _ = called(capsys, f"folder:{root}", "--results", tmp_path / "results")
    assert code == 0
    assert "8 images; 8x8 to 8x8 pixels, median 8x8; 8 PNG RGB" in out
    assert "brought to 8x8, 3 channel(s), mean " in out
    assert out.endswith("0 errors, 0 warnings, 0 notes\n")
    (picture,) = (tmp_path / "results/pictures").iterdir()
    assert str(picture) in out.replace("\n", "")


@pytest.mark.parametrize(("severity", "code"), [("note", 0), ("warning", 3), ("error", 4)])
def test_the_exit_code_says_how_bad_it_is(tmp_path, capsys, severity, code):
    root = clean(tmp_path / "birds")
    if severity == "note":
        save(root / "train/a/drawn.png", noise(8, 8, 4))
    elif severity == "warning":
        save(root / "train/a/plain.png", np.full((8, 8, 3), 7, "uint8"))
    else:
        save(root / "test/a/again.png", noise(8, 8, 3, seed=5000))
    ended, out, _ = called(capsys, f"folder:{root}", "--out", tmp_path / "sheet.png")
    assert ended == code
    assert f"1 {severity}" in out.splitlines()[-1]
    assert any(line.startswith(severity) for line in out.splitlines())


def test_settings_of_reading_reach_it(tmp_path, capsys):
    root = clean(tmp_path / "birds")
    save(root / "train/a/drawn.png", noise(8, 8, 4))
    arguments = (f"folder:{root}", "--out", tmp_path / "sheet.png", "-o", "data.background=black")
    _, out, _ = called(capsys, *arguments)
    assert "laid over black" in out


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["nothing"], "unknown dataset 'nothing'", 1),
        (["folder:/no/where"], "folder:/no/where does not exist", 1),
        (["digits", "-o", "data.exfi=apply"], "Did you mean 'exif'?", 1),
        (["digits", "-o", "data.levels=5"], "write BLACK,WHITE, such as 0,4095, given 5", 1),
        ([], "DATASET", 2),
        (["digits", "--nothing"], "--nothing", 2),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, words, code):
    ended, out, err = called(capsys, *arguments)
    assert (ended, out) == (code, "")
    assert words in err and "Traceback" not in err


# What is printed and drawn.


def looked(root, **settings):
    config = RunConfig(dataset=f"folder:{root}", image_size=8, on_bad_image="skip", **settings)
    splits = config.splits()
    return check(splits), splits


def test_of_many_classes_the_first_are_shown_and_the_others_counted(tmp_path):
    for name in range(CLASSES + 5):
        for i in range(2):
            save(tmp_path / f"{name:03}/{i}.png", noise(8, 8, seed=10 * name + i))
    found, _ = looked(tmp_path)
    table = class_table(found)
    assert len(table) == CLASSES + 1
    assert table.iloc[-1].tolist() == ["and 5 more classes", 5, 5]
    assert table["train"].sum() == CLASSES + 5


def test_the_picture_has_a_row_of_real_images_per_class(tmp_path):
    """Each class has a colour of its own, which its row alone has."""
    for place, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        for i in range(10):
            pixels = np.full((8, 8, 3), colour, "uint8")
            pixels[0, 0] = i
            save(tmp_path / f"{'abc'[place]}/{i}.png", pixels)
    found, _ = looked(tmp_path)
    picture = np.array(drawn(found)).astype(int)
    rows = [np.flatnonzero((picture == c).all(2).any(1)) for c in np.eye(3, dtype=int) * 255]
    assert all(len(row) for row in rows)
    assert rows[0].max() < rows[1].min() and rows[1].max() < rows[2].min()


def test_the_picture_is_the_same_each_time(tmp_path):
    root = clean(tmp_path)
    first, second = (np.array(drawn(looked(root)[0])) for _ in range(2))
    assert np.array_equal(first, second)


def test_images_without_labels_have_a_picture(tmp_path):
    for i in range(30):
        save(tmp_path / f"{i}.png", noise(8, 8, seed=i))
    found, splits = looked(tmp_path)
    assert isinstance(drawn(found), Image.Image)
    assert any("there are no labels" in line for line in lines(found, splits))


def test_label_maps_are_counted_with_their_classes_and_a_wrong_one_is_named(tmp_path):
    for split, count in (("train", 6), ("test", 3)):
        for i in range(count):
            save(tmp_path / split / f"{i}.png", noise(8, 8, seed=i))
            save(tmp_path / "masks" / split / f"{i}.png", noise(8, 8, seed=i) % 3 + 1)
    found, splits = looked(tmp_path)
    said = list(lines(found, splits))
    assert "maps      train 6 label maps; classes 1, 2, 3" in said
    assert "maps      test 3 label maps; classes 1, 2, 3" in said
    assert "label maps, no labels" in next(summary(splits))
    save(tmp_path / "masks" / "test" / "1.png", noise(9, 8))
    with pytest.raises(DataError, match=r"test/1\.png has 9x8 pixels, its image 1\.png 8x8"):
        list(lines(*looked(tmp_path)))


def test_a_runs_first_lines_are_its_datas_summary(tmp_path):
    root = clean(tmp_path / "birds")
    save(root / "train/a/drawn.png", noise(8, 8, 4))
    _, splits = looked(root)
    first, second = summary(splits)
    assert first == "folder:birds: train 9, test 4 images; 2 classes of 4 to 5 train images"
    assert second.startswith("  train: transparent pixels of 1 of 9 images laid over white; -o ")


@pytest.mark.parametrize("own", [{"augment": {"flip": False}}, {"machine": {"memory_gb": 0}}])
def test_an_evaluation_that_reads_files_as_the_run_did_has_its_images(tmp_path, own):
    """The same copies are left out of train, and the same bytes stand for the files."""
    root = clean(tmp_path / "images")
    with Image.open(root / "train/a/0.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "test/a/mirrored.png")
    reading = {"on_duplicates": "drop"}
    run = tiny.plan(tmp_path, dataset=f"folder:{root}", limit=None, data=reading, **own).run
    splits = other_splits(tiny.load(tmp_path), {"data": reading}, tiny.names())
    assert splits.load("train").info.fingerprint == run.facts["fingerprint"]
