"""Files of weights that other programs have written, as arrays by their names; no code runs.

    .npz            arrays by name, of NumPy
    .safetensors    arrays by name
    .pth .pt .bin   what PyTorch's `save` writes, in the format of zip files and in the older one

A pickle is a program. Of PyTorch's files this reader runs none but the few functions that put
tensors, dictionaries and numbers together, which it has itself; whatever else a file names becomes
a mark without a value. PyTorch is not needed.

Checkpoints wrap a state dict, and wrappers of modules put prefixes before its names. `read` takes
both off and says so; `Weights.notes` tells what it did. `write` makes files of the first two
formats.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from rfjax._faults import reason
from rfjax._files import replacing
from rfjax._options import choose

Array = TypeVar("Array")

# Of a checkpoint, the entries that hold the weights, the averaged ones first.
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict",
    "model_state", "model", "module", "net", "network", "params",
)  # fmt: skip
# Before all names of a state dict, of PyTorch's wrappers of modules and of training libraries'.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "encoder.")
# Of networks with other parts, which have no place here: what is read of them.
_PARTS = ("encoder.", "backbone.")
_SEGMENTATION = "classifier."  # beside "backbone.", the names of torchvision's networks
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}  # fmt: skip
_LEGACY = 0x1950A86A20F9469CFC6C  # the first pickle of a file in PyTorch's older format


class Weights(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: by name, without wrappers and prefixes.
        notes: what was taken off, and what was left out, a line each.
    """

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]


def read(path: str | Path) -> Weights:
    """The arrays of a file of weights; the file's bytes tell its format, whatever its name.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of no format that is known here, damaged, or holds no arrays.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "weights.npz"
        >>> np.savez(file, **{"module.conv1.weight": np.zeros((8, 3, 3, 3))})
        >>> found = read(file)
        >>> list(found.arrays), found.notes
        (['conv1.weight'], ("taken off: 'module.'",))
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        arrays, notes = _unwrapped(_decode(content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError,
            pickle.UnpicklingError, zipfile.BadZipFile, MemoryError) as error:  # fmt: skip
        raise ValueError(f"{path} cannot be read as weights: {reason(error)}") from error
    if not arrays:
        raise ValueError(f"{path} holds no arrays by name")
    return Weights(arrays, tuple(notes))


def write(path: str | Path, arrays: Mapping[str, np.ndarray], *, form: str) -> None:
    """Writes a file of arrays by their names, whole or not at all; `read` takes it back.

    Args:
        path: of the file, whose place it takes.
        arrays: by name.
        form: "npz" or "safetensors".

    Raises:
        ValueError: there is no such form.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "own.safetensors"
        >>> write(file, {"params/head/bias": np.arange(3.0)}, form="safetensors")
        >>> read(file).arrays
        {'params/head/bias': array([0., 1., 2.])}
    """
    choose("form", form, ("npz", "safetensors"))
    plain: dict[str, Any] = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with replacing(path) as file:
        if form == "npz":
            np.savez(file, **plain)
        else:
            from safetensors.numpy import save

            file.write(save(plain))


def is_own(arrays: Mapping[str, Any]) -> bool:
    """Whether the names are places of a network here, as `rfjax.export` writes them.

    Example:
        >>> is_own({"params/head/bias": 0}), is_own({"head.bias": 0})
        (True, False)
    """
    return any(name.startswith("params/") for name in arrays)


def _decode(content: bytes) -> Any:
    """What a file holds, by its first bytes."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickled = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            return _npz(content) if pickled is None else _torch_zip(archive, pickled)
    if content[8:9] == b"{":  # behind the length of the header
        return _safetensors(content)
    return _torch_legacy(content)


def _npz(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _safetensors(content: bytes) -> dict[str, np.ndarray]:
    import safetensors

    try:
        rows = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    return {
        name: np.frombuffer(row["data"], _DTYPES[row["dtype"]]).reshape(row["shape"])
        for name, row in rows
    }


# -- PyTorch's files -------------------------------------------------------------------------------


class _Mark:
    """What a pickle names and this reader does not run; it takes any arguments and state."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Nothing is kept."""

    extend = append


class _Storage(NamedTuple):
    """The numbers of one or more tensors, in a row; `values` come last in the older format."""

    key: str
    dtype: Any
    values: list[np.ndarray]  # of one array, or still of none

    def tensor(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        """The view of a tensor."""
        (values,) = self.values
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        negative = offset < 0 or any(step < 0 for step in strides)
        if 0 not in shape and (negative or last >= len(values)):
            raise ValueError(f"a tensor reads beyond the {len(values)} numbers of its storage")
        steps = tuple(step * values.itemsize for step in strides)
        view = np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)
        return view.copy()


class _Tensor(NamedTuple):
    """A tensor of a storage that is not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def array(self) -> np.ndarray:
        return self.storage.tensor(self.offset, self.shape, self.strides)


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *rest: Any) -> Any:
    if not isinstance(storage, _Storage):
        return _Mark()
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(data: Any, *rest: Any) -> Any:
    return data


# What a pickle may build, by its name there.
_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Unpickler(pickle.Unpickler):
    """Reads a pickle with `_BUILDERS` alone."""

    def __init__(self, file: Any, storage: Callable[[str, Any, int], _Storage]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """One of our own functions, or a mark."""
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return name
        return _BUILDERS.get((module, name), _Mark)

    def persistent_load(self, pid: Any) -> Any:
        """The storage that a tensor names: ("storage", kind, key, place, count), and perhaps a view
        of another; or, in the older format, ("module", class, source)."""
        if pid[0] == "module":
            return pid[1]
        if pid[1] not in _STORAGES or (len(pid) > 5 and pid[5] is not None):
            raise ValueError(f"its tensors have a storage of a kind that is not known: {pid}")
        return self._storage(str(pid[2]), _STORAGES[pid[1]], int(pid[4]))


def _torch_zip(archive: zipfile.ZipFile, pickled: str) -> Any:
    """A file of PyTorch 1.6 or later: a pickle, and the storages beside it."""
    folder = pickled.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order).strip() == b"big":
        raise ValueError("its numbers are stored with the highest byte first")
    known: dict[str, _Storage] = {}

    def storage(key: str, dtype: Any, count: int) -> _Storage:
        if key not in known:
            values = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
            known[key] = _Storage(key, dtype, [values])
        return known[key]

    with archive.open(pickled) as file:
        return _Unpickler(file, storage).load()


def _torch_legacy(content: bytes) -> Any:
    """A file of the older format: five pickles, then the storages with their lengths."""
    file, known = io.BytesIO(content), {}

    def storage(key: str, dtype: Any, count: int) -> _Storage:
        return known.setdefault(key, _Storage(key, dtype, []))

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if content[:1] != b"\x80" or load() != _LEGACY:
        raise ValueError("it is no .npz, .safetensors, or file of PyTorch")
    _, _, found = load(), load(), load()  # behind the protocol and the writer's sizes of numbers
    for key in load():
        count = int.from_bytes(file.read(8), "little")
        wanted = known[str(key)]
        data = file.read(count * np.dtype(wanted.dtype).itemsize)
        wanted.values.append(np.frombuffer(data, wanted.dtype, count))
    return found


# -- Wrappers and prefixes -------------------------------------------------------------------------


def _unwrapped(found: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays by their names, without what wraps them, and what that was."""
    notes = []
    while isinstance(found, Mapping):
        inner = next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        notes.append(f"read: the entry {inner!r}")
        found = found[inner]
    if isinstance(found, _Mark):
        raise ValueError("it is a pickled module: save its state_dict() instead")
    arrays, more = unprefixed(_arrays(found) if isinstance(found, Mapping) else {})
    return arrays, [*notes, *more]


def _arrays(found: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The entries that are arrays."""
    return {
        str(name): value.array if isinstance(value, _Tensor) else value
        for name, value in found.items()
        if isinstance(value, (_Tensor, np.ndarray))
    }


def unprefixed(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Arrays by their names without the prefixes that all of them have, and what was done.

    Of a network of an encoder (`encoder.*` or `backbone.*`) and other parts the encoder alone.
    torchvision's segmentation networks, `backbone.*` alone or with a `classifier.*`, stay whole:
    their ResNets are dilated, which `rfjax.models.import_torch` wants to be said.

    Example:
        >>> unprefixed({"module.model.conv1.weight": 0, "module.model.bn1.bias": 1})
        ({'conv1.weight': 0, 'bn1.bias': 1}, ["taken off: 'module.model.'"])
    """
    found, taken, notes = dict(arrays), "", []
    while prefix := next(
        (p for p in PREFIXES if found and all(n.startswith(p) for n in found)), ""
    ):
        found = {name.removeprefix(prefix): array for name, array in found.items()}
        taken += prefix
    if taken:
        notes.append(f"taken off: {taken!r}")
    if any(name.startswith(_SEGMENTATION) for name in found):
        return found, notes
    for part in _PARTS:
        inside = {name.removeprefix(part): a for name, a in found.items() if name.startswith(part)}
        if 0 < len(inside) < len(found):
            others = sorted({n.split(".")[0] for n in found if not n.startswith(part)})
            notes.append(f"read: {part}* alone, without {', '.join(f'{o}.*' for o in others)}")
            return inside, notes
    return found, notes
