"""New files of results: none takes the place of another, and what fails leaves none behind."""

import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from rfjax._faults import Fault


class PredictionError(Fault, ValueError):
    """A picture that cannot be read or a place that cannot be written; the message says which."""


@contextlib.contextmanager
def new_array(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes a new .npy file float16 [*shape, K] by its rows; if anything fails, none is left."""
    try:
        with path.open("xb") as file:

            def write_rows(rows: np.ndarray) -> None:
                if not file.tell():
                    facts = {"descr": "<f2", "fortran_order": False}
                    np.lib.format.write_array_header_1_0(
                        file, facts | {"shape": (*shape, rows.shape[-1])}
                    )
                file.write(rows.astype("<f2").tobytes())

            yield write_rows
    except BaseException as error:
        path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise PredictionError(f"{path}: cannot be written ({error.strerror})") from error


def write_pictures(
    folder: Path, name: str, pictures: Mapping[str, Image.Image | bytes]
) -> list[str]:
    """Writes pictures as NAME_KIND.png, by kind, all or none of them; returns the paths.

    They get a number more where any file of this `name` exists. Bytes are written as they are, as
    NAME_KIND, where the kind has a suffix.
    """
    contents = {
        kind if isinstance(picture, bytes) else f"{kind}.png": picture
        for kind, picture in pictures.items()
    }
    for stem in numbered(name):
        files = {folder / f"{stem}_{kind}": picture for kind, picture in contents.items()}
        if not any(map(os.path.lexists, files)):
            break
    write_new({path: p if isinstance(p, bytes) else png(p) for path, p in files.items()})
    return [str(path) for path in files]


def holds(path: Path, content: bytes) -> bool:
    """Whether a file is there that holds exactly this."""
    return path.is_file() and path.read_bytes() == content


def numbered(name: str) -> Iterator[str]:
    """NAME, NAME_2, NAME_3, ..."""
    yield name
    for number in itertools.count(2):
        yield f"{name}_{number}"


def png(image: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_new(contents: Mapping[Path, bytes]) -> None:
    """Writes files that do not exist, all or none of them."""
    begun = []
    try:
        for path, content in contents.items():
            with path.open("xb") as file:  # fails if another program has just made it
                begun.append(path)
                file.write(content)
    except OSError as error:
        for path in begun:
            path.unlink(missing_ok=True)
        raise PredictionError(f"{path}: cannot be written ({error.strerror})") from error
