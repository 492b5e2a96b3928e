"""Kernels of deformable sampling: the values and all gradients of gathers and scatters."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax._engine import tuning
from rfjax._engine.plan import Reading
from tests import placements

RNG = np.random.default_rng(0)
MAP, OUTPUTS = (2, 7, 9, 6), (2, 7, 9)


def normal(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


X, KERNEL = normal(*MAP), normal(3, 3, 6, 5)
# Many taps lie outside of the map, and some pixels are read by several taps of a tile.
OFFSETS = normal(*OUTPUTS, 9, 2, scale=3.0)
# name: options, operands (x, kernel, offsets, mask)
CASES = {
    "free": ({}, (X, KERNEL, OFFSETS)),
    "shared": ({}, (X, KERNEL, normal(9, 2))),
    "stride 2, dilation 2": (
        {"stride": 2, "dilation": 2},
        (X, KERNEL, normal(2, 4, 5, 9, 2, scale=2.0)),
    ),
    "masked": ({}, (X, KERNEL, OFFSETS, normal(*OUTPUTS, 9))),
    "of offset groups, masked": (
        {},
        (X, KERNEL, normal(*OUTPUTS, 2, 9, 2), normal(*OUTPUTS, 2, 9)),
    ),
    "of channel groups": ({}, (X, normal(3, 3, 2, 6), OFFSETS)),
    "of both groups": ({}, (X, normal(3, 3, 3, 4), normal(*OUTPUTS, 3, 9, 2))),
    "narrow": ({}, (normal(1, 5, 5, 40), normal(1, 1, 40, 2), normal(1, 5, 5, 1, 2))),
    "on pixels": ({}, (X, KERNEL, jnp.round(OFFSETS))),
    "far away": ({}, (X, KERNEL, 1e9 * OFFSETS)),
}


@cache
def deform(algorithm, **options):
    def function(x, kernel, offsets, mask=None):
        return rfjax.deformable_conv(x, kernel, offsets, mask=mask, algorithm=algorithm, **options)

    return function


@cache
def compiled(algorithm, **options):
    return jax.jit(placements.values_and_gradients(deform(algorithm, **options)))


def values_and_gradients(algorithm, operands, **options):
    like = jax.eval_shape(deform(algorithm, **options), *operands)
    cotangent = np.random.default_rng(1).normal(size=like.shape).astype(like.dtype)
    return compiled(algorithm, **options)(cotangent, *operands)


def assert_close(got, wanted, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("name", CASES)
def test_values_and_all_gradients(name):
    options, operands = CASES[name]
    wanted = values_and_gradients("gather", operands, **options)
    assert_close(values_and_gradients("pallas", operands, **options), wanted)


def test_several_tiles_and_shares(monkeypatch):
    monkeypatch.setattr(tuning, "READ_TILE", (32, 16, 16))  # shapes that no other test has
    monkeypatch.setattr(tuning, "SHARE_OUTPUTS", 40)
    x, kernel = normal(2, 7, 9, 20), normal(3, 3, 20, 24)  # no multiples of a tile
    wanted = values_and_gradients("gather", (x, kernel, OFFSETS))
    assert_close(values_and_gradients("pallas", (x, kernel, OFFSETS)), wanted)


def test_forms_agree_wherever_the_program_runs():
    x, offsets = normal(4, 5, 6, 3), normal(4, 5, 6, 9, 2)
    operands = x, normal(3, 3, 3, 4), offsets
    wanted = placements.on_one_device(deform("gather"), operands)
    # JAX's interpreter of Pallas does not know which arrays vary over a mesh.
    for place in ("vmap", "shard_map unchecked"):
        placements.assert_same(place, deform("pallas"), (True, False, True), operands, wanted)


def test_narrow_types_and_second_derivatives():
    operands = X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16), OFFSETS
    wanted = values_and_gradients("gather", operands)
    got = values_and_gradients("pallas", operands)
    assert [a.dtype for a in jax.tree.leaves(got)] == [a.dtype for a in jax.tree.leaves(wanted)]
    assert_close(got, wanted, 1e-2)  # a rounding of bfloat16 here and there

    def curvature(algorithm):
        x, kernel, offsets = X[:1, :2, :2], KERNEL[:1, :1], OFFSETS[:1, :2, :2, :1]
        function = deform(algorithm)
        slope = jax.grad(lambda scale: jnp.sum(function(x, kernel, scale * offsets) ** 2))
        return jax.jit(jax.grad(slope))(1.0)

    np.testing.assert_allclose(curvature("pallas"), curvature("gather"), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_kernels_are_lowered_for_a_gpu(dtype):
    """Forward, and two backward; a sum over shares is XLA's."""
    x, kernel = (jax.ShapeDtypeStruct(s, dtype) for s in ((1, 64, 48, 40), (3, 3, 40, 24)))
    y = jax.ShapeDtypeStruct((1, 64, 48, 24), dtype)
    offsets = jax.ShapeDtypeStruct((1, 64, 48, 9, 2), jnp.float32)
    text = (
        compiled("pallas")
        .trace(y, x, kernel, offsets)
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )
    assert text.count("xla.gpu.triton") == 3 and "stablehlo.gather" not in text


def test_what_is_planned():
    shapes = (1, 64, 64), (1, 64, 64, 64), (9, 64, 64)
    for platform, wanted in (("cpu", "pallas"), ("gpu", "pallas"), ("tpu", "gather")):
        assert Reading("pallas").form(*shapes, jnp.float32, platform) == wanted
    assert Reading().form(*shapes, jnp.float32, "cpu") == "gather"
    with pytest.raises(ValueError, match="algorithm is one of auto, gather, pallas, native; got"):
        rfjax.sampled_conv(X, KERNEL, OFFSETS, algorithm="scatter")
