"""How an image file becomes pixels, whatever it holds; what cannot be read is named in one line."""

import io
import itertools
import struct
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from maebench.data import decode
from maebench.data.decode import Decoding, fit, read_header, read_image, to_tensor
from maebench.data.reading import Reading
from maebench.errors import DataError


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def read(path, channels=3, **how):
    """The pixels, (H, W) or (H, W, 3)."""
    return np.array(read_image(path, Decoding(channels, **how))[0])


def traits(path, **how):
    return read_image(path, Decoding(3, **how))[1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_brought_to_gray_or_colour(tmp_path, mode, channels):
    picture = Image.fromarray(noise(5, 7, 3)).convert(mode)
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "HSV") else ".png"
    path = tmp_path / f"image{suffix}"
    if mode == "HSV":  # no format holds it
        picture = picture.convert("RGB")
    picture.save(path)
    image, _ = read_image(path, Decoding(channels, background="black"))
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
        assert np.array_equal(read(tmp_path / name, 1), wanted), name
        assert np.array_equal(read(tmp_path / name)[..., 2], wanted), name
    (tmp_path / "image.pgm").write_bytes(b"P5 8 5 65535\n" + levels.astype(">u2").tobytes())
    assert np.array_equal(read(tmp_path / "image.pgm", 1), wanted)


def test_one_bit_is_black_and_white(tmp_path):
    bits = noise(6, 6) > 127
    Image.fromarray(bits).save(tmp_path / "image.png")
    assert np.array_equal(read(tmp_path / "image.png", 1), bits * np.uint8(255))


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
        read(path)
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
                assert read(path).shape[2] == 3
            except DataError as error:
                assert "\n" not in str(error)


# Transparent pixels.


def test_transparent_pixels_are_laid_over_the_background(tmp_path):
    """Pictures drawn in alpha alone are all the same where alpha is dropped."""
    shape = noise(6, 6)
    drawn = np.concatenate([np.zeros((6, 6, 3), "uint8"), shape[..., None]], -1)
    Image.fromarray(drawn).save(tmp_path / "image.png")
    assert np.abs(read(tmp_path / "image.png", 1).astype(int) - (255 - shape)).max() <= 1
    assert (read(tmp_path / "image.png", 3, background="black") == 0).all()
    red = read(tmp_path / "image.png", 3, background="#ff0000")
    assert np.abs(red[..., 0].astype(int) - (255 - shape)).max() <= 1 and not red[..., 1:].any()
    assert "alpha" in traits(tmp_path / "image.png")


def test_alpha_that_is_opaque_everywhere_loses_nothing_and_is_not_told(tmp_path):
    colours = noise(6, 6, 3)
    Image.fromarray(np.concatenate([colours, np.full((6, 6, 1), 255, "uint8")], -1)).save(
        tmp_path / "image.png"
    )
    assert np.array_equal(read(tmp_path / "image.png"), colours)
    assert traits(tmp_path / "image.png") == {"colour"}


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "LA", "1"])
def test_every_kind_of_transparency_is_seen(tmp_path, mode):
    picture = Image.new("L", (4, 4), 0)
    picture.putpixel((0, 0), 200)
    whole = picture.convert(mode if mode != "P" else "RGB")
    if mode == "P":
        whole = whole.quantize(2)
        key = whole.getpixel((0, 0))
    elif mode == "LA":
        whole.putpixel((0, 0), (200, 0))
    else:
        key = whole.getpixel((0, 0))
    whole.save(tmp_path / "image.png", **({} if mode == "LA" else {"transparency": key}))
    found = read(tmp_path / "image.png", 1)
    assert found[0, 0] == 255 and found[1, 1] == 0
    assert "alpha" in traits(tmp_path / "image.png")


# More than 8 bits.


def test_levels_go_from_black_to_white_and_what_is_cut_off_is_told(tmp_path):
    levels = np.array([[-1000, 0], [200, 4000]], "int32")
    Image.fromarray(levels).save(tmp_path / "image.tif")
    how = {"levels": (-1000.0, 1000.0), "stated": True}
    assert read(tmp_path / "image.tif", 1, **how).tolist() == [[0, 128], [153, 255]]
    assert traits(tmp_path / "image.tif", **how) == {"gray", "deep", "outside"}


def test_levels_that_others_of_the_set_do_not_explain_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 5000]], "uint16")).save(tmp_path / "image.png")
    with pytest.raises(DataError, match=r"to 5000, .* above 4095: .* -o data\.levels=BLACK,WHITE"):
        read(tmp_path / "image.png", 1, levels=(0.0, 4095.0))


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        (np.array([[0, 4095]], "uint16"), [0, 255]),
        (np.array([[100, 255]], "int32"), [100, 255]),
        (np.array([[0, 1023]], "int32"), [0, 255]),
        (np.array([[0.0, 1.0]], "float32"), [0, 255]),
        (np.array([[0.0, 255.0]], "float32"), [0, 255]),
    ],
)
def test_white_is_of_the_fewest_bits_that_hold_the_levels(tmp_path, levels, wanted):
    Image.fromarray(levels).save(tmp_path / "image.tif")
    assert read(tmp_path / "image.tif", 1)[0].tolist() == wanted


@pytest.mark.parametrize("levels", [[-1, 3], [0, 70_000], [0, float("nan")]])
def test_numbers_whose_white_is_unknown_are_refused(tmp_path, levels):
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([levels, levels], "float32")).save(path)
    with pytest.raises(DataError, match="wanted 0 to 65535") as caught:
        read(path, 1)
    assert str(path) in str(caught.value)


def png_of_16_bits(levels):
    """A PNG of 16 bits a channel, which PIL cannot write in colour."""
    rows, columns, channels = levels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in levels)
    header = struct.pack(">IIBBBBB", columns, rows, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", compress(lines)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_of_16_bits_keep_their_range_too(tmp_path, channels):
    levels = np.random.default_rng(0).integers(0, 4096, (5, 7, channels)).astype("uint16")
    levels[0, 0] = 4095
    if channels in (2, 4):
        levels[..., -1] = 65535
    (tmp_path / "image.png").write_bytes(png_of_16_bits(levels))
    colours = levels[..., : 1 if channels <= 2 else 3]
    wanted = np.floor(colours / 4095 * 255 + 0.5).astype("uint8")
    assert np.array_equal(read(tmp_path / "image.png"), np.broadcast_to(wanted, (5, 7, 3)))
    assert traits(tmp_path / "image.png") == {"deep", "gray" if channels <= 2 else "colour"}
    assert read_header(tmp_path / "image.png").gray == (channels <= 2)


def tiff_of_16_bits(levels):
    """A TIFF of 16 bits a colour, uncompressed."""
    rows, columns, channels = levels.shape
    data = levels.astype("<u2").tobytes()
    end = 8 + 2 + 9 * 12 + 4
    entries = [(256, columns), (257, rows), (258, end), (259, 1), (262, 2), (273, end + 6)]
    entries += [(277, channels), (278, rows), (279, len(data))]
    out = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in entries:
        out += struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value)
    return out + struct.pack("<I", 0) + struct.pack("<3H", 16, 16, 16) + data


def test_colours_of_16_bits_in_a_tiff_keep_their_range(tmp_path):
    levels = np.random.default_rng(0).integers(0, 4096, (5, 7, 3)).astype("uint16")
    levels[0, 0] = 4095
    (tmp_path / "image.tif").write_bytes(tiff_of_16_bits(levels))
    wanted = np.floor(levels / 4095 * 255 + 0.5).astype("uint8")
    assert np.array_equal(read(tmp_path / "image.tif"), wanted)
    assert traits(tmp_path / "image.tif") == {"colour", "deep"}


def test_levels_of_which_the_upper_byte_is_read_are_told_and_refused_where_it_is_dark(tmp_path):
    path = tmp_path / "image.png"
    levels = np.full((2, 2, 2), 65535, "uint16")
    levels[..., 0] = 0x8040
    path.write_bytes(png_of_16_bits(levels))
    assert (read(path) == 0x80).all() and traits(path) == {"gray", "deep", "upper byte"}
    levels[..., 0] = 4095
    path.write_bytes(png_of_16_bits(levels))
    with pytest.raises(DataError, match="12 bits or fewer in 16"):
        read(path)


# EXIF, frames, headers.


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(tmp_path, kind, orientation):
    picture = Image.fromarray(np.kron(noise(2, 3, 3), np.ones((8, 8, 1), "uint8")))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{kind}"
    picture.save(path, exif=exif, **({"lossless": True} if kind == "webp" else {"quality": 95}))
    with Image.open(path) as opened:
        wanted = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
        plain = np.array(opened.convert("RGB"))
    assert np.array_equal(read(path), wanted)
    assert np.array_equal(read(path, exif=False), plain)
    assert ("orientation" in traits(path)) == (orientation > 1)
    assert read_header(path)[:2] == wanted.shape[:2]
    assert read_header(path, exif=False)[:2] == plain.shape[:2]


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Camera"
    return exif.tobytes()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as at the command line
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_costs_no_image_and_is_told(tmp_path, kind):
    """A share of photographs has it, and other loaders stop at them."""
    picture, random = Image.fromarray(noise(4, 6, 3)), np.random.default_rng(0)
    picture.save(tmp_path / "plain", kind, lossless=True)
    plain, path = read(tmp_path / "plain"), tmp_path / "image"
    said = set()
    for _ in range(300):
        data = bytearray(exif_of(1))
        for place in random.integers(6, len(data), 3):
            data[place] = random.integers(256)
        picture.save(path, kind, lossless=True, exif=bytes(data[: random.integers(8, 99)]))
        seen = traits(path) - {"colour"}
        assert seen <= {"damaged EXIF", "orientation"} and seen == read_header(path).traits - {
            "colour"
        }
        if "orientation" not in seen:
            assert np.array_equal(read(path), plain)
        said |= seen
    assert "damaged EXIF" in said
    picture.save(path, kind, lossless=True, exif=b"Exif\0\0no TIFF at all")
    assert traits(path) == {"colour", "damaged EXIF"} and np.array_equal(read(path), plain)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_the_orientation_counts_although_the_rest_of_the_exif_data_is_damaged(tmp_path):
    data = bytearray(exif_of(6))
    data[-4:] = b""  # of the text that another tag points to
    path = tmp_path / "image.png"
    Image.fromarray(noise(4, 6, 3)).save(path, exif=bytes(data))
    assert np.array_equal(read(path), np.rot90(noise(4, 6, 3), -1))
    assert "orientation" in traits(path)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_told_and_the_first_is_taken(tmp_path, kind):
    first, second = (Image.fromarray(np.full((4, 4, 3), level, "uint8")) for level in (0, 255))
    first.save(tmp_path / "image", kind, save_all=True, append_images=[second])
    assert read(tmp_path / "image").max() == 0
    assert "frames" in traits(tmp_path / "image")


def test_a_header_gives_size_and_grayness(tmp_path):
    for mode, gray in {"1": True, "L": True, "LA": True, "P": False, "RGB": False}.items():
        Image.new(mode, (7, 5)).save(tmp_path / "image.png")
        assert read_header(tmp_path / "image.png")[:3] == (5, 7, gray)
    Image.fromarray(np.zeros((5, 7), "uint16")).save(tmp_path / "image.png")
    assert read_header(tmp_path / "image.png")[:3] == (5, 7, True)


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


def test_jpeg_pixels_do_not_depend_on_what_decodes_them(tmp_path, monkeypatch):
    pytest.importorskip("simplejpeg", reason="the extra fast")
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    picture = rough.resize((121, 83), Image.Resampling.BICUBIC)
    ways = {"a": {}, "b": {"progressive": True}, "c": {"subsampling": 0, "quality": 30}}
    for name, way in ways.items():
        picture.save(tmp_path / f"{name}.jpg", **way)
        picture.convert("L").save(tmp_path / f"{name}-gray.jpg", **way)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    for path in tmp_path.glob("*.jpg"):
        for channels in (1, 3):
            how = decode.Decoding(channels)
            fast = decode.read_pixels(path, how)
            with monkeypatch.context() as patched:
                patched.setattr(decode, "_simplejpeg", lambda: None)
                plain = decode.read_pixels(path, how)
            assert fast[1] == plain[1] and (fast[0] == plain[0]).all(), path


def test_a_jpeg_that_simplejpeg_refuses_is_read_or_refused_by_pillow(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    picture.save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg.*truncated"):
        decode.read_pixels(tmp_path / "cut.jpg", Decoding(3))
    # a restart marker nobody asked for: PIL goes on over it
    (tmp_path / "odd.jpg").write_bytes(data[:-2] + b"\x00\x00\xff\xd9")
    wanted = np.array(read_image(tmp_path / "odd.jpg", Decoding(3))[0])
    pixels, _ = decode.read_pixels(tmp_path / "odd.jpg", Decoding(3))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted)


def photograph(height, width):
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return rough.resize((width, height), Image.Resampling.BICUBIC)


def test_a_large_jpeg_is_decoded_at_a_reduced_size_where_twice_the_image_size_is_left(tmp_path):
    # twice 8 is 16: eight times that is the first side that an eighth is enough of
    cases = {(128, 200): (16, 25), (124, 200): (31, 50), (302, 62): (151, 31), (31, 99): (31, 99)}
    how = Decoding.of(Reading(reduced_jpeg=True), 3, None, (8, 8))
    for size, wanted in cases.items():
        photograph(*size).save(tmp_path / "a.jpg", quality=95)
        photograph(*size).save(tmp_path / "a.png")
        whole, _ = decode.read_pixels(tmp_path / "a.jpg", Decoding(3))
        reduced, traits = decode.read_pixels(tmp_path / "a.jpg", how)
        assert reduced.shape == (3, *wanted) and traits == {"colour"}
        other, _ = decode.read_pixels(tmp_path / "a.png", how)
        assert other.shape == (3, *size), "only JPEG files can be decoded so"
        resized = torch.nn.functional.interpolate(whole[None].double(), wanted, mode="area")[0]
        assert (reduced - resized).abs().mean() < 2, "the same picture, smaller"


def test_pixels_of_a_reduced_jpeg_do_not_depend_on_what_decodes_them(tmp_path, monkeypatch):
    pytest.importorskip("simplejpeg", reason="the extra fast")
    ways = {"a": {}, "b": {"progressive": True}, "c": {"subsampling": 0}, "d": {"subsampling": 1}}
    for name, way in ways.items():
        photograph(275, 333).save(tmp_path / f"{name}.jpg", **way)
        photograph(275, 333).convert("L").save(tmp_path / f"{name}-gray.jpg", **way)
    for path in tmp_path.glob("*.jpg"):
        for channels, side in itertools.product((1, 3), (8, 16, 32, 64, 128)):
            how = Decoding.of(Reading(reduced_jpeg=True), channels, None, (side, side))
            fast, _ = decode.read_pixels(path, how)
            with monkeypatch.context() as patched:
                patched.setattr(decode, "_simplejpeg", lambda: None)
                plain, _ = decode.read_pixels(path, how)
            assert torch.equal(fast, plain), (path.name, channels, side)


def test_a_turned_jpeg_is_reduced_and_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(64, 128).save(tmp_path / "turned.jpg", exif=exif)
    how = Decoding.of(Reading(reduced_jpeg=True), 3, None, (8, 8))
    pixels, traits = decode.read_pixels(tmp_path / "turned.jpg", how)
    assert pixels.shape == (3, 32, 16) and "orientation" in traits


def test_what_stands_for_the_way_of_decoding_is_as_ever_where_nothing_is_reduced():
    way = "channels=3, levels=None, stated=False, exif=True, background='white'"
    assert Decoding.of(Reading(), 3, None, (8, 8)).mark == f"Decoding({way})"
    marks = {Decoding.of(Reading(reduced_jpeg=True), 3, None, (n, 8)).mark for n in (8, 9)}
    assert len(marks) == 2, "what is left depends on the image size"
