"""How an image file becomes pixels, whatever it holds; what cannot be read is named in one line."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from maebench.data.decode import fit, read_header, read_image, to_tensor
from maebench.errors import DataError


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_brought_to_gray_or_colour(tmp_path, mode, channels):
    picture = Image.fromarray(noise(5, 7, 3)).convert(mode)
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "HSV") else ".png"
    path = tmp_path / f"image{suffix}"
    if mode == "HSV":  # no format holds it
        picture = picture.convert("RGB")
    picture.save(path)
    image = read_image(path, channels)
    assert image.mode == ("L" if channels == 1 else "RGB")
    pixels = to_tensor(image)
    assert pixels.shape == (channels, 5, 7) and pixels.dtype == torch.uint8
    wanted = np.array(picture.convert("RGB").convert(image.mode), dtype=float)
    assert np.abs(np.array(image, dtype=float) - wanted).max() <= 2


def test_sixteen_bits_of_gray_keep_their_range(tmp_path):
    levels = np.linspace(0, 65535, 40).astype("uint16").reshape(5, 8)
    wanted = np.rint(levels / 257).astype("uint8")
    for name in ("image.png", "image.tif"):
        Image.fromarray(levels).save(tmp_path / name)
        assert np.array_equal(np.array(read_image(tmp_path / name, 1)), wanted), name
        assert np.array_equal(np.array(read_image(tmp_path / name, 3))[..., 2], wanted), name
    (tmp_path / "image.pgm").write_bytes(b"P5 8 5 65535\n" + levels.astype(">u2").tobytes())
    assert np.array_equal(np.array(read_image(tmp_path / "image.pgm", 1)), wanted)


def test_one_bit_is_black_and_white(tmp_path):
    bits = noise(6, 6) > 127
    Image.fromarray(bits).save(tmp_path / "image.png")
    assert np.array_equal(np.array(read_image(tmp_path / "image.png", 1)), bits * np.uint8(255))


def test_a_palette_with_transparent_colours_keeps_its_colours_without_a_warning(tmp_path):
    picture = Image.fromarray(noise(6, 6, 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(tmp_path / "image.png", transparency=bytes([0, 128] * 10))
    wanted = np.array(picture.convert("RGB"))
    assert np.array_equal(np.array(read_image(tmp_path / "image.png", 3)), wanted)


@pytest.mark.parametrize("levels", [np.ones((3, 3), "float32"), np.full((3, 3), 70_000, "int32")])
def test_numbers_whose_white_is_unknown_are_refused(tmp_path, levels):
    path = tmp_path / "image.tif"
    Image.fromarray(levels).save(path)
    with pytest.raises(DataError, match="wanted 8 or 16 bits of gray") as caught:
        read_image(path, 1)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image", "cut off", "missing", "folder"])
def test_a_file_that_is_no_image_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "image.jpg"
    if content == "cut off":
        buffer = io.BytesIO()
        Image.fromarray(noise(40, 40, 3)).save(buffer, "JPEG")
        content = buffer.getvalue()[:700]
    if content == "folder":
        path.mkdir()
    elif content != "missing":
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path, 3)
    message = str(caught.value)
    assert message.count(str(path)) == 1 and "\n" not in message
    assert "--on-bad-image skip" in message


def test_damaged_bytes_are_always_a_data_error(tmp_path):
    random = np.random.default_rng(0)
    picture = Image.fromarray(noise(12, 12, 3))
    path = tmp_path / "image"
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(256)
            path.write_bytes(data[: random.integers(1, len(data) + 1)])
            try:
                assert read_image(path, 3).mode == "RGB"
            except DataError as error:
                assert "\n" not in str(error)


def test_a_header_gives_size_and_grayness(tmp_path):
    for mode, gray in {"1": True, "L": True, "LA": True, "P": False, "RGB": False}.items():
        Image.new(mode, (7, 5)).save(tmp_path / "image.png")
        assert read_header(tmp_path / "image.png") == (5, 7, gray)
    Image.fromarray(np.zeros((5, 7), "uint16")).save(tmp_path / "image.png")
    assert read_header(tmp_path / "image.png") == (5, 7, True)


def test_fit_takes_the_largest_centre_of_the_wanted_shape():
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, 10:30] = 200
    image = Image.fromarray(pixels)
    inner = fit(image, (10, 10))[0, :, 2:-2]  # at the edges the kernel sees the pixels beside
    assert inner.unique().tolist() == [200]
    assert fit(image, (20, 40)).shape == (1, 20, 40)
    assert fit(image.convert("RGB"), (40, 8)).shape == (3, 40, 8)


def test_fit_takes_every_size_to_every_size():
    # 29 / 7 * 7 is more than 29 in floating point
    for width, side in ((29, 7), (58, 7), (123, 7), (450, 7), (1, 49), (3, 5)):
        assert fit(Image.new("L", (width, width)), (side, side)).shape == (1, side, side)
