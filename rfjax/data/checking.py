"""A look at a data set before it is used, so that what is wrong with it is found at once."""

import numpy as np

from rfjax.data.dataset import Dataset


def check(dataset: Dataset, *, samples: int = 8) -> None:
    """Reads a few examples, spread over the data set from the first to the last.

    Args:
        dataset: from `rfjax.data.load`.
        samples: how many are read.

    Raises:
        ValueError: the data set is empty, or an example is not a picture with labels of its size;
        names it. Whatever else the data set raises for a file that it cannot read.
    """
    count = len(dataset.source)
    if not count:
        raise ValueError(f"the {dataset.split} split of {dataset.name} is empty")
    channels = len(dataset.mean)
    for index in np.unique(np.linspace(0, count - 1, min(samples, count)).astype(int)):
        example = dataset.source[int(index)]
        image, label, name = example["image"], example["label"], example["id"]
        if image.ndim != 3 or image.shape[-1] != channels or image.shape[:2] != label.shape:
            raise ValueError(
                f"{name}: the image has shape {image.shape}, its label {label.shape}; want "
                f"(height, width, {channels}) and (height, width)"
            )
        wrong = np.setdiff1d(label, [*range(dataset.num_classes), 255])
        if wrong.size:
            raise ValueError(f"{name} has label values {wrong.tolist()} outside the classes")
