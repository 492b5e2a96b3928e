"""Measures of segmentation, all from one confusion matrix of pixel counts."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rfjax.tasks.losses import VOID


def confusion_matrix(labels: jax.Array, predictions: jax.Array, *, num_classes: int) -> jax.Array:
    """The numbers of pixels of each true (row) and predicted (column) class.

    Args:
        labels: [...] integers in 0..num_classes-1, or `VOID` (255) for pixels that are not counted.
        predictions: [...] integers in 0..num_classes-1.
        num_classes: static.

    Returns:
        int32 [num_classes, num_classes]; exact up to 2^31 pixels, so add matrices of batches up in
        int64 on the host.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> confusion_matrix(jnp.array([0, 0, 1, VOID]), jnp.array([0, 1, 1, 1]), num_classes=2)
        Array([[1, 1],
               [0, 1]], dtype=int32)
    """
    if labels.shape != predictions.shape:
        raise ValueError(
            f"predictions must have shape {labels.shape}, as labels; got {predictions.shape}"
        )
    cell = labels.astype(jnp.int32) * num_classes + predictions.astype(jnp.int32)
    # Void pixels are counted in one cell more, which is then dropped.
    cell = jnp.where(labels == VOID, num_classes**2, cell)
    counts = jnp.zeros(num_classes**2 + 1, jnp.int32).at[cell.reshape(-1)].add(1)
    return counts[:-1].reshape(num_classes, num_classes)


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, nan where the latter is zero."""
    safe = np.where(denominator > 0, denominator, 1)
    return np.where(denominator > 0, numerator / safe, np.nan)


def widened(array: np.ndarray) -> np.ndarray:
    """Sums of a batch as sums of many: integers in int64, other numbers in float64."""
    whole = np.issubdtype(np.asarray(array).dtype, np.integer)
    return np.asarray(array, np.int64 if whole else np.float64)


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are defined, nan without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def summarize(confusion: np.ndarray) -> dict[str, float | list[float]]:
    """The measures of segmentation of a confusion matrix C (row true, column predicted).

        class_iu  IU_i = C_ii / (sum_j C_ij + sum_j C_ji - C_ii)
        mean_iu   the mean of IU_i
        pixel_accuracy  sum_i C_ii / sum_ij C_ij
        mean_accuracy   the mean of C_ii / sum_j C_ij
        frequency_weighted_iu   sum_i (sum_j C_ij) IU_i / sum_ij C_ij

    Args:
        confusion: [K, K] counts.

    Returns:
        The five, as Python floats (`class_iu`: a list of K). The IU of a class that is neither true
        nor predicted anywhere is nan and left out of `mean_iu`; the accuracy of one that is nowhere
        true is left out of `mean_accuracy`. Without any pixel all are nan.

    Example:
        >>> summarize(np.array([[3, 1], [0, 4]]))["class_iu"]
        [0.75, 0.8]

    Reference: Long, Shelhamer, Darrell, Fully Convolutional Networks, section 5.
    """
    counts = np.asarray(confusion, np.float64)
    hits, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    class_iu = quotient(hits, true + predicted - hits)
    pixels = counts.sum()
    weighted = np.where(true > 0, true * class_iu, 0.0).sum()
    return {
        "mean_iu": _mean(class_iu),
        "pixel_accuracy": float(quotient(hits.sum(), pixels)),
        "mean_accuracy": _mean(quotient(hits, true)),
        "frequency_weighted_iu": float(quotient(weighted, pixels)),
        "class_iu": class_iu.tolist(),
    }


def f1(confusion: np.ndarray, groups: Sequence[Sequence[int]]) -> list[float]:
    """2 TP / (2 TP + FP + FN) of the pixels of each group of classes, which count as one class.

    A pixel whose class is taken for another one of the same group is right.

    Args:
        confusion: [K, K] counts.
        groups: of each the numbers of its classes.

    Returns:
        F1 of each, nan for one that is neither true nor predicted anywhere.

    Example:
        >>> f1(np.array([[3, 1, 0], [0, 2, 1], [0, 1, 2]]), [[1], [1, 2]])
        [0.5714285714285714, 0.9230769230769231]

    Reference: Smith et al., "Exemplar-Based Face Parsing", CVPR 2013, section 5.
    """
    counts = np.asarray(confusion, np.float64)
    members = np.array([np.isin(range(len(counts)), group) for group in groups], np.float64)
    members = members.reshape(len(groups), len(counts))
    hits = np.einsum("gi,ij,gj->g", members, counts, members)
    return quotient(2 * hits, members @ (counts.sum(0) + counts.sum(1))).tolist()


def by_class(
    confusion: np.ndarray | None, names: Sequence[str], class_iu: Sequence[float] | None = None
) -> list[list[str]]:
    """A row for each class: its name, its IU where given, its accuracy, and its share; percent.

    Args:
        confusion: [K, K] counts; None for no rows.
        names: of the K classes.
        class_iu: K numbers.

    Example:
        >>> by_class(np.array([[3, 1], [0, 4]]), ["sky", "road"])
        [['sky', '75.00', '50.00'], ['road', '100.00', '50.00']]
    """
    if confusion is None:
        return []
    counts = np.asarray(confusion, np.float64)
    true = counts.sum(1)
    columns = [quotient(np.diag(counts), true), quotient(true, counts.sum())]
    if class_iu is not None:
        columns.insert(0, np.asarray(class_iu))
    return [
        [name, *(percent(column[index]) for column in columns)] for index, name in enumerate(names)
    ]


def percent(share: float) -> str:
    """A share in percent, or a dash where it is not defined.

    Example:
        >>> percent(0.5), percent(float("nan"))
        ('50.00', '–')
    """
    return "–" if np.isnan(share) else f"{100 * share:.2f}"
