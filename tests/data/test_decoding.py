"""Every kind of picture file: images as RGB, labels as exact values, faults as one line."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfjax import predict, visualize
from rfjax.data.decoding import (
    ImageError,
    decode_image,
    decode_mask,
    orientation,
    picture_files,
    read_size,
)
from tests.data import files

HEIGHT, WIDTH = 11, 13  # no multiple of 8: rows end inside a byte, passes in single columns
GREY_DEPTHS = (1, 2, 4, 8, 16)
PALETTE_DEPTHS = (1, 2, 4, 8)
LOSSLESS = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}


def values(depth, *, seed=0):
    """All values of so many bits, in any order."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 2**depth, HEIGHT * WIDTH)
    drawn[:2] = 0, 2**depth - 1
    return drawn.reshape(HEIGHT, WIDTH)


def colors(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def grey_of(pixels):
    """The one channel of a picture whose channels agree."""
    assert pixels.dtype == np.uint8 and pixels.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(pixels, pixels[..., :1].repeat(3, -1))
    return pixels[..., 0]


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", GREY_DEPTHS)
def test_grey_labels_are_read_exactly(depth, interlaced):
    label = values(min(depth, 8))
    read = decode_mask(files.png(label, depth, interlaced=interlaced), "x")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", PALETTE_DEPTHS)
def test_palette_labels_are_read_as_indices(depth, interlaced):
    label, palette = values(depth), np.random.default_rng(1).integers(0, 256, (2**depth, 3))
    # The transparency of a few entries changes nothing.
    for transparent in (b"", files.chunk(b"tRNS", b"\x00\x80")):
        written = files.png(label, depth, palette=palette, interlaced=interlaced)
        end = written.index(b"IDAT") - 4
        read = decode_mask(written[:end] + transparent + written[end:], "x")
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize("depth", GREY_DEPTHS)
def test_tiff_labels_are_read_exactly(depth):
    label = values(min(depth, 8))
    np.testing.assert_array_equal(decode_mask(files.tiff(label, depth), "x"), label)


def test_a_palette_tiff_is_read_as_indices():
    label = values(8).astype(np.uint8)
    picture = Image.fromarray(label, "L").convert("P")
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    for compression in (None, "tiff_lzw"):
        written = files.pillow(picture, "TIFF", compression=compression)
        np.testing.assert_array_equal(decode_mask(written, "x"), label)


def test_a_transparent_grey_is_a_value_like_others():
    label = values(8)
    written = files.png(label, 8, between=files.chunk(b"tRNS", b"\0\x07"))
    np.testing.assert_array_equal(decode_mask(written, "x"), label)


def test_what_predict_writes_is_a_label():
    label = values(4)
    written = files.pillow(visualize.palette_image(label, colors()[0]), "PNG")
    np.testing.assert_array_equal(decode_mask(written, "x"), label)


def test_labels_outside_0_to_255_are_named():
    label = values(8)
    label[3, 4], label[0, 5] = 300, 65535
    with pytest.raises(ValueError, match=r"label\.png has label values \[300, 65535\]; .* 255"):
        decode_mask(files.png(label, 16), "label.png")
    signed = np.array([[-1, 3], [0, 255]], np.int32)
    with pytest.raises(ValueError, match=r"x has label values \[-1\]"):
        decode_mask(files.pillow(signed, "TIFF"), "x")
    np.testing.assert_array_equal(decode_mask(files.pillow(abs(signed), "TIFF"), "x"), abs(signed))


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (files.pillow(colors(), "PNG"), "PNG file of mode RGB"),
        (files.pillow(Image.fromarray(colors()).convert("LA"), "PNG"), "PNG file of mode LA"),
        (files.pillow(colors()[..., 0], "JPEG"), "JPEG file of mode L"),  # which blurs classes
        (files.pillow(colors()[..., 0], "TIFF", compression="jpeg"), "TIFF file of mode L"),
        (files.tiff(values(8), 8, photometric=0), "TIFF file of mode L"),  # where 0 is white
    ],
)
def test_pictures_that_cannot_be_labels(written, kind):
    with pytest.raises(ValueError, match=f"x is a {kind}; labels are single-channel PNG or TIFF"):
        decode_mask(written, "x")


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", GREY_DEPTHS)
def test_grey_images_fill_their_range(depth, interlaced):
    image = values(depth)
    read = grey_of(decode_image(files.png(image, depth, interlaced=interlaced), "x"))
    np.testing.assert_array_equal(read, np.rint(image / (2**depth - 1) * 255))
    if not interlaced:
        read = grey_of(decode_image(files.tiff(image, depth), "x"))
        np.testing.assert_array_equal(read, np.rint(image / (2**depth - 1) * 255))
        inverted = grey_of(decode_image(files.tiff(image, depth, photometric=0), "x"))
        np.testing.assert_array_equal(inverted, 255 - np.rint(image / (2**depth - 1) * 255))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", PALETTE_DEPTHS)
def test_palette_images_have_their_colors(depth, interlaced):
    image, palette = values(depth), np.random.default_rng(1).integers(0, 256, (2**depth, 3))
    written = files.png(image, depth, palette=palette, interlaced=interlaced)
    np.testing.assert_array_equal(decode_image(written, "x"), palette[image])


def test_sixteen_bits_a_channel_are_scaled_by_their_range():
    image = np.stack([values(16, seed=seed) for seed in range(3)], -1)
    expected = np.rint(image / 65535 * 255)
    np.testing.assert_array_equal(decode_image(files.png(image, 16), "x"), expected)
    np.testing.assert_array_equal(decode_image(files.tiff(image, 16, photometric=2), "x"), expected)
    big_endian = files.pillow(image[..., 0].astype(">u2"), "TIFF")
    np.testing.assert_array_equal(grey_of(decode_image(big_endian, "x")), expected[..., 0])
    pgm = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + image[..., 0].astype(">u2").tobytes()
    np.testing.assert_array_equal(grey_of(decode_image(pgm, "x")), expected[..., 0])


def test_transparency_is_dropped():
    image, alpha = colors(), values(8).astype(np.uint8)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        written = files.pillow(np.dstack([image, alpha]), kind, **options)
        np.testing.assert_array_equal(decode_image(written, "x"), image)
    grey = np.dstack([image[..., 0], alpha])
    for kind in ("PNG", "TIFF"):
        read = decode_image(files.pillow(grey, kind), "x")
        np.testing.assert_array_equal(grey_of(read), grey[..., 0])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_four_inks_become_three_colors(kind):
    image = np.kron(colors()[:2, :2], np.ones((16, 16, 1), np.uint8))
    inks = Image.fromarray(image).convert("CMYK")
    read = decode_image(files.pillow(inks, kind, **LOSSLESS.get(kind, {})), "x")
    assert np.abs(read.astype(int) - image).max() <= 2  # JPEG's rounding


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM", "WEBP", "TIFF", "PNG"])
def test_other_formats(kind):
    image = np.kron(colors()[:4, :4], np.ones((8, 8, 1), np.uint8))  # GIF has 256 colors
    read = decode_image(files.pillow(image, kind, **LOSSLESS.get(kind, {})), "x")
    np.testing.assert_array_equal(read, image)
    assert read.flags.writeable and read.flags.c_contiguous


# -- orientation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_come_as_stored(kind, asked, tmp_path):
    image = np.kron(colors()[:4, :3], np.ones((8, 8, 1), np.uint8))
    path = tmp_path / "x"
    path.write_bytes(files.turned(image, kind, asked, **LOSSLESS.get(kind, {})))
    read = decode_image(path.read_bytes(), "x")
    assert read.shape == image.shape == (32, 24, 3)
    assert np.abs(read.astype(int) - image).max() <= 1
    np.testing.assert_array_equal(predict.read_image(path), read)
    assert read_size(path) == (32, 24)
    assert orientation(path) == asked


@pytest.mark.parametrize("asked", range(1, 9))
def test_labels_come_as_stored(asked):
    label = values(8).astype(np.uint8)
    for written in (
        files.turned(label, "PNG", asked),
        files.turned(label, "TIFF", asked),
        files.turned(label.astype(np.uint16), "PNG", asked),
        files.turned(label.astype(np.uint16), "TIFF", asked),
        files.turned(Image.fromarray(label).convert("P"), "PNG", asked),
        files.turned(Image.fromarray(label > 127), "PNG", asked),
    ):
        read = decode_mask(written, "x")
        expected = label > 127 if read.max() == 1 else label
        np.testing.assert_array_equal(read, expected)
    deep = np.stack([values(16, seed=seed) for seed in range(3)], -1).astype(np.uint16)
    read = decode_image(files.turned(deep, "TIFF", asked), "x")
    np.testing.assert_array_equal(read, np.rint(deep / 257))
    read = decode_image(files.turned(deep[..., 0], "TIFF", asked), "x")
    np.testing.assert_array_equal(grey_of(read), np.rint(deep[..., 0] / 257))


def test_metadata_that_cannot_be_read_ask_for_nothing(tmp_path):
    written = files.turned(colors(), "JPEG", 6)
    place = written.index(b"Exif") + 6
    path = tmp_path / "x"
    path.write_bytes(written[:place] + b"\xff" * 8 + written[place + 8 :])
    assert orientation(path) == orientation(tmp_path / "none") == 1
    assert decode_image(path.read_bytes(), "x").shape == (HEIGHT, WIDTH, 3)


# -- faults ----------------------------------------------------------------------------------------


def one_line(written, *, read=decode_image):
    """The message of a file that cannot be read."""
    with pytest.raises(ImageError) as error:
        read(written, "folder/NAME.png")
    message = str(error.value)
    assert message.startswith("folder/NAME.png is not a readable image (")
    assert "\n" not in message and error.value.reason in message
    return message


@pytest.mark.parametrize("read", [decode_image, decode_mask])
def test_cut_off_files_are_refused_wherever_they_end(read):
    for written in (files.png(values(8), 8), files.png(values(2), 2, palette=colors()[0, :4])):
        for length in range(len(written)):
            one_line(written[:length], read=read)
    for compression in (None, "tiff_lzw"):
        written = files.pillow(values(8).astype(np.uint8), "TIFF", compression=compression)
        for length in (2, 8, len(written) - 1) if compression is None else (2, 8):
            one_line(written[:length], read=read)


def test_cut_off_jpegs_are_refused_wherever_they_end(capfd):
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[files.ORIENTATION] = 6
    for options in ({}, {"progressive": True}, {"exif": exif}):
        written = files.pillow(image, "JPEG", **options)
        for length in range(0, len(written), 7):
            one_line(written[:length])
    assert capfd.readouterr().err == ""  # nor does a library print


def test_damaged_pngs_are_refused(capfd):
    written = files.png(values(8), 8)
    last, printed = len(written) - 12, set()  # the last chunk: length 0, kind, checksum
    for place in range(last + 4):
        damaged = bytearray(written)
        damaged[place] ^= 0x40
        for read in (decode_image, decode_mask):
            one_line(bytes(damaged), read=read)
        if capfd.readouterr().err:
            printed.add(place)
    # A library prints a line about a damaged header or last chunk, and about nothing else.
    assert printed <= {*range(8, 33), *range(last, last + 4)}


def test_bytes_behind_the_end_do_no_harm():
    label, image = values(8), colors()
    np.testing.assert_array_equal(decode_mask(files.png(label, 8) + b"more", "x"), label)
    assert decode_image(files.pillow(image, "JPEG") + b"more", "x").shape == image.shape


@pytest.mark.parametrize("read", [decode_image, decode_mask])
def test_decompression_bombs_are_refused(read):
    small = np.zeros((8, 8), int)
    for side in (20_000, 60_000, 2**31 - 1):
        assert "pixels" in one_line(files.png(small, 8, size=(side, side)), read=read)
        assert "pixels" in one_line(
            files.png(small, 1, palette=[[0] * 3] * 2, size=(side, side)), read=read
        )
    jpeg = files.pillow(colors(), "JPEG")
    place = jpeg.index(b"\xff\xc0") + 5  # the frame's height and width
    bomb = jpeg[:place] + struct.pack(">HH", 60_000, 60_000) + jpeg[place + 4 :]
    assert "pixels" in one_line(bomb, read=read)


def test_other_files_are_refused():
    assert "the file is empty" in one_line(b"")
    assert "of no known format" in one_line(b"some text, and no picture")
    deep = files.pillow(values(8).astype(np.float32), "TIFF")
    assert "more than 16 bits" in one_line(deep)


# -- folders ---------------------------------------------------------------------------------------


def test_pictures_of_a_folder(tmp_path):
    taken = ["B.PNG", "a.png", "c.Jpg", "d.tif", "e.TIFF", "f.jpeg"]
    for name in [*taken, "._a.png", ".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", "png"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in picture_files(tmp_path)] == taken
    assert [path.name for path in picture_files(tmp_path, (".png",))] == ["B.PNG", "a.png"]


def test_a_link_to_nothing_is_not_passed_over(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert picture_files(tmp_path) == [Path(tmp_path / "a.png")]
