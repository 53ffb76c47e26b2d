"""Images whose ICC profile says other colours than their numbers are counted and said."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from maebench.data import Folder, Request
from maebench.data.decode import Decoding, read_header, read_image
from maebench.data.profile import is_other

# Red, green and blue of colour spaces, in XYZ under D50 (ICC.1:2022).
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))


def fixed(*numbers):
    return b"".join(struct.pack(">i", round(65536 * number)) for number in numbers)


def profile(primaries, gamma=2.2, colours=b"RGB "):
    """An ICC profile of three primaries, or of gray, and one exponent."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0\0\0\0\2x\0" + bytes(78) + b"\0\0",
        b"cprt": b"text\0\0\0\0CC0\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249),
    }
    for letter, primary in zip("rgb", primaries, strict=False):
        tags[f"{letter}XYZ".encode()] = b"XYZ \0\0\0\0" + fixed(*primary)
        tags[f"{letter}TRC".encode()] = curve
    if colours == b"GRAY":
        tags[b"kTRC"] = curve
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I", start + len(body)) + b"\0\0\0\0\2\x10\0\0mntr" + colours + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def built_in(name):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


@pytest.mark.parametrize(
    ("given", "other"),
    [
        (None, False),
        (b"", False),
        (b"no profile at all", False),
        (built_in("sRGB"), False),
        (profile(SRGB), False),
        (profile((), colours=b"GRAY"), False),
        (profile(ADOBE, 2.19921875), True),
        (profile(P3), True),
        (profile(SRGB, 1.0), True),
        (profile((), 1.0, b"GRAY"), True),
    ],
)
def test_a_profile_counts_where_it_makes_other_colours(given, other):
    assert is_other(given) == other


def test_damaged_profiles_are_no_other_colours():
    whole, random = profile(ADOBE), np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 8):
            data[place] = random.integers(256)
        is_other(bytes(data[: random.integers(1, len(data) + 1)]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_with_another_profile_are_told_and_left_as_they_are(tmp_path, kind):
    picture = Image.effect_noise((8, 8), 90).convert("RGB")
    path = tmp_path / "image"
    for given, wanted in ((profile(P3), {"profile"}), (built_in("sRGB"), set())):
        buffer = io.BytesIO()
        picture.save(buffer, kind, icc_profile=given)
        path.write_bytes(buffer.getvalue())
        image, traits = read_image(path, Decoding(3))
        assert traits & {"profile"} == read_header(path).traits & {"profile"} == wanted
        picture.save(tmp_path / "plain", kind)
        assert np.array_equal(image, read_image(tmp_path / "plain", Decoding(3))[0])


def test_a_data_set_says_how_many_have_another_profile(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            picture = Image.effect_noise((8, 8), 90).convert("RGB")
            icc = profile(ADOBE) if name == "a" else built_in("sRGB")
            picture.save(tmp_path / name / f"{i}.png", icc_profile=icc)
    info = Folder(path=tmp_path).load(Request("train")).info
    said = "the colour profile of 4 of 8 images is not sRGB and was not applied"
    assert [str(remark) for remark in info.remarks] == [said]
