"""Numbered checkpoints in a directory, each of them whole and sound or not counted.

    directory/STEP/ITEM/            arrays, written by orbax
    directory/STEP/NAME/…           a document, JSON
    directory/STEP/checksums.json   size and SHA-256 of every file above

A checkpoint is written under a temporary name, its files are brought to disk and summed up, and
then it is renamed: a kill leaves it complete or not there. When the directory is opened, every
checkpoint is compared with its sums before anything reads it, so that a damaged file is found
however little it differs, and never reaches a parser. Sums are those of files and not of arrays
because that holds for whatever lies in a checkpoint, and needs no network to compare with.

The arrays are NumPy, the same in every process: process 0 writes them, each process reads by
itself.
"""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rfjax._console import tell
from rfjax._faults import CheckpointError, reason
from rfjax._files import naming, write_json

SUMS = "checksums.json"
# Bytes that orbax's files take beside the arrays, generously: indices, names, half-filled blocks.
_OVERHEAD, _OVERHEAD_OF_LEAF = 2**17, 2**11
# What file systems answer that reserve no space.
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
INCOMPLETE = "never completed"
_COMMITTED = "commit_success.txt"  # orbax puts it into what it completed
_COMMIT = "_CHECKPOINT_METADATA"  # and says there when it completed it
_WRITTEN, _DELETED = "tmp", "delete"  # end the names of what is being written or deleted


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a checkpoint consists of.

    Attributes:
        items: names of its trees of arrays.
        documents: by name, the file that holds it, relative to the checkpoint.
    """

    items: tuple[str, ...]
    documents: Mapping[str, str]


class Store:
    """The checkpoints in `directory`; a context manager, which waits for the last one saved.

    Args:
        directory: made where it is missing, unless `read_only`.
        layout: of each checkpoint.
        keep: of the steps in order, those that stay after another one was saved.
        read_only: whether to look without touching anything.
        say: takes a line where a checkpoint is damaged.

    Raises:
        CheckpointError: there are checkpoints, and none is sound.
    """

    def __init__(
        self,
        directory: Path,
        layout: Layout,
        *,
        keep: Callable[[Sequence[int]], Collection[int]] = lambda steps: steps,
        read_only: bool = False,
        say: Callable[[str], None] = tell,
    ):
        # Orbax tells every step of every save, and each error in many ways; here they are raised.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self.directory, self._layout, self._keep, self._say = directory, layout, keep, say
        self._writes = not read_only and jax.process_index() == 0
        if self._writes:
            directory.mkdir(parents=True, exist_ok=True)
            self._clean()
        self.steps = self._sound_steps()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future | None = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        """Waits for what is being saved; its failure is an error unless there is one already."""
        try:
            self.wait()
        except CheckpointError:
            if kind is None:
                raise
        finally:
            self._worker.shutdown()

    # -- reading -----------------------------------------------------------------------------------

    def document(self, step: int, name: str) -> Any:
        """What JSON holds under `name` in the checkpoint of `step`."""
        return json.loads((self._folder(step) / self._layout.documents[name]).read_text())

    def arrays(self, step: int, item: str, template: Any = None) -> Any:
        """The arrays of `item`, NumPy, in the form of `template` or as nested dictionaries."""
        try:
            return _restore(self._folder(step) / item, template)
        except Exception as error:  # of orbax, where the form or the files are not what it expects
            raise CheckpointError(
                f"{item} of step {step} in {self.directory} cannot be read: {reason(error)}"
            ) from error

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    def _sound_steps(self) -> list[int]:
        """The steps of the sound checkpoints; what is damaged is told, and put aside."""
        folders = {int(path.name): path for path in _children(self.directory) if _is_step(path)}
        faults = {step: fault(path, self._layout) for step, path in sorted(folders.items())}
        sound = [step for step, text in faults.items() if text is None]
        # What a live run deletes or a collision of two left behind is no checkpoint.
        gone = [step for step, path in folders.items() if faults[step] and not path.exists()]
        damaged = {step: text for step, text in faults.items() if text and step not in gone}
        listed = "; ".join(f"step {step} ({text})" for step, text in damaged.items())
        if any(text != INCOMPLETE for text in damaged.values()) and not sound:
            raise CheckpointError(
                f"no checkpoint in {self.directory} is sound: {listed}; put a copy of them there, "
                "or start anew in another directory"
            )
        if damaged:
            names = [self._put_aside(folders[step]) for step in damaged] if self._writes else ()
            aside = f", put aside as {', '.join(names)}" if names else ""
            newest = (
                f"the newest sound one is that of step {sound[-1]}" if sound else "none is left"
            )
            self._say(f"damaged checkpoints in {self.directory}: {listed}{aside}; {newest}")
        return sound

    # -- writing -----------------------------------------------------------------------------------

    def save(self, step: int, arrays: Mapping[str, Any], documents: Mapping[str, Any]) -> None:
        """Saves a checkpoint in the background, unless there is one of `step`.

        Args:
            step: its number, above those of the others.
            arrays: by item, trees of NumPy arrays, which must not change until it is saved.
            documents: by name, what JSON can hold.

        Raises:
            CheckpointError: the checkpoint before this one could not be saved.
        """
        self.wait()
        if step in self.steps:
            return
        self.steps.append(step)
        if self._writes:
            self._saving = self._worker.submit(self._write, step, arrays, documents)

    def wait(self) -> None:
        """Waits until what was saved is on disk.

        Raises:
            CheckpointError: it could not be saved.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()
        except Exception as error:  # orbax and TensorStore raise errors of many kinds
            step = self.steps.pop()
            kept = f"that of step {self.steps[-1]} is kept" if self.steps else "none was saved yet"
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be saved in {self.directory}: "
                f"{reason(error)}; {kept}"
            ) from error

    def _write(self, step: int, arrays: Mapping[str, Any], documents: Mapping[str, Any]) -> None:
        """Writes a checkpoint whole or not at all, then deletes those that need not be kept."""
        partial = self.directory / f"{step}.{_WRITTEN}"
        try:
            partial.mkdir()  # not its parents: where a run was deleted, it must not come back
            _reserve(partial / "reserved", arrays)
            for name, tree in arrays.items():
                with _checkpointer() as writer:
                    writer.save(partial / name, args=ocp.args.StandardSave(tree))
            for name, value in documents.items():
                path = partial / self._layout.documents[name]
                path.parent.mkdir()
                with naming(path):
                    path.write_text(json.dumps(value))
            write_json(partial / SUMS, _sums(partial, sync=True))
            partial.rename(self._folder(step))
            _sync(self.directory)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        kept = self._keep(tuple(self.steps))
        for old in [old for old in self.steps if old not in kept]:
            self._delete(old)

    def _delete(self, step: int) -> None:
        """Deletes a checkpoint, under a name that does not count if it is stopped half way."""
        self.steps.remove(step)
        doomed = self.directory / f"{step}.{_DELETED}"
        with suppress(OSError):  # one that stays does no harm
            self._folder(step).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _put_aside(self, folder: Path) -> str:
        """Renames what is no sound checkpoint, so that its step can be saved again."""
        names = chain([f"damaged-{folder.name}"], (f"damaged-{folder.name}.{i}" for i in count(2)))
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        folder.rename(aside)
        return aside.name

    def _clean(self) -> None:
        """Deletes what a kill left half-written, here or in orbax's own manager."""
        for path in _children(self.directory):
            step, _, rest = path.name.partition(".")
            if step.isdigit() and rest.endswith((_WRITTEN, _DELETED)):
                shutil.rmtree(path, ignore_errors=True)


def _reserve(path: Path, arrays: Mapping[str, Any]) -> None:
    """Sees whether the disk takes what is to be saved, by a file of that size that goes again.

    A full disk, a quota or a limit of the file's size is then one error of the system. Threads of
    TensorStore would meet it on their own, and fill the screen.
    """
    leaves = jax.tree.leaves(dict(arrays))
    size = sum(np.size(leaf) * np.asarray(leaf).itemsize for leaf in leaves)
    size += _OVERHEAD + _OVERHEAD_OF_LEAF * len(leaves)
    try:
        with naming(path), path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
    finally:
        path.unlink(missing_ok=True)


def _children(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _is_step(path: Path) -> bool:
    return path.name.isdigit() and path.is_dir()


def _checkpointer() -> ocp.Checkpointer:
    """Orbax for this process alone, which waits for no other."""
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _restore(folder: Path, template: Any = None) -> Any:
    with _checkpointer() as reader:
        return reader.restore(folder, args=ocp.args.StandardRestore(template))


# -- soundness -------------------------------------------------------------------------------------


def fault(folder: Path, layout: Layout) -> str | None:
    """What is wrong with a checkpoint, or None if it is sound.

    One without sums, of a version that wrote none, is sound if it can be read.
    """
    try:
        if (folder / SUMS).exists():
            return _difference(folder)
        _read_all(folder, layout)
    except Exception as error:  # whatever a parser makes of damaged bytes
        return reason(error) if _completed(folder) else INCOMPLETE
    return None


def _completed(folder: Path) -> bool:
    """Whether a checkpoint was complete once; only what certainly was not is none."""
    if (folder / SUMS).exists() or (folder / _COMMITTED).exists():
        return True
    try:
        return json.loads((folder / _COMMIT).read_text())["commit_timestamp_nsecs"] is not None
    except FileNotFoundError:
        return any(path.is_file() for path in folder.rglob("*"))
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _read_all(folder: Path, layout: Layout) -> None:
    """Reads a whole checkpoint, to see that it can be read."""
    for path in layout.documents.values():
        json.loads((folder / path).read_text())
    for item in layout.items:
        _restore(folder / item)


def _difference(folder: Path) -> str | None:
    """How the files of a checkpoint differ from what was saved, or None."""
    wanted = json.loads((folder / SUMS).read_text())
    found = _sums(folder)
    for name in sorted({*wanted, *found}):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} was not there when it was saved"
        if found[name] != wanted[name]:
            return f"{name} is not what was saved"
    return None


def _sums(folder: Path, *, sync: bool = False) -> dict[str, list]:
    """Size and SHA-256 of every file in `folder` by its path there, and None for a folder.

    Args:
        folder: of a checkpoint; the file of sums itself is left out.
        sync: whether to bring files and folders to disk as well.
    """
    sums: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            sums[name] = None
        elif name != SUMS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                sums[name] = [os.fstat(file.fileno()).st_size, digest]
        if sync and name != SUMS:
            _sync(path)
    return sums


def _sync(path: Path) -> None:
    """Brings a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems sync no folders
            raise
    finally:
        os.close(descriptor)
