"""How picture files become arrays: one reader for training, evaluation and prediction.

Pixels come *as they are stored*. An orientation in the file's metadata (EXIF, or the tag of a TIFF)
turns neither images nor labels: a label belongs to its image pixel by pixel, and says nothing of
how a viewer would turn the two. Transparency is dropped. The first picture counts where a file
holds several.

Images have eight bits a channel. Sixteen bits are scaled by their full range, v -> round(v / 257),
so that black and white stay what they are; grey of one, two or four bits likewise, by its own
range. Label values are read exactly, whatever their number of bits, and those of a palette are its
indices.

Whatever is wrong with a file is one `ImageError`, a ValueError, that names it.
"""

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
LABEL_SUFFIXES = (".png", ".tif", ".tiff")

# Tags of TIFF, and, the first of them, of EXIF.
_ORIENTATION, _PHOTOMETRIC, _COMPRESSION, _BITS = 274, 262, 259, 258
_LOSSY = (6, 7, 34712, 50001)  # compressions of TIFF: JPEG, old and new, JPEG 2000 and WebP
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_BEHIND_HEADER = 33
_COLORS_OF_PNG = (2, 6)  # kinds of color that a PNG's header tells: RGB, without and with alpha
_CHUNK = struct.Struct(">I4s")  # how a chunk of a PNG begins: its length, and of what kind it is
_END_OF_JPEG = b"\xff\xd9"
_SIXTEEN_BITS = ((np.arange(2**16, dtype=np.uint32) + 128) // 257).astype(np.uint8)
_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
# Pillow spreads the values of two and four bits over 0..255, by these factors.
_SPREAD = {"L;2": 85, "L;4": 17}
# Pillow and OpenCV turn TIFF files, and no others, by their orientation; these turn them back.
_TURN_BACK = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}


class ImageError(ValueError):
    """A file that is not a picture that can be read; `reason` says why, without its name."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} is not a readable image ({self.reason}): replace the file"


def _fault(name: str, error: Exception) -> ImageError:
    """What a reader has raised, in a line; damaged bytes lead to exceptions of any type."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError(name, "of no known format")
    return ImageError(name, " ".join(str(error).split()) or type(error).__name__)


def read_bytes(path: Path) -> bytes:
    """The content of a file, with an error that names it if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def picture_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """The pictures in `folder`, by name.

    Suffixes count in upper and lower case. Folders are none, whatever their name, nor are files
    whose name starts with a dot: systems put such files beside those of people ("._a.png").
    """
    return sorted(path for path in folder.iterdir() if is_picture(path, suffixes))


def is_picture(path: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    """Whether a file of a folder is one of its pictures, see `picture_files`."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() in suffixes and not hidden and not path.is_dir()


def read_size(path: Path) -> tuple[int, int]:
    """The stored height and width of the picture in a file, without reading its pixels."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = _tiff_orientation(picture) > 4  # Pillow tells the size after turning
            return (width, height) if turned else (height, width)
    except Exception as error:
        raise _fault(str(path), error) from error


def orientation(path: Path) -> int:
    """How the metadata of a picture ask viewers to turn it, 2 to 8; 1 for not at all.

    Nothing in rfjax follows it. Metadata that cannot be read ask for nothing.

    Reference: EXIF 2.32, tag 0x0112.
    """
    with contextlib.suppress(Exception), Image.open(path) as picture:
        asked = picture.getexif().get(_ORIENTATION)
        return asked if asked in _TURN_BACK else 1
    return 1


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """The RGB picture uint8 [H, W, 3] in the bytes of an image file.

    Args:
        encoded: the whole file. PNG and JPEG are read by OpenCV, which is quicker, all else by
            Pillow.
        name: of the file, for errors.

    Raises:
        ImageError: if it is not a picture, damaged, larger than `PIL.Image` reads without being
            told to (a decompression bomb), or of more than 16 bits a channel.

    Example:
        >>> file = io.BytesIO()
        >>> Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(file, "PNG")
        >>> decode_image(file.getvalue(), "grey.png")[0, :, 0].tolist()
        [0, 1, 255]
    """
    try:
        return _image(encoded)
    except Exception as error:
        raise _fault(name, error) from error


def decode_mask(encoded: bytes, name: str) -> np.ndarray:
    """The label values uint8 [H, W] in the bytes of a PNG or TIFF of one channel.

    Args:
        encoded: the whole file: grey of 1, 2, 4, 8 or 16 bits, or a palette, whose indices count.
        name: of the file, for errors.

    Raises:
        ImageError: if it is not a picture, damaged, or a decompression bomb.
        ValueError: if it has several channels, is of a format that does not keep values, or holds
            values that are not in 0..255.

    Example:
        >>> file = io.BytesIO()
        >>> Image.fromarray(np.array([[False, True]])).save(file, "PNG", bits=1)
        >>> decode_mask(file.getvalue(), "label.png").tolist()
        [[0, 1]]
    """
    try:
        if _small_png(encoded) and encoded[24:26] == b"\x08\0":  # eight bits, grey
            return _opencv(encoded, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        with _open(encoded) as picture:
            kind = f"{picture.format} file of mode {picture.mode}"
            values = _values(picture)
    except Exception as error:
        raise _fault(name, error) from error
    if values is None:
        raise ValueError(
            f"{name} is a {kind}; labels are single-channel PNG or TIFF files without loss, grey"
            " with 0 for black or with a palette, whose values are class indices"
        )
    outside = (values < 0) | (values > 255)
    if outside.any():
        wrong = np.unique(values[outside])[:5].tolist()
        raise ValueError(f"{name} has label values {wrong}; they are 0 to 254, and 255 for void")
    return values.astype(np.uint8, copy=False)


def is_color(encoded: bytes, name: str) -> bool:
    """Whether the PNG or TIFF in the bytes of a file has several channels, as masks of colors do.

    Args:
        encoded: the whole file.
        name: of the file, for errors.

    Raises:
        ImageError: if it is not a picture.
    """
    try:
        if encoded.startswith(_PNG):
            return encoded[25] in _COLORS_OF_PNG
        with _open(encoded) as picture:
            return picture.format == "TIFF" and picture.mode not in _LABEL_MODES
    except Exception as error:
        raise _fault(name, error) from error


def palette(path: Path) -> np.ndarray | None:
    """The colors uint8 [256, 3] that the palette of a picture gives to its indices, if it has one.

    Indices that the palette does not have are black.
    """
    try:
        with Image.open(path) as picture:
            levels = picture.getpalette("RGB") if picture.mode == "P" else None
    except Exception as error:
        raise _fault(str(path), error) from error
    if levels is None:
        return None
    colors = np.zeros((256, 3), np.uint8)
    colors.flat[: len(levels)] = levels
    return colors


def _image(encoded: bytes) -> np.ndarray:
    """The picture, by the reader of its format."""
    if _small_png(encoded):
        return _by_opencv(encoded)
    with _open(encoded) as picture:
        if picture.format == "JPEG" and encoded.rfind(_END_OF_JPEG, picture.fp.tell()) < 0:
            raise ValueError("truncated: it lacks the end of a JPEG")  # behind its header
        if picture.format in ("PNG", "JPEG", "MPO"):  # MPO: JPEG pictures in a row
            return _by_opencv(encoded)
        return _by_pillow(picture, encoded)


def _open(encoded: bytes) -> Image.Image:
    """The picture, of which Pillow has read the header."""
    if not encoded:
        raise ValueError("the file is empty")
    return Image.open(io.BytesIO(encoded))


# -- PNG and JPEG ----------------------------------------------------------------------------------


def _small_png(encoded: bytes) -> bool:
    """Whether this is a whole PNG of a size that Pillow, too, would read without a word.

    The answer takes microseconds, where opening a label's file takes as long as reading it.
    """
    if not encoded.startswith(_PNG):
        return False
    _check_chunks(encoded)
    width, height = struct.unpack_from(">II", encoded, 16)
    return width * height <= (Image.MAX_IMAGE_PIXELS or 0)


def _check_chunks(encoded: bytes) -> None:
    """Raises if a PNG is cut off, or if the chunks between its header and end are not as written.

    OpenCV would find most of this as well, but prints a line about it.
    """
    start, size = _BEHIND_HEADER, len(encoded)
    while start + 12 <= size:
        length, kind = _CHUNK.unpack_from(encoded, start)
        if kind == b"IEND":
            return
        end = start + 12 + length
        critical = not kind[0] & 0x20  # a capital: not a comment, a time or the like
        checksum = int.from_bytes(encoded[end - 4 : end], "big")
        if critical and zlib.crc32(encoded[start + 4 : end - 4]) != checksum:
            raise ValueError(f"damaged or truncated: wrong checksum of chunk {kind!r}")
        start = end
    raise ValueError("truncated: it lacks the end of a PNG")


def _opencv(encoded: bytes, flags: int) -> np.ndarray:
    data = np.frombuffer(encoded, np.uint8)
    picture = cv2.imdecode(data, flags) if data.size else None
    if picture is None:
        raise ValueError("its data are damaged")
    return picture


def _by_opencv(encoded: bytes) -> np.ndarray:
    """The picture as RGB of eight bits."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return _eight_bits(_opencv(encoded, flags))


def _eight_bits(picture: np.ndarray) -> np.ndarray:
    """v -> round(v / 257) for sixteen bits; 257 = 65535 / 255."""
    return picture if picture.dtype == np.uint8 else np.take(_SIXTEEN_BITS, picture)


# -- other formats ---------------------------------------------------------------------------------


def _by_pillow(picture: Image.Image, encoded: bytes) -> np.ndarray:
    """The picture as RGB of eight bits, as it is stored."""
    turn_back = _TURN_BACK.get(_tiff_orientation(picture))
    sixteen_bits = picture.mode.startswith("I;16") or (picture.format, picture.mode) == ("PPM", "I")
    if sixteen_bits:
        inverted = _white_is_zero(picture)
        grey = _eight_bits(np.array(picture).astype(np.uint16))
        pixels = cv2.cvtColor(255 - grey if inverted else grey, cv2.COLOR_GRAY2RGB)
    elif picture.mode in ("I", "F"):
        raise ValueError("its channels have more than 16 bits: convert them to 8 or 16")
    elif _is_deep_color(picture):
        pixels = _eight_bits(_opencv(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH))
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # IMREAD_COLOR_RGB leaves these in BGR
    else:
        pixels = np.array(picture.convert("RGB"))
    return pixels if turn_back is None else np.ascontiguousarray(turn_back(pixels))


def _values(picture: Image.Image) -> np.ndarray | None:
    """The values of a label as they are stored, or None for a picture that cannot be one."""
    lossy = _tiff_tag(picture, _COMPRESSION, None) in _LOSSY
    if picture.format not in ("PNG", "TIFF") or lossy:
        return None
    if picture.mode not in _LABEL_MODES or _white_is_zero(picture):
        return None
    turn_back = _TURN_BACK.get(_tiff_orientation(picture))
    layout = picture.tile[0][3]  # of the stored values, first of several facts for a TIFF
    spread = _SPREAD.get(layout if isinstance(layout, str) else layout[0])
    values = np.array(picture)
    values = values if spread is None else values // spread
    return values if turn_back is None else np.ascontiguousarray(turn_back(values))


def _tiff_orientation(picture: Image.Image) -> int:
    """The orientation, 1 to 8, by which Pillow will turn the picture when it reads the pixels."""
    return _tiff_tag(picture, _ORIENTATION, 1)


def _white_is_zero(picture: Image.Image) -> bool:
    return _tiff_tag(picture, _PHOTOMETRIC, None) == 0


def _is_deep_color(picture: Image.Image) -> bool:
    """Whether this is a color picture of 16 bits, of which Pillow would drop the lower ones."""
    return picture.mode.startswith("RGB") and 16 in _tiff_tag(picture, _BITS, ())


def _tiff_tag(picture: Image.Image, tag: int, default: Any) -> Any:
    return picture.tag_v2.get(tag, default) if picture.format == "TIFF" else default
