"""Segmentations as annotations of COCO: what other programs for pictures read.

A picture has one annotation for each class in it, whose region is the whole of the class:

    {"id": 1, "image_id": 1, "category_id": 3, "area": 12, "bbox": [x, y, width, height],
     "iscrowd": 0, "segmentation": {"size": [H, W], "counts": [7, 12, 1]}}

`counts` are the lengths of runs down the columns, from the left: outside, inside, outside ...
Categories are numbered from 1: class k is the category k + 1, and 0 stands for none.

Reference: Lin et al., "Microsoft COCO: Common Objects in Context", 2014; the format at
  cocodataset.org, "Data format".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def run_lengths(mask: ArrayLike) -> list[int]:
    """The lengths of the runs of a mask [H, W] down its columns, beginning outside of it.

    Example:
        >>> run_lengths([[0, 1, 1], [0, 0, 1]])
        [2, 1, 1, 2]
        >>> run_lengths([[1, 1]])
        [0, 2]
    """
    line = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(line[1:] != line[:-1]) + 1
    lengths = np.diff(changes, prepend=0, append=line.size).tolist()
    return [0, *lengths] if line[0] else lengths


def annotation(mask: ArrayLike, *, image: int, category: int, number: int) -> dict[str, Any]:
    """The annotation of a region.

    Args:
        mask: [H, W], true within; not empty.
        image, category, number: ids of the picture, of the class, and of the annotation.
    """
    mask = np.asarray(mask, bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
    }


class Document:
    """Pictures with their classes, one after the other, as the content of one file.

    Args:
        class_names: of the K classes.

    Example:
        >>> document = Document(["ground", "tree"])
        >>> document.add("a.png", np.array([[0, 0, 1]]))
        >>> [found["bbox"] for found in document.content["annotations"]]
        [[0, 0, 2, 1], [2, 0, 1, 1]]
    """

    def __init__(self, class_names: Sequence[str]):
        categories = [{"id": k + 1, "name": str(name)} for k, name in enumerate(class_names)]
        self.content: dict[str, list] = {
            "images": [],
            "categories": categories,
            "annotations": [],
        }

    def add(self, name: str, classes: np.ndarray) -> None:
        """Adds a picture.

        Args:
            name: of its file.
            classes: [H, W] integers; what is no class is left out.
        """
        images, annotations = self.content["images"], self.content["annotations"]
        height, width = classes.shape
        image = len(images) + 1
        images.append({"id": image, "file_name": name, "height": height, "width": width})
        for k in np.unique(classes).tolist():
            if 0 <= k < len(self.content["categories"]):
                number = len(annotations) + 1
                annotations.append(
                    annotation(classes == k, image=image, category=k + 1, number=number)
                )
