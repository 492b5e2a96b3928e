"""Clips in the folders of DAVIS: what networks answer that are guided by marks in some frames.

Every frame of the clips of validation is encoded once for all questions, from the maps that the
training has kept. What is asked of a frame then costs the fusion alone.
"""

import functools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from rfjax import data, guide
from rfjax.data.dataset import VOID, Dataset
from rfjax.data.episodes import Rules, marked
from rfjax.models.stages import Start
from rfjax.studies.guided import tuning
from rfjax.studies.guided.tables import Question
from rfjax.tasks.metrics import quotient
from rfjax.training import maps, runs

See = Callable[[int], np.ndarray]  # the classes of a frame
Learn = Callable[[Sequence[int], Sequence[np.ndarray]], See]
RATE = 3e-4  # of fine-tuning


@functools.lru_cache(maxsize=16)
def opened(workdir: Path) -> "Clips":
    """The network of a run with the clips, read once."""
    return Clips(workdir)


class Clips:
    """A trained network and the frames of the clips of validation.

    Args:
      workdir: of a run on episodes of clips.
    """

    def __init__(self, workdir: Path):
        self._trained = trained = runs.load(workdir)
        section = trained.config.data
        frames = data.load(section.options.of, "val", data_dir=section.dir or None)
        of = (trained.config, workdir, trained.model, trained.variables, trained.task)
        self._frames: Dataset = maps.with_maps(*of, frames)
        self.clips = frames.clips
        self.labels = [frames.source[index]["label"] for index in range(len(frames))]
        self._size = self.labels[0].shape

    def answer(self, question: Question) -> dict[str, float]:
        """The positive IU of all frames that are not marked, and how long learning took.

        Returns:
          "positive_iu", hits over the union of all frames together; "clip_iu", the mean of that of
          each clip; "seconds", in which what is marked in a clip is learned, the mean over clips.
        """
        learn = self._learner(question)
        learn(*self._support(question, self.clips[0]))(self.clips[0][0])  # compiles it
        counts, seconds = [], []
        for clip in self.clips:
            frames, marks = self._support(question, clip)
            started = time.perf_counter()
            see = learn(frames, marks)
            seconds.append(time.perf_counter() - started)
            queries = clip if question.kind == "interactive" else sorted({*clip} - {*frames})
            counts.append(sum(_overlap(self.labels[index], see(index)) for index in queries))
        hits, union = np.transpose(counts)
        return {
            "positive_iu": float(quotient(hits.sum(), union.sum())),
            "clip_iu": float(np.mean(quotient(hits, union))),
            "seconds": float(np.mean(seconds)),
        }

    def _support(self, question: Question, clip: range) -> tuple[list[int], list[np.ndarray]]:
        """The frames of a clip that are marked, and the marks: all, or some at equal distances."""
        rules = Rules(question.kind, question.ways, points=question.points)
        if question.kind == "interactive":
            frames = list(clip)
        else:
            frames = [clip[len(clip) * shot // question.shots] for shot in range(question.shots)]
        return frames, [marked(np.random.default_rng(i), self.labels[i], rules) for i in frames]

    def _learner(self, question: Question) -> Learn:
        """What takes frames and their marks, and returns the function that segments a frame."""
        if question.tuned:
            return self._tuned(question.tuned)
        if self._trained.task.fusion == "foreground":
            return lambda frames, marks: self._alone
        return self._by_itself if question.kind == "interactive" else self._guided

    def _start(self, indices: Sequence[int]) -> Start:
        """The maps of frames that the encoder starts from."""
        found = [self._frames.source[index] for index in indices]
        names = [name for name in found[0] if name.startswith("map/")]
        stacked = {name[4:]: np.stack([one[name] for one in found]) for name in names}
        return Start({name: x.astype(np.float32) for name, x in stacked.items()}, self._size)

    def _encoded(self, index: int) -> jax.Array:
        """The features of a frame, [1, h, w, C]."""
        return jax.block_until_ready(self._encode(self._start([index])))

    @functools.cached_property
    def _encode(self) -> Callable[[Start], jax.Array]:
        encode = jax.jit(partial(self._trained.model.apply, method="encode"))
        return partial(encode, jax.device_put(self._trained.variables))

    @functools.cached_property
    def _network(self) -> guide.Guided:
        """The network with the features of all frames, to be guided."""
        network = guide.Guided(self._trained)
        for index in range(len(self.labels)):
            network.keep(index, self._encoded(index))
        return network

    @functools.cached_property
    def _blank(self) -> np.ndarray:
        """Stands for every picture, as their features are known."""
        return np.broadcast_to(np.uint8(0), (*self._size, 3))

    def _guided(self, frames: Sequence[int], marks: Sequence[np.ndarray]) -> See:
        """Guided by frames, which are encoded anew, as their time counts."""
        for frame in frames:
            self._network.keep(frame, self._encoded(frame))
        see = self._marked(frames, marks)
        see(frames[0])
        return see

    def _by_itself(self, frames: Sequence[int], marks: Sequence[np.ndarray]) -> See:
        known = dict(zip(frames, marks, strict=True))
        return lambda index: self._marked([index], [known[index]])(index)

    def _marked(self, frames: Sequence[int], marks: Sequence[np.ndarray]) -> See:
        self._network.clear()
        for frame, own in zip(frames, marks, strict=True):
            self._network.mark(frame, self._blank, own)
        return lambda index: self._network.segment(index, self._blank)

    def _tuned(self, steps: int) -> Learn:
        learner = tuning.Learner(self._trained, RATE)

        def learn(frames: Sequence[int], marks: Sequence[np.ndarray]) -> See:
            labels = np.stack(marks).astype(np.int32)
            chosen = np.random.default_rng(0).integers(0, len(frames), (steps, 1))
            params = jax.block_until_ready(learner.learn(self._start(frames), labels, chosen))
            return lambda index: learner.classes(params, self._start([index]))[0]

        return learn

    @functools.cached_property
    def _learner_alone(self) -> tuning.Learner:
        return tuning.Learner(self._trained, RATE)

    def _alone(self, index: int) -> np.ndarray:
        """The classes of a frame without guidance."""
        params = self._trained.variables["params"]
        return self._learner_alone.classes(params, self._start([index]))[0]


def _overlap(label: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How many pixels are of the object in both, and in one of them, int64 [2]."""
    known = label != VOID
    true, found = (label == 1) & known, (classes == 1) & known
    return np.array([(true & found).sum(), (true | found).sum()])
