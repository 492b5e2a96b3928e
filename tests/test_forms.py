"""Every form of a separable blur: the values and gradients of the Toeplitz product."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax._engine import tuning
from rfjax._engine.plan import Filter, Form
from rfjax._engine.profile import Window
from rfjax.filtering import PADDINGS, plan
from tests import placements

RNG = np.random.default_rng(0)
FORMS = ("shift_add", "banded", "pallas")
# 70 pixels are more than a block of a banded product; 30 channels are no power of two.
X, COTANGENT = RNG.normal(size=(2, 2, 70, 30)).astype(np.float32)
SHARED, EACH = np.log([1.7]), np.log(RNG.uniform(0.4, 3.0, size=(2, 30, 1)))


def blur(algorithm, padding):
    return partial(rfjax.gaussian_blur, padding=padding, spatial_ndim=1, algorithm=algorithm)


def values_and_gradients(algorithm, padding, params):
    both = jax.jit(placements.values_and_gradients(blur(algorithm, padding)))
    return both(COTANGENT, X, jnp.asarray(params, jnp.float32))


@pytest.mark.parametrize("params", [SHARED, EACH], ids=["shared", "of each channel and example"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_values_and_gradients_of_every_form(padding, params):
    wanted = values_and_gradients("toeplitz", padding, params)
    for algorithm in FORMS:
        y, along_x, along_params = values_and_gradients(algorithm, padding, params)
        for got, known in zip((y, along_x), wanted, strict=False):
            np.testing.assert_allclose(got, known, atol=1e-6 * np.abs(known).max())
        # A sum over up to 4,200 numbers, most of which cancel.
        terms = np.sqrt(X.size / along_params.size)
        np.testing.assert_allclose(along_params, wanted[2], atol=1e-6 * terms)


@pytest.mark.parametrize("algorithm", FORMS[1:])
def test_forms_under_vmap_and_shard_map(algorithm):
    x = jnp.asarray(RNG.normal(size=(4, 12, 10, 3)), jnp.float32)
    function = partial(rfjax.gaussian_blur, algorithm=algorithm)
    operands = x, jnp.log(jnp.array([1.2]))
    wanted = placements.on_one_device(partial(rfjax.gaussian_blur), operands)
    # JAX's interpreter of Pallas does not know which arrays vary over a mesh.
    for place in ("vmap", "shard_map unchecked" if algorithm == "pallas" else "shard_map", "N"):
        placements.assert_same(place, function, (True, False), operands, wanted)


@pytest.mark.parametrize("sigma", [1e-6, 16.0, 300.0])
def test_a_sigma_that_no_form_holds_is_served_by_the_product(sigma):
    params = jnp.log(jnp.array([sigma], jnp.float32))
    wanted = blur("toeplitz", "edge")(X, params)
    for algorithm in FORMS:
        np.testing.assert_allclose(blur(algorithm, "edge")(X, params), wanted, atol=2e-6)


def test_what_a_gpu_takes_for_large_maps():
    large, sigmas = (1, 1024, 2048, 64), [1.0, 8.0, 30.0, 64.0, 200.0]
    forms = [plan(large, jnp.log(jnp.array([s])), platform="gpu").algorithms for s in sigmas]
    assert forms == [(name,) * 2 for name in ("shift_add", *["banded"] * 3, "toeplitz")]
    assert plan(large, jnp.zeros(1), platform="tpu").algorithms == ("toeplitz",) * 2
    assert Filter("zero", Window()).forms(2**22, 128, "gpu") == ()
    asked = plan(large, jnp.zeros(1), platform="gpu", algorithm="pallas")
    assert asked.algorithms == ("pallas",) * 2 and asked.static_half_sizes == (32, 32)


def test_a_cpu_takes_what_it_took():
    auto = Filter("zero", Window())
    for length, largest in ((7, 1), (64, 16), (128, 16), (512, 32), (4096, 32)):
        sizes = [size for size in tuning.SUM_SIZES if size <= largest]
        assert auto.forms(10**9, length, "cpu") == tuple(Form("shift_add", s) for s in sizes)


def test_the_forms_of_a_gpu_are_lowered_for_one():
    """What a GPU is given for a large map: sums, then bands, in a switch."""
    x = jax.ShapeDtypeStruct((1, 1024, 1024, 64), jnp.float32)
    traced = jax.jit(rfjax.gaussian_blur).trace(x, jnp.zeros(1))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.case") == 2
    assert "stablehlo.case" not in traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("padding", ["zero", "edge", "renormalized"])
def test_the_kernels_are_lowered_for_a_gpu(padding):
    """Forward and backward, an axis each; nothing but the choice of the product is a switch."""
    x = jax.ShapeDtypeStruct((1, 64, 64, 8), jnp.float32)
    function = partial(rfjax.gaussian_blur, padding=padding, algorithm="pallas")
    both = jax.jit(placements.values_and_gradients(function))
    text = both.trace(x, x, jnp.zeros(1)).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla.gpu.triton") == 4
