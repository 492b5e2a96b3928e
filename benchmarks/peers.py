"""What we are measured against, as far as it is installed."""

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np


def find(name: str) -> ModuleType | None:
    """The module, or None where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)


def versions() -> dict[str, str]:
    """The peers that are installed."""
    found = {name: find(name) for name in ("jax", "scipy", "cv2", "torch", "torchvision", "kornia")}
    return {name: module.__version__ for name, module in found.items() if module is not None}


def ours(function: Callable, *arguments: Any) -> Callable[[], Any]:
    """A compiled function of ours on arguments that lie on the device, run to its end."""
    compiled = jax.jit(function)
    arguments = jax.device_put(arguments)
    return lambda: jax.block_until_ready(compiled(*arguments))


def with_gradients(function: Callable) -> Callable:
    """(result, its cotangents) of (cotangent, *arguments), as one training step needs them."""

    def both(cotangent, *arguments):
        y, pull = jax.vjp(function, *arguments)
        return y, pull(cotangent)

    return both


def torch_with_gradients(function: Callable, cotangent: Any, *leaves: Any) -> Callable[[], Any]:
    """The same of a PyTorch function whose arguments are tensors that want gradients."""
    import torch

    def run():
        y = function(*leaves)
        return y, torch.autograd.grad(y, leaves, cotangent)

    return run


def largest_error(got: Any, wanted: Any) -> float:
    """max |got - wanted| / max |wanted|."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.shape != wanted.shape:
        raise ValueError(f"shapes differ: {got.shape} and {wanted.shape}")
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())
