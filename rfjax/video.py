"""Segments a clip with a trained run whose stages run on clocks.

    python -m rfjax.video --workdir=runs/first --schedule=adaptive:0.25 CLIP --output=out

CLIP is a folder of frames, in the order of their names, or a video file. Of a clip `street` it
writes `out/street/frames/NAME.png`, the frame with its classes and under it which stages have run,
`out/street/classes/NAME.png` (class indices as a palette image), `out/street.gif` or `.mp4`, and
`out/street.json`: which stages ran on which frame, frames per second, and the time that was saved
against running everything, which is measured on some of the frames. Nothing is ever overwritten:
where a name is taken, a number is added to it.

A frame that cannot be read is passed over and told. A frame of another size ends the clip; what was
done is kept. A schedule NAME:N% is tuned on the first frames of the clip.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import _progress, predict
from rfjax._console import Parser, called, guarded, positive, tell
from rfjax._faults import Fault
from rfjax._files import write_json
from rfjax.training import folders

# Modules that need JAX, which takes seconds, are imported where they are used: a mistake on the
# command line is told before.

TUNED_ON = 48  # frames
COMPARED = 16  # frames on which everything is run as well
RATE = 12.0  # frames per second of an animation of a folder


class VideoError(Fault, ValueError):
    """A clip, a schedule or a run that cannot be taken; the message says which."""


def _schedule(text: str) -> str | tuple[int, ...]:
    """A name, or rates with commas between."""
    parts = text.split(",")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else text


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.video", description="Segments a clip; stages run on clocks.")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="folder of frames, or video file")
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the training run")
    parser.add_argument(
        "--schedule",
        type=_schedule,
        default="adaptive:0.25",
        help="oracle, skip, alternating, exponential, pipeline2, pipeline3, adaptive:THETA, "
        "pixels:THETA, confidence:THETA, NAME:N%%, or rates as 1,1,2 (default: adaptive:0.25)",
    )
    parser.add_argument("--cuts", type=_names, help="maps that end a stage (default: those fused)")
    parser.add_argument("--output", required=True, type=Path, help="directory for the results")
    parser.add_argument("--animation", choices=("gif", "mp4"), default="gif")
    parser.add_argument("--frames", type=positive, help="how many at most (default: all)")
    parser.add_argument("--step", type=int, help="checkpoint to take (default: the best one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if a frame could not be taken."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.video", partial(_video, options))


def _video(options: argparse.Namespace) -> int:
    """Segments the clip that the options name."""
    folders.check(options.workdir, step=options.step)
    from rfjax.data import video

    try:
        clip = video.open_clip(options.clip)
    except ValueError as error:
        raise VideoError(str(error)) from error
    predict.make_folder(options.output)
    trained = predict.load(options.workdir, step=options.step)
    print(f"checkpoint of step {trained.step} of {options.workdir}")
    streams = _streams(options, trained)
    predict.write_legend(options.output, trained)
    show = _Show(_place(options), np.asarray(trained.task.facts["palette"], np.uint8))
    total = min(clip.count, options.frames or clip.count)
    try:
        faults = _play(itertools.islice(clip.frames, total), total, streams, show)
    finally:  # what was done is kept, whatever ended it
        words = show.finish(options, clip.rate or RATE, str(streams[0].schedule))
    print("\n".join(words))
    return 1 if faults else 0


def _streams(options: argparse.Namespace, trained: Any) -> tuple[Any, Any]:
    """The network under the schedule, and with everything run."""
    from rfjax.clockwork.networks import stages
    from rfjax.tasks.video import Stream

    if not trained.task.facts.get("palette"):
        raise VideoError(f"{options.workdir}: want a run that segments, with colors of classes")
    try:
        cuts = options.cuts or tuple(trained.model.head.READS[:-1])
        given = stages(trained.model, cuts), trained.variables, trained.task.normalization
        tuned_on = [_first_frames(options)] if str(options.schedule).endswith("%") else ()
        return Stream(*given, options.schedule, tuned_on=tuned_on), Stream(*given, "oracle")
    except (ValueError, TypeError) as error:
        raise VideoError(f"{options.workdir}: {error}") from error


def _first_frames(options: argparse.Namespace) -> np.ndarray:
    """Frames to tune on, of the size of the first."""
    from rfjax.data import video

    frames = itertools.islice(video.open_clip(options.clip).frames, TUNED_ON)
    pixels = [frame.pixels for frame in frames if frame.pixels is not None]
    return np.stack([each for each in pixels if each.shape == pixels[0].shape])


def _place(options: argparse.Namespace) -> Path:
    """OUTPUT/CLIP, or with a number after it, where nothing of this name lies."""
    stems = predict.numbered(options.clip.resolve().stem)
    paths = (options.output / stem for stem in stems)
    endings = ("", ".gif", ".mp4", ".json")
    taken = lambda path: any(os.path.lexists(f"{path}{ending}") for ending in endings)
    return next(path for path in paths if not taken(path))


def _play(frames: Iterator[Any], total: int, streams: tuple[Any, Any], show: "_Show") -> int:
    """Shows every frame; returns how many could not be taken."""
    stream, everything = streams
    faults, compared = 0, max(1, total // COMPARED)
    for frame in _progress.counted(frames, total, "frames"):
        if frame.pixels is None:
            tell(f"{called('rfjax.video')}: error: {frame.name} is passed over: {frame.fault}")
            faults += 1
            continue
        if not show.names:
            for each in streams:  # compiles it
                each(frame.pixels)
                each.restart()
        show.check_size(frame.name, frame.pixels)
        seen, seconds = _timed(stream, frame.pixels)
        whole = _timed(everything, frame.pixels)[1] if len(show.names) % compared == 0 else None
        show.add(frame.name, frame.pixels, seen, (seconds, whole))
    if not show.names:
        raise VideoError("no frame of the clip can be read")
    return faults


def _timed(stream: Any, pixels: np.ndarray) -> tuple[Any, float]:
    started = time.perf_counter()
    seen = stream(pixels)
    return seen, time.perf_counter() - started


class _Show:
    """What was seen of a clip, and the files that it becomes.

    Args:
        place: the path of its files, without an ending.
        palette: of the classes.
    """

    def __init__(self, place: Path, palette: np.ndarray):
        self._place, self._palette = place, palette
        self._size: tuple[int, ...] | None = None
        self.names: list[str] = []
        self._fired: list[np.ndarray] = []
        self._seconds: list[tuple[float, float | None]] = []

    def check_size(self, name: str, pixels: np.ndarray) -> None:
        """Raises unless the frame has the size of those before it."""
        self._size = self._size or pixels.shape[:2]
        if pixels.shape[:2] != self._size:
            (height, width), (own, other) = self._size, pixels.shape[:2]
            raise VideoError(
                f"{name} has {own}x{other} pixels, the frames before it {height}x{width}: frames "
                "of a clip have one size"
            )

    def add(self, name: str, pixels: np.ndarray, seen: Any, seconds: tuple) -> None:
        """Writes the pictures of a frame."""
        from rfjax import visualize

        self.names.append(name)
        self._fired.append(seen.fired)
        self._seconds.append(seconds)
        classes, frame = (self._file(kind, name) for kind in ("classes", "frames"))
        visualize.palette_image(seen.classes, self._palette).save(classes)
        laid = visualize.overlay(pixels, seen.classes, self._palette)
        visualize.write_png(visualize.scheduled_frame(laid, self._fired), frame)

    def _file(self, kind: str, name: str) -> Path:
        path = self._place / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, options: argparse.Namespace, rate: float, schedule: str) -> list[str]:
        """Writes the animation and the numbers; returns them in words."""
        from rfjax import visualize

        if not self.names:
            return []
        animation = self._place.with_name(f"{self._place.name}.{options.animation}")
        frames = [self._file("frames", name) for name in self.names]
        visualize.animate(frames, animation, rate=rate)
        numbers = {"clip": str(options.clip), "schedule": schedule, **self._numbers()}
        report = self._place.with_name(f"{self._place.name}.json")
        write_json(report, numbers)
        return [_in_words(numbers), *map(str, (self._place, animation, report))]

    def _numbers(self) -> dict[str, Any]:
        """Times, and which stages ran on which frame."""
        seconds = float(np.mean([own for own, _ in self._seconds]))
        whole = float(np.mean([whole for _, whole in self._seconds if whole is not None]))
        return {
            "frames": len(self.names),
            "frames_per_second": 1 / seconds,
            "seconds": seconds,
            "seconds_of_everything": whole,
            "saved": 1 - seconds / whole,
            "ran": np.mean(self._fired, 0),
            "names": self.names,
            "fired": [fired.tolist() for fired in self._fired],
        }


def _in_words(numbers: dict[str, Any]) -> str:
    """Speed and savings."""
    shares = ", ".join(f"{100 * share:.0f} %" for share in numbers["ran"])
    return (
        f"{numbers['schedule']}: {numbers['frames']} frames, "
        f"{numbers['frames_per_second']:.1f} frames per second; "
        f"{1e3 * numbers['seconds']:.1f} ms a frame, {100 * numbers['saved']:.0f} % less than the "
        f"{1e3 * numbers['seconds_of_everything']:.1f} ms of everything; stages ran on {shares}"
    )


if __name__ == "__main__":
    sys.exit(main())
