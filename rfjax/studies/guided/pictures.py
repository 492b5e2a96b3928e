"""Pictures of trained networks: a mask as clicks are added, and objects that are there twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import guide, visualize
from rfjax.data.episodes import COLORS
from rfjax.studies.guided import measuring
from rfjax.studies.guided.networks import INTERACTIVE, LOCAL
from rfjax.studies.guided.tables import Question
from rfjax.tasks.guided import SUPPORT
from rfjax.tasks.losses import VOID
from rfjax.training import runs

NEEDED = (INTERACTIVE, LOCAL)
CLICKS = (1, 2, 5)
_SCENES = 4


def write(workdirs: Mapping[str, Sequence[Path]], folder: Path) -> list[Path]:
    """Draws with the networks of the first seed; returns the paths."""
    trained = {name: runs.load(workdirs[name][0]) for name in NEEDED}
    question = Question(kind="interactive")
    dataset = measuring.episodes(trained[INTERACTIVE].config, question, count=_SCENES)
    examples = [dataset.source[index] for index in range(_SCENES)]
    pictures = {
        "clicks": _clicks(trained[INTERACTIVE], examples),
        "twice": _twice(trained, examples),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in pictures]
    for path, figure in zip(paths, pictures.values(), strict=True):
        visualize.save(figure, path)
    return paths


def _clicks(trained: Any, examples: Sequence[Mapping[str, Any]]) -> Any:
    """Of each image in a row: its mask after 1, 2 and 5 clicks, each of the first on the object."""
    rows = []
    for number, example in enumerate(examples):
        rng, image = np.random.default_rng(number), example["image"]
        guided, row = guide.Guided(trained), [image]
        for count in range(1, max(CLICKS) + 1):
            label = count % 2  # on the object, beside it, and so on
            pixels = np.argwhere(example["label"] == label)
            guided.click(number, image, rng.choice(pixels), label)
            if count in CLICKS:
                row.append(guide.shown(guided, number, image))
        rows.append(row)
    titles = ("image", *(f"{n} click" + "s" * (n > 1) for n in CLICKS))
    return visualize.image_rows(rows, titles=titles)


def _twice(trained: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> Any:
    """Images beside themselves, of which one half is marked."""
    rows = []
    for example in examples:
        image = np.concatenate([example["image"]] * 2, 1)
        marks = np.pad(example[SUPPORT], ((0, 0), (0, 0), (0, example["image"].shape[1])),
                       constant_values=VOID)  # fmt: skip
        label = np.concatenate([example["label"]] * 2, 1)
        asked = {"image": image, "label": label, SUPPORT: marks}
        row = [visualize.marked_image(image, marks[0], COLORS)]
        for name in NEEDED:
            (classes,), _ = trained[name].predict([asked])
            row.append(visualize.colorize(classes, COLORS))
        rows.append(row)
    return visualize.image_rows(rows, titles=("marks in one half", "global", "local"))
