"""Preparing data with tensorflow-datasets, without TensorFlow.

Builders here derive from `tfds.core.ShardBasedBuilder`: it writes examples as they come, whereas
`GeneratorBasedBuilder` collects a split first, in memory and then, beyond 1 GB, in files that it
needs TensorFlow to write.
"""

import contextlib
import functools
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import absl.logging
import tensorflow_datasets as tfds

Item = TypeVar("Item")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps tensorflow-datasets from announcing what it does in warnings and prints."""
    level = absl.logging.get_verbosity()
    tfds.disable_progress_bar()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.logging.set_verbosity(level)


def prepared(make_builder: Callable[[], tfds.core.DatasetBuilder]) -> tfds.core.DatasetBuilder:
    """The builder that `make_builder` makes, its data written as array records if it was not yet.

    The records go to a temporary folder that is renamed when complete, so an interrupted run
    leaves nothing that looks finished. Of several processes that prepare the same data at the
    same time, each writes its own temporary folder; the first to finish wins, and the others
    drop theirs and use the winner's.
    """
    with quiet():
        builder = make_builder()
        if builder.data_path.exists():
            return builder
        print(f"preparing {builder.info.full_name} in {builder.data_path}", file=sys.stderr)
        try:
            builder.download_and_prepare(file_format="array_record")
        except OSError:
            if not (builder.data_path / "dataset_info.json").exists():
                raise
        return make_builder()  # one that has read what is on disk, whoever wrote it


def sharded(
    examples: Iterator[Item], count: int, per_shard: int
) -> list[Callable[[], Iterator[Item]]]:
    """`count` examples dealt out as tensorflow-datasets wants it: a function for each shard.

    A shard's examples are held in memory until it is written.
    """
    sizes = [min(per_shard, count - start) for start in range(0, count, per_shard)]
    return [functools.partial(itertools.islice, examples, size) for size in sizes]


def encoded_source(builder: tfds.core.DatasetBuilder, split: str, pictures: tuple[str, ...]) -> Any:
    """Random access to a prepared split; the features named in `pictures` stay encoded bytes."""
    decoders = {name: tfds.decode.SkipDecoding() for name in pictures}
    return builder.as_data_source(split=split, decoders=decoders)


def shape(builder: tfds.core.DatasetBuilder, picture: str) -> tuple[int, int]:
    """Height and width of the feature `picture`, the same for all examples."""
    height, width, _ = builder.info.features[picture].shape
    return height, width
