"""The limits of cards, as their makers state them."""

from typing import NamedTuple


class Card(NamedTuple):
    """What a card can do in a second, at most."""

    name: str
    memory: float  # bytes read or written
    float32: float  # operations of float32 outside of matrix units
    bfloat16: float  # operations of matrix units, without sparsity

    def seconds(self, *, bytes: float, flops: float, dtype: str = "float32") -> float:
        """The least time of a program that moves so much, and computes it in such numbers."""
        return max(bytes / self.memory, flops / getattr(self, dtype))


# By what a device's kind, as JAX tells it, contains.
CARDS = {
    "H100 80GB HBM3": Card("H100", memory=3.35e12, float32=67e12, bfloat16=989e12),
    "H200": Card("H200", memory=4.8e12, float32=67e12, bfloat16=989e12),
}


def find(kind: str) -> Card | None:
    """The card of a device's kind; None for one that is not known, which gets no ratios.

    Example:
        >>> find("NVIDIA H200").name, find("cpu")
        ('H200', None)
    """
    return next((card for part, card in CARDS.items() if part in kind), None)
