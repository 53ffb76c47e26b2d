"""What maebench wrote beside a user's images is no class of theirs."""

import pytest
from PIL import Image

from maebench.data import Folder
from maebench.data.layout import read_layout
from maebench.data.own_results import is_results
from maebench.data.tree import holds_image
from maebench.errors import DataError


def images(folder, count=2):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / f"{i}.png")
    return folder


def results(folder):
    """What `run`, `eval`, `compare` and `data check` leave behind."""
    for run in ("folder-mae-1", "folder-mae-2"):
        images(folder / "runs" / run / "pictures")
        (folder / "runs" / run / "config.json").write_text("{}")
    images(folder / "models" / "untrained" / "pictures")
    (folder / "models" / "untrained" / "records").mkdir()
    images(folder / "comparisons" / "first")
    (folder / "comparisons" / "first" / "comparison.json").write_text("{}")
    Image.new("RGB", (4, 4)).save(images(folder / "pictures", 0) / "data-folder-0123abcd.png")
    for kind in ("png", "csv"):
        images(folder / "masks", 1).joinpath("0.png").rename(
            folder / "masks" / f"digits-vit-nano-0123abcd45.{kind}"
        )
    return folder


def classes(root):
    layout = read_layout(root)
    return layout.class_names, {remark.what: str(remark) for remark in layout.remarks}


def test_results_below_a_data_set_are_no_class_and_this_is_remarked(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / name)
    before = classes(tmp_path)
    assert before == (("cat", "dog"), {})
    results(tmp_path / "results")
    after = classes(tmp_path)
    said = "1 folder of maebench's results was left out: results"
    assert after == (("cat", "dog"), {"own results": said})


def test_results_in_the_data_sets_own_folder_are_no_classes(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / name)
    results(tmp_path)
    found, said = classes(tmp_path)
    assert found == ("cat", "dog")
    assert said["own results"].startswith("5 folders of maebench's results were left out: compar")


def test_results_beside_splits_are_no_split_and_do_not_make_one_unclear(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        images(tmp_path / name)
    results(tmp_path / "results")
    assert classes(tmp_path) == (("cat", "dog"), {})


@pytest.mark.parametrize("there", ["results/runs", "runs", "results/pictures", "runs/new"])
def test_results_that_are_only_begun_are_no_class(tmp_path, there):
    for name in ("cat", "dog"):
        images(tmp_path / name)
    (tmp_path / there).mkdir(parents=True)
    if there == "runs/new":
        (tmp_path / there / "lock").touch()
    assert classes(tmp_path)[0] == ("cat", "dog")


def test_a_folder_of_results_alone_holds_no_image(tmp_path):
    results(tmp_path / "results")
    assert not holds_image(tmp_path / "results")
    with pytest.raises(DataError, match="holds no image"):
        read_layout(tmp_path)


@pytest.mark.parametrize("name", ["runs", "models", "pictures", "comparisons", "masks", "results"])
def test_a_class_of_such_a_name_stays_a_class(tmp_path, name):
    images(tmp_path / name)
    images(tmp_path / name / "series")
    images(tmp_path / "other")
    assert set(classes(tmp_path)[0]) == {name, "other"}


def test_classes_of_all_such_names_stay_classes(tmp_path):
    for name in ("runs", "models", "pictures"):
        images(tmp_path / name)
    assert not is_results(tmp_path, ["runs", "models", "pictures"])
    assert classes(tmp_path)[0] == ("models", "pictures", "runs")


def test_the_content_is_the_same_after_a_run_beside_it(tmp_path):
    from maebench.data import Request

    for name in ("cat", "dog"):
        images(tmp_path / name, 5)
    before = [Folder(path=tmp_path).load(Request(s)).info.fingerprint for s in ("train", "test")]
    results(tmp_path / "results")
    after = [Folder(path=tmp_path).load(Request(s)).info.fingerprint for s in ("train", "test")]
    assert before == after
