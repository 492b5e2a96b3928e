"""Picture files written byte by byte, of the kinds that libraries read but do not write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # the tag of EXIF and TIFF
# First row, first column, row step, column step of each pass of an interlaced PNG (RFC 2083, 2.6).
ADAM7 = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
)  # fmt: skip


def packed(values, depth):
    """The rows of [H, W] or [H, W, C] values of `depth` bits, each from a byte of its own."""
    rows = []
    for row in values.reshape(len(values), -1):
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return rows


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(values, depth, *, palette=None, interlaced=False, between=b"", size=None):
    """A PNG of grey [H, W], palette indices [H, W] or RGB [H, W, 3]; `size` may lie."""
    color = 2 if values.ndim == 3 else 3 if palette is not None else 0
    height, width = size or values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [values[y::dy, x::dx] for y, x, dy, dx in passes]
    rows = [row for part in parts if part.size for row in packed(part, depth)]
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + between
    if palette is not None:
        chunks += chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes())
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(values, depth, *, photometric=1, orientation=1):
    """A TIFF of grey [H, W] or RGB [H, W, 3], little-endian, in one strip."""
    (height, width), channels = values.shape[:2], values[0, 0].size
    if depth < 8:
        data = b"".join(packed(values, depth))
    else:
        data = values.astype({8: "u1", 16: "<u2"}[depth]).tobytes()
    data += b"\0" * (len(data) % 2)
    short, long = 3, 4
    depths = struct.pack("<3H", *[depth] * 3)
    tags = [
        (256, long, 1, width), (257, long, 1, height),
        (258, short, channels, depth if channels == 1 else 8 + len(data)), (259, short, 1, 1),
        (262, short, 1, photometric), (273, long, 1, 8), (ORIENTATION, short, 1, orientation),
        (277, short, 1, channels), (278, long, 1, height), (279, long, 1, len(data)),
    ]  # fmt: skip
    start = 8 + len(data) + len(depths)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    return struct.pack("<2sHI", b"II", 42, start) + data + depths + directory + b"\0" * 4


def pillow(picture, kind, **options):
    """A file as Pillow writes it, of an array or a picture."""
    stream = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned(picture, kind, orientation, **options):
    """A file whose metadata ask to be turned, and whose pixels are as they come."""
    if kind == "TIFF":
        depth = 8 * np.asarray(picture).dtype.itemsize
        return tiff(picture, depth, photometric=1 + (picture.ndim == 3), orientation=orientation)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return pillow(picture, kind, exif=exif, **options)
