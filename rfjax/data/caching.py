"""Maps of a frozen part of a network, computed once and kept on disk.

    DIRECTORY/index.json     what the maps are of, and the SHA-256 of every file
    DIRECTORY/HxW.npy        [examples, h, w, C], the maps of all images of this size, in order;
                             NAME-HxW.npy where a cache has several maps of each image

Training then starts from the maps, and the part before them runs no more. A cache is that of its
weights, of its network's structure up to the map, and of the pixels that the network read: the
images are read, and the files summed up, each time a cache is opened, which costs less than the
part that is saved.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax._checks import choose, integer
from rfjax._files import write_json
from rfjax.data.dataset import Dataset, clip_of
from rfjax.data.pipeline import MakeRow, default_row

DTYPES = ("float16", "float32")  # `rfjax.training.config.CACHED`
PREFIX = "map/"  # of the name of a map in an example and in a row
_INDEX = "index.json"


def cache_features(
    model: Any,
    variables: Mapping[str, Any],
    dataset: Dataset,
    name: str | Sequence[str],
    directory: str | Path,
    *,
    row: MakeRow | None = None,
    dtype: str = "float16",
    batch_size: int = 8,
) -> Dataset:
    """The data set with maps of each of its images, from `directory` or computed into it.

    Examples have a map beside what they had, as "map/NAME". A task that trains on them starts the
    network there, see `rfjax.tasks.Segmentation`. Of episodes, see `rfjax.data.episodes`, the maps
    are those of the images that they are drawn of, each computed once.

    Args:
        model: a `rfjax.models.segmentation.Segmenter`, or what has its method "maps".
        variables: of the network; those of the stages up to the map must stay as they are.
        dataset: of images; it cannot be augmented any more.
        name: of the map, as "pool4", or of several in the order in which the network makes them.
        directory: of this cache alone.
        row: as in `train_iterator`; its "image" is what the network reads. Of episodes that of one
            image.
        dtype: float16 | float32, of the files.
        batch_size: images at a time.

    Raises:
        ValueError: the directory holds another cache or a damaged one, there is no such map, or it
            has numbers that float16 cannot hold.
    """
    choose("dtype", dtype, DTYPES)
    integer("batch_size", batch_size)
    names = (name,) if isinstance(name, str) else tuple(name)
    if hasattr(dataset.source, "frames"):
        frames = dataclasses.replace(dataset, source=dataset.source.frames)
        options = {"row": row, "dtype": dtype, "batch_size": batch_size}
        cached = cache_features(model, variables, frames, name, directory, **options)
        return dataclasses.replace(dataset, source=dataset.source.over(cached.source))
    make, folder = row or default_row(dataset), Path(directory)
    wanted = _identity(model, variables, dataset, names, make) | {"dtype": dtype}
    if not (folder / _INDEX).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, wanted, _maps(model, variables, names), dataset, make, batch_size)
    _check(folder, wanted)
    return dataclasses.replace(dataset, source=_Cached(dataset, names, folder))


def _maps(
    model: Any, variables: Mapping[str, Any], names: tuple[str, ...]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function of images that returns their maps."""

    @jax.jit
    def apply(variables: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        found = model.apply(variables, images, method="maps", until=names[-1])
        late = [name for name in names if name not in found]
        if late:
            raise ValueError(f"{', '.join(late)} must come before {names[-1]}; got {names}")
        return {name: found[name] for name in names}

    return lambda images: jax.device_get(apply(variables, images))


def _identity(
    model: Any,
    variables: Mapping[str, Any],
    dataset: Dataset,
    names: tuple[str, ...],
    make: MakeRow,
) -> dict[str, Any]:
    """What a cache is of."""
    images, shape = hashlib.sha256(), ()
    for index in range(len(dataset)):
        image = make(dataset.source[index])["image"]
        images.update(
            f"{image.shape}{image.dtype}".encode() + np.ascontiguousarray(image).tobytes()
        )
        shape = image.shape
    if not shape:
        raise ValueError(f"the {dataset.split} split of {dataset.name} is empty")
    init = lambda key, x: model.init(key, x, method="maps", until=names[-1])
    used = jax.eval_shape(init, jax.random.key(0), np.zeros((1, *shape), np.float32))
    weights = hashlib.sha256()
    for path, _ in jax.tree_util.tree_leaves_with_path(used):
        leaf: Any = variables
        for part in path:
            leaf = leaf[part.key]
        weights.update(f"{jax.tree_util.keystr(path)}{np.shape(leaf)}".encode())
        weights.update(np.ascontiguousarray(leaf).tobytes())
    return {"map": ", ".join(names), "weights": weights.hexdigest(), "images": images.hexdigest()}


def _write(
    folder: Path,
    wanted: dict[str, Any],
    maps: Callable[[np.ndarray], dict[str, np.ndarray]],
    dataset: Dataset,
    make: MakeRow,
    batch_size: int,
) -> None:
    """Computes all maps; the index comes last, so that a cache is whole or not there."""
    sums, names = {}, wanted["map"].split(", ")
    for shape, members in _by_size(dataset).items():
        files: dict[str, np.memmap] = {}
        for start in range(0, len(members), batch_size):
            some = members[start : start + batch_size]
            found = maps(np.stack([make(dataset.source[index])["image"] for index in some]))
            for name, array in found.items():
                kept = _kept(name, array, wanted["dtype"])
                if name not in files:
                    path, size = _file(folder, names, name, shape), (len(members), *kept.shape[1:])
                    files[name] = np.lib.format.open_memmap(path, "w+", kept.dtype, size)
                files[name][start : start + len(some)] = kept
        for name, file in files.items():
            file.flush()
            path = _file(folder, names, name, shape)
            sums[path.name] = _sum(path)
    write_json(folder / _INDEX, wanted | {"files": sums})


def _kept(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """A map in the type of the files.

    Raises:
        ValueError: it has numbers that the type cannot hold.
    """
    with np.errstate(over="ignore"):
        kept = array.astype(dtype)
    if not np.isfinite(kept).all():
        raise ValueError(
            f"{name} has numbers that {dtype} cannot hold, up to {np.abs(array).max():g}; float32 "
            "holds all that are finite"
        )
    return kept


def _check(folder: Path, wanted: dict[str, Any]) -> None:
    """Raises unless the cache is that of `wanted`, and whole."""
    try:
        found = json.loads((folder / _INDEX).read_text())
        other = [key for key, value in wanted.items() if found[key] != value]
        files = found["files"].items()
        damaged = [file for file, known in files if _sum(folder / file) != known]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the cache in {folder} is damaged ({error}): remove it") from error
    if other:
        raise ValueError(
            f"the cache in {folder} is of other {', '.join(other)}: remove it, or name another "
            "directory"
        )
    if damaged:
        raise ValueError(f"the cache in {folder} is damaged ({', '.join(damaged)}): remove it")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_size(dataset: Dataset) -> dict[tuple[int, ...], list[int]]:
    """The examples of each size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(dataset.shapes):
        groups.setdefault(shape, []).append(index)
    return groups


def _file(folder: Path, names: Sequence[str], name: str, shape: tuple[int, ...]) -> Path:
    """Where a map of all images of a size lies, in a cache of these maps."""
    stem = "x".join(map(str, shape))
    return folder / (f"{stem}.npy" if len(names) == 1 else f"{name}-{stem}.npy")


class _Cached:
    """Examples with their maps, which stay on disk until they are read."""

    def __init__(self, dataset: Dataset, names: tuple[str, ...], folder: Path):
        self._dataset, self._places = dataset, {}
        for shape, members in _by_size(dataset).items():
            paths = {name: _file(folder, names, name, shape) for name in names}
            files = {PREFIX + name: np.load(path, mmap_mode="r") for name, path in paths.items()}
            self._places |= {index: (files, number) for number, index in enumerate(members)}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        files, number = self._places[index]
        maps = {key: np.array(file[number]) for key, file in files.items()}
        return {**self._dataset.source[index], **maps}

    def shape(self, index: int) -> tuple[int, ...]:
        return self._dataset.shapes[index]

    def clip(self, index: int) -> Any:
        return clip_of(self._dataset.source, index)
