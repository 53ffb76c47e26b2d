import platform

import pytest

from maebench import KJV, DataError, Fortunes, PyDoc, Request
from maebench.data.corpora import unsquished
from maebench.testing import DatasetContract

COOKIE = "Any sufficiently advanced cookie, number {}, is indistinguishable from a biscuit."


@pytest.mark.slow
class TestContractOfPyDoc(DatasetContract):
    component = PyDoc
    repeated = 0.1  # topics quote each other, beginning alike and going on otherwise


def test_pydoc_is_pythons_own_topics_and_its_fingerprint_holds_the_version(monkeypatch):
    rows = PyDoc().load(Request("train"))
    assert {"assignment", "typesseq", "debugger"} <= set(rows.info.class_names)
    assert rows.info.kept["python.txt"] == platform.python_version()
    monkeypatch.setattr(platform, "python_version", lambda: "3.99")
    assert PyDoc().load(Request("train")).info.fingerprint != rows.info.fingerprint
    (path,) = PyDoc().read_from(Request("train"))
    assert path.name == "topics.py"


def fortunes(folder):
    for name in ("food", "law"):
        text = "\n%\n".join(COOKIE.format(f"{name} {i}") for i in range(30)) + "\n%\n"
        (folder / name).write_text(text, encoding="utf-8")
        (folder / f"{name}.dat").write_bytes(b"\0\1")
    return folder


def test_fortunes_are_divided_at_lines_of_a_per_cent(tmp_path):
    found = Fortunes().read(Request("train", data_dir=fortunes(tmp_path)))
    assert list(found.train) == ["food", "law"] and len(found.train["law"]) == 30
    assert found.train["law"][3] == COOKIE.format("law 3")
    rows = Fortunes(length=16, vocabulary=200).load(Request("train", data_dir=tmp_path))
    assert rows.info.class_names == ("food", "law")


@pytest.mark.parametrize("dataset", [Fortunes(), KJV()])
def test_a_package_that_is_not_installed_is_named(dataset, tmp_path):
    with pytest.raises(DataError, match=f"^dataset {dataset.name}: .*install Debian's package"):
        dataset.load(Request("train", data_dir=tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not Fortunes.place.exists(), reason="Debian's package fortunes is not here")
def test_debians_fortunes_have_some_forty_categories():
    rows = Fortunes().load(Request("test"))
    assert 38 <= len(rows.info.class_names) <= 43 and len(rows) > 2000


@pytest.mark.skipif(not (KJV.place / "bible.data").exists(), reason="bible-kjv-text is not here")
def test_the_bible_has_66_books():
    found = KJV().read(Request("train"))
    assert len(found.train) == 66 and len(found.train["Ge"]) == 50
    assert found.train["Ge"][0].startswith("In the beginning God created the heaven and the earth.")
    assert found.train["Rev"][-1].endswith("be with you all. Amen.")


def squished(blocks, magic=b"EC02"):
    """A file as Debian's package has it: title, size of a block, count, starts, blocks."""
    start = 84 + 4 * (3 + len(blocks))
    starts = [start]
    for block in blocks:
        starts.append(starts[-1] + len(block))
    numbers = [65536, len(blocks), *starts]
    head = magic + b"Compressed Data File".ljust(80, b"\0")
    return head + b"".join(n.to_bytes(4, "big") for n in numbers) + b"".join(blocks)


def test_a_file_that_is_damaged_or_of_another_kind_is_refused_in_one_line(tmp_path):
    path = tmp_path / "bible.data"
    path.write_bytes(squished([b"\0" * 9], magic=b"XXXX"))
    with pytest.raises(DataError, match="is no squished text, as of Debian's bible-kjv-text$"):
        unsquished(path)
    path.write_bytes(squished([b"\xff\xff\xff\xff\xff"]))
    with pytest.raises(DataError, match="cannot be unpacked by gzip: "):
        unsquished(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is no squished text"):
        KJV().load(Request("train", data_dir=tmp_path))
