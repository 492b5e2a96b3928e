"""What networks under schedules give on clips; kept on disk, so that a study can be stopped."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import clockwork, data
from rfjax._files import write_json
from rfjax._progress import counted
from rfjax._runs import read
from rfjax.data.dataset import Dataset
from rfjax.studies.clockwork.schedules import CLIPS, CUT, FILL, Way
from rfjax.studies.runs import StudyError
from rfjax.tasks import metrics
from rfjax.tasks.boundaries import boundary_band
from rfjax.tasks.losses import VOID
from rfjax.tasks.video import Stream, whole
from rfjax.training import config as configs
from rfjax.training import runs

TUNED_ON = 8  # clips of the training split
TIMED = 48  # frames
ROUNDS = 3  # in which they are timed, of which the quickest counts
_DAMAGED = "delete it, and it is measured anew"


@dataclass(frozen=True)
class Place:
    """Networks of one seed, and where what they give is kept.

    Attributes:
      folder: of the files.
      workdirs: of the finished runs, by head.
      data_dir: where the data lie; "" for where the runs found them.
      stills: how many stills there may be that slide.
    """

    folder: Path
    workdirs: dict[str, Path]
    data_dir: str = ""
    stills: int = 128

    def trained(self, head: str) -> runs.Trained:
        """The network with a head."""
        if head not in self._loaded:
            self._loaded[head] = runs.load(self.workdirs[head])
        return self._loaded[head]

    @cached_property
    def _loaded(self) -> dict[str, runs.Trained]:
        return {}

    def dataset(self, split: str) -> Dataset:
        """All frames of a split of the data that the networks learned from."""
        section = self.trained(CUT).config.data
        chosen = configs.options(section.options)
        if "frames" in section.options and section.name in ("davis", "cityscapes_clips"):
            chosen["frames"] = "all"
        folder = self.data_dir or section.dir or None
        return data.load(section.name, split, data_dir=folder, **chosen)

    def clips(self, name: str) -> Dataset:
        """The clips that are scored, see `CLIPS`."""
        return CLIPS[name].of(self.dataset("val"), self.stills)

    def stream(self, way: Way) -> Stream:
        """A network under a schedule, tuned on frames of the training split if it asks for it."""
        trained = self.trained(way.head)
        cut = clockwork.stages if way.head == CUT else whole
        tuned_on = self._unlabeled() if way.schedule.endswith("%") else ()
        given = cut(trained.model), trained.variables, trained.task.normalization
        return Stream(*given, way.schedule, tuned_on=tuned_on)

    def _unlabeled(self) -> Iterator[np.ndarray]:
        dataset = self.dataset("train")
        for clip in dataset.clips[:TUNED_ON]:
            yield np.stack([dataset.source[index]["image"] for index in clip])

    def kept(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured, now or before."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, measure())
        return read(path, StudyError, _DAMAGED)


def scored(place: Place, way: Way, clips: str) -> dict[str, Any]:
    """The confusions of a network under a schedule, and how often its stages ran.

    Returns:
      "confusion" and "boundary", counts [K, K] of all pixels and of those of boundaries; "ran", the
      share of frames on which each stage ran; "schedule", with its threshold; "frames".
    """

    def measure() -> dict[str, Any]:
        stream, dataset = place.stream(way), place.clips(clips)
        confusion = np.zeros((2, dataset.num_classes, dataset.num_classes), np.int64)
        fired = []
        what = f"{place.folder.name} {way.name} {clips}"
        for clip in counted(dataset.clips, len(dataset.clips), what):
            stream.restart()
            for t, index in enumerate(clip):
                example = dataset.source[index]
                seen = stream(example["image"])
                fired.append(seen.fired)
                if t >= FILL or len(clip) <= FILL:
                    confusion += _confusions(example["label"], seen.classes, len(confusion[0]))
        return {
            "confusion": confusion[0].tolist(),
            "boundary": confusion[1].tolist(),
            "ran": np.mean(fired, 0),
            "schedule": str(stream.schedule),
            "frames": len(fired),
        }

    return place.kept(f"{clips}-{way.name}", measure)


def _confusions(label: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Of all pixels, and of those at boundaries, int64 [2, K, K]."""
    if (label == VOID).all():
        return np.zeros((2, count, count), np.int64)
    known = label != VOID
    cells = label.astype(np.int64) * count + classes
    chosen = known, known & boundary_band(label)
    counts = [np.bincount(cells[where], minlength=count**2) for where in chosen]
    return np.reshape(counts, (2, count, count))


def measures(found: dict[str, Any]) -> dict[str, float]:
    """Mean IU and frequency-weighted IU in %, of all pixels and of boundaries."""
    values = {}
    for name, words in (("confusion", ""), ("boundary", ", boundary")):
        scores = metrics.summarize(np.asarray(found[name]))
        values[f"mean IU{words}"] = 100 * scores["mean_iu"]
        values[f"fwIU{words}"] = 100 * scores["frequency_weighted_iu"]
    return values


def changes(place: Place, head: str) -> dict[str, Any]:
    """How much what is seen changes from frame to frame of the video.

    Args:
      place: the networks.
      head: of the network whose classes are compared; "pixels" for the frames themselves, by
        `rfjax.clockwork.difference`.

    Returns:
      "mean" and "deviation" over all "pairs" of neighboring frames.
    """
    change = _moved if head == "pixels" else _relabeled

    def measure() -> dict[str, Any]:
        dataset, look = place.clips("video"), _look(place, head)
        values = []
        for clip in dataset.clips:
            maps = (look(dataset.source[index]["image"]) for index in clip)
            values += [change(now, before) for before, now in itertools.pairwise(maps)]
        return {"mean": np.mean(values), "deviation": np.std(values), "pairs": len(values)}

    return place.kept(f"changes-{head}", measure)


def _look(place: Place, head: str) -> Callable[[np.ndarray], np.ndarray]:
    """What is compared of a frame."""
    if head == "pixels":
        return lambda frame: frame.astype(np.float32)
    stream = place.stream(Way(head, "oracle"))
    return lambda frame: stream(frame).classes


def _moved(frame: np.ndarray, before: np.ndarray) -> float:
    return float(clockwork.difference(frame, before))


def _relabeled(classes: np.ndarray, before: np.ndarray) -> float:
    return float(np.mean(classes != before))


def timed(place: Place, table: str, ways: Sequence[Way]) -> dict[str, float]:
    """Seconds of a frame by the name of a way, all measured in turns.

    Of every frame the quickest of some rounds counts, and the mean over frames is returned.

    Args:
      place: the networks.
      table: the name under which it is kept.
      ways: what is run.
    """

    def measure() -> dict[str, Any]:
        dataset = place.clips("video")
        frames = [dataset.source[index]["image"] for index in dataset.clips[0][:TIMED]]
        streams = [place.stream(way) for way in ways]
        _round(streams, frames[:1])  # compiles them
        seconds = np.array([_round(streams, frames) for _ in range(ROUNDS)])
        names = [way.name for way in ways]
        return dict(zip(names, seconds.min(0).mean(0), strict=True))

    return place.kept(f"times-{table}", measure)


def _round(streams: Sequence[Stream], frames: Sequence[np.ndarray]) -> np.ndarray:
    """Seconds [frames, streams]."""
    for stream in streams:
        stream.restart()
    return np.array([[_seconds(stream, frame) for stream in streams] for frame in frames])


def _seconds(stream: Stream, frame: np.ndarray) -> float:
    started = time.perf_counter()
    stream(frame)
    return time.perf_counter() - started
