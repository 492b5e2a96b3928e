"""The examples of docs/other_libraries.md run, and give what they say."""

import contextlib
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "other_libraries.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))


@contextlib.contextmanager
def defaults():
    """JAX as a user's program finds it, without the strictness of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def run(*titles: str) -> dict:
    """The names that the sections leave."""
    names: dict = {}
    with defaults():
        for title in titles:
            for example in re.findall(r"```python\n(.*?)```", SECTIONS[title], re.DOTALL):
                exec(example, names)
    return names


def needs(package: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(
        not found, reason=f"{package} is not installed: pip install {package}"
    )


def assert_learned(gradients, count: int) -> None:
    """So many arrays have a gradient, none of them zero."""
    leaves = [leaf for leaf in jax.tree.leaves(gradients) if hasattr(leaf, "shape")]
    assert len(leaves) == count
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in leaves)


def test_linen():
    names = run("Flax Linen")
    layer = names["variables"]["params"]["ComposedConv_0"]
    assert layer["kernel"].shape == (3, 3, 4, 16) and layer["covariance"].tolist() == [0.0]
    assert names["labelled"]["ComposedConv_0"] == {
        "kernel": "free", "covariance": "structure", "bias": "free"
    }  # fmt: skip


def test_nnx():
    losses = run("Flax Linen", "Flax NNX")["nnx_losses"]
    assert losses[2] < losses[1] < losses[0]


@needs("equinox")
def test_equinox():
    assert_learned(run("Flax Linen", "Flax NNX", "Equinox")["equinox_gradients"], 4)


@needs("haiku")
def test_haiku():
    names = run("Flax Linen", "Flax NNX", "Haiku")
    assert_learned(names["haiku_gradients"], 4)
    drawn = names["haiku_params"]["~"]
    assert {"kernel", "covariance"} < drawn.keys() and len(drawn) == 4


def test_steps_on_many_devices():
    names = run("Flax Linen", "A step on many devices")
    assert jax.device_count() == 8
    batch = (names["images"], names["labels"])
    with defaults():
        wanted, _, value = names["jit_step"](names["params"], names["state"], *batch)
    for way in ("jit", "mapped", "pmap"):
        np.testing.assert_allclose(names[f"{way}_value"], value, rtol=1e-5)
        for actual, leaf in zip(
            *map(jax.tree.leaves, (names[f"{way}_params"], wanted)), strict=True
        ):
            np.testing.assert_allclose(actual, leaf, atol=2e-4)  # a step of Adam is 1e-2


def test_explicit_mesh():
    names = run("Flax Linen", "Flax NNX", "A step on many devices", "A mesh of explicit axes")
    conv = names["rfjax"].blur_resample_conv
    loss = lambda kernel, sigma: (conv(names["images"], kernel, sigma) ** 2).mean()
    value, gradient = jax.value_and_grad(loss)(names["kernel"], names["sigma"])
    np.testing.assert_allclose(names["explicit_value"], value, rtol=1e-5)
    np.testing.assert_allclose(names["explicit_gradient"], gradient, atol=1e-5)
