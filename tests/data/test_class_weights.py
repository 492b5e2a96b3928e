"""Median frequency balancing, measured in labels, against its definition."""

import numpy as np
import pytest

from rfjax.data import dataset, survey

VOID = dataset.VOID


class Labels:
    """Examples of labels alone, of which one may be broken."""

    def __init__(self, labels, broken=None):
        self._labels, self._broken = labels, broken

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        if index == self._broken:
            raise OSError(f"labels_{index}.png is truncated")
        return {"label": self._labels[index], "id": str(index)}


def measured(labels, classes=4, **options):
    data = dataset.Dataset("toys", "train", Labels(labels, **options), num_classes=classes)
    return survey.median_frequency(survey.survey(data))


def test_weights_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    chances = ((0.9, 0.1, 0, 0), (0.6, 0, 0.1, 0.3), (1, 0, 0, 0), (0.2, 0.5, 0.2, 0.1))
    labels = [rng.choice([0, 1, 2, VOID], (9, 8), p=p).astype(np.uint8) for p in chances]
    shares = {}
    for k in range(3):
        there = [label for label in labels if (label == k).any()]
        pixels = sum((label == k).sum() for label in there)
        shares[k] = pixels / sum((label != VOID).sum() for label in there)
    middle = np.median(list(shares.values()))
    wanted = [*(middle / shares[k] for k in range(3)), 0.0]  # no pixel has the last class
    np.testing.assert_allclose(measured(labels), wanted, rtol=1e-12)


def test_what_cannot_be_measured():
    void = np.full((3, 3), VOID, np.uint8)
    with pytest.raises(ValueError, match="class weights cannot be measured, since every training"):
        measured([void, void])
    with pytest.raises(ValueError, match=r"labels_1.png is truncated"):
        measured([np.zeros((3, 3), np.uint8)] * 2, broken=1)
