import json

import pytest
from test_data_text import documents, numbers_in

from maebench import DataError, MaebenchError, Request, RunConfig, TextFiles

HOW = {"length": 6, "vocabulary": 300}


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_txt", ".txt").replace("_jsonl", ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def load(path, split="train", on_bad="fail"):
    return TextFiles(path=path, **HOW).load(Request(split, on_bad_image=on_bad))


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows)


def folders(root, count=8):
    for name, first in (("cats", 0), ("dogs", 100)):
        for i, text in enumerate(documents(first, count)):
            write(root / name, **{f"{i}_txt": text})
    return root


def test_class_folders_are_the_labels(tmp_path):
    rows = load(folders(tmp_path))
    assert rows.info.class_names == ("cats", "dogs")
    assert not numbers_in(rows) & numbers_in(load(tmp_path, "test"))


def test_lines_of_jsonl_have_labels_or_none(tmp_path):
    some = [{"text": t, "label": i % 2} for i, t in enumerate(documents(0, 40))]
    write(tmp_path, all_jsonl=lines(some))
    assert load(tmp_path / "all.jsonl").info.class_names == ("0", "1")
    plain = write(tmp_path / "plain", a_jsonl=lines([{"text": t} for t in documents(0, 20)]))
    assert load(plain).info.labels is None
    mixed = write(tmp_path / "mixed", a_jsonl=lines([*some[:5], {"text": "none"}]))
    with pytest.raises(DataError, match="1 of 6 documents of .* have no label: give all of them"):
        load(mixed)


def test_files_alone_have_no_labels_and_one_file_is_divided_too(tmp_path):
    for i, text in enumerate(documents(0, 20)):
        write(tmp_path / "many", **{f"{i}_txt": text})
    assert load(tmp_path / "many").info.labels is None
    write(tmp_path, one_txt="\n\n".join(documents(0, 30)))
    train, test = (load(tmp_path / "one.txt", split) for split in ("train", "test"))
    assert not numbers_in(train) & numbers_in(test)


def test_train_and_test_are_taken_by_their_names(tmp_path):
    folders(tmp_path / "train")
    write(tmp_path / "test" / "cats", a_txt="\n".join(documents(500, 6)))
    write(tmp_path / "test" / "dogs", a_txt="\n".join(documents(600, 6)))
    assert all(600 <= int(number) < 800 for number in numbers_in(load(tmp_path, "test")))
    whole = write(
        tmp_path / "files",
        train_txt="\n\n".join(documents(0, 20)),
        test_txt="\n\n".join(documents(800, 6)),
    )
    assert all(900 <= int(number) for number in numbers_in(load(whole, "test")))
    (tmp_path / "files" / "test.txt").unlink()
    with pytest.raises(DataError, match="has train and no test: give both"):
        load(whole)


def test_what_lies_beside_train_and_test_is_said_and_two_of_one_name_are_refused(tmp_path):
    for split, first in (("train", 0), ("test", 500)):
        write(tmp_path / split, a_txt="\n".join(documents(first, 20)))
    write(tmp_path / "validation", a_txt="\n".join(documents(800, 20)))
    write(tmp_path, notes_txt="not read")
    (remark,) = [r for r in load(tmp_path).info.remarks if r.what == "beside the splits"]
    assert remark.text == "2 files or folders beside train and test were left out"
    assert remark.examples == ("notes.txt", "validation")
    write(tmp_path, train_txt="\n\n".join(documents(0, 20)))
    with pytest.raises(DataError, match="has train, train.txt: train is one of them$"):
        load(tmp_path)


def test_what_is_no_utf8_or_empty_is_named_and_counted(tmp_path):
    folders(tmp_path)
    (tmp_path / "cats" / "latin.txt").write_bytes("caf\u00e9 alpha".encode("latin-1"))
    write(tmp_path / "dogs", empty_txt="  \n", broken_jsonl='{"text": 3}\nno json')
    with pytest.raises(DataError) as told:
        load(tmp_path)
    assert str(told.value) == (
        "dataset text: cats/latin.txt is no UTF-8 at byte 3 (and 3 more documents like it); "
        "--on-bad-image skip leaves such out and counts them"
    )
    rows = load(tmp_path, on_bad="skip")
    (remark,) = [r for r in rows.info.remarks if r.what == "unreadable"]
    assert remark.count == 4
    assert remark.text == "4 documents are empty or cannot be read, and were left out"
    assert remark.examples == (
        "cats/latin.txt is no UTF-8 at byte 3",
        'dogs/broken.jsonl:1 is no {"text": ..., "label": ...}',
        'dogs/broken.jsonl:2 is no {"text": ..., "label": ...}',
        "dogs/empty.txt is empty",
    )
    assert set(rows.info.skipped) >= {"cats/latin.txt", "dogs/empty.txt"}


def test_other_files_are_left_out_and_counted(tmp_path):
    folders(tmp_path)
    write(tmp_path, **{"cats__notes.pdf": "x", "cats__.hidden_txt": "y", "readme.md": "z"})
    (remark,) = [r for r in load(tmp_path).info.remarks if r.what == "other files"]
    assert remark.count == 2
    assert remark.text == "2 files that are no .txt or .jsonl were left out (1 .md, 1 .pdf)"


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"dataset text: .*nowhere is no file and no folder$"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no document: .txt and .jsonl files are read$"):
        load(tmp_path)
    folders(tmp_path)
    write(tmp_path, beside_txt="alpha")
    with pytest.raises(DataError, match="has class folders, and beside them files: beside.txt$"):
        load(tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "\n\n".join(documents(0, 20)).encode())
    assert "\ufeff" not in load(tmp_path / "a.txt").info.kept["tokenizer.json"]


def test_it_is_named_by_its_path_on_the_command_line(tmp_path):
    config = RunConfig(dataset=f"text:{folders(tmp_path)}")
    assert config.dataset.path == tmp_path and config.dataset.title == f"text:{tmp_path.name}"
    assert config.encoder.name == "text-nano" and config.objective.name == "bert"
    assert TextFiles(path=tmp_path).read_from(Request("train")) == (tmp_path,)


def test_a_file_too_large_for_memory_is_not_read(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(
        MaebenchError, match="dataset text: a.txt take up to 16,384.0 GiB of memory"
    ):
        load(tmp_path)


def test_a_line_of_brackets_within_each_other_is_a_bad_document(tmp_path):
    write(tmp_path, a_jsonl="[" * 100_000)
    with pytest.raises(DataError, match=r"a\.jsonl:1 is no"):
        load(tmp_path)
