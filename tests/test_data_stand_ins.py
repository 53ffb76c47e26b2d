"""A file that stands in an image's place is named as what it is, with what to do about it."""

import pytest

from maebench.data.decode import Decoding, read_header, read_image
from maebench.data.layout import read_layout
from maebench.errors import DataError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 34324\n"
PAGE = b"<!DOCTYPE html><html><head><title>Quota\n exceeded</title></head></html>"
KINDS = {
    "it is empty": b"",
    "it holds zeros alone": bytes(300),
    "a Git LFS pointer to 34,324 bytes that were not fetched: git lfs pull": LFS,
    r"an HTML page \('Quota exceeded'\)": PAGE,
    "an XML page": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    r"a drawing \(SVG\)": b"<?xml version='1.0'?>\n<!-- x --><svg xmlns='x'></svg>",
    "a HEIF image: convert it": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "a JPEG XL image": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50),
    "a PDF": b"%PDF-1.7\n",
    "a ZIP archive: unpack it": b"PK\x03\x04" + bytes(50),
    "cannot identify image file": b"something else",
}


@pytest.mark.parametrize("message", KINDS)
def test_a_file_in_an_images_place_is_named_as_what_it_is(tmp_path, message):
    path = tmp_path / "image.jpg"
    path.write_bytes(KINDS[message])
    for read in (lambda: read_image(path, Decoding(3)), lambda: read_header(path)):
        with pytest.raises(DataError, match=rf"image\.jpg: .*{message}") as caught:
            read()
        assert str(caught.value).endswith(". Remove it, or use --on-bad-image skip")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["data.zip", "deep/data.tar.gz", "IMAGES.TGZ"])
def test_a_data_set_that_nobody_unpacked_is_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=f"{name} may hold them: unpack it first"):
        read_layout(tmp_path)
    with pytest.raises(DataError, match="is a file, no folder: unpack it first"):
        read_layout(tmp_path / name)
