"""How a blur is computed: the plan, its override, and blocks, none of which changes a result."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import filtering
from rfjax._engine import tuning
from rfjax._engine.blocks import Limits
from rfjax._engine.plan import Filter, Plane
from rfjax.gaussian import Window

X = np.random.default_rng(0).normal(size=(4, 11, 9, 6)).astype(np.float32)
AXES, PLANE = Filter("zero", Window()), Plane(100, 100, "zero", Window())
SHARES = {"shared": (2,), "per channel": (6, 2), "both": (4, 6, 2)}


def limit(monkeypatch, form, whole, split):
    """Lets a CPU filter no more numbers at a time, for AXES or a PLANE."""
    monkeypatch.setattr(tuning, f"{form}_WHOLE", whole)
    monkeypatch.setattr(tuning, f"{form}_SPLIT", split)


@pytest.mark.parametrize("algorithm", ["shift_add", "toeplitz"])
@pytest.mark.parametrize("padding", filtering.PADDINGS)
def test_algorithms_agree(algorithm, padding):
    blur = jax.jit(rfjax.gaussian_blur, static_argnames=("padding", "algorithm"))
    for sigma in (0.5, 2.0, 40.0):
        params = jnp.log(jnp.array([sigma, 0.7 * sigma]))
        wanted = blur(X, params, padding=padding)
        got = blur(X, params, padding=padding, algorithm=algorithm)
        np.testing.assert_allclose(got, wanted, atol=2e-6)


def value_and_gradients(params, padding="renormalized"):
    """Of a loss that is not linear in the blur, compiled anew."""
    jax.clear_caches()

    def loss(x, params):
        return jnp.sin(rfjax.gaussian_blur(x, params, padding=padding)).sum()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(X, params)


@pytest.mark.parametrize("shape", [*SHARES.values(), (3,), (4, 6, 3)])
def test_blocks_change_nothing(shape, monkeypatch):
    monkeypatch.setattr(tuning, "DENSE_GRID", 2)  # both forms of a plane, in half of the sizes
    params = np.log(np.random.default_rng(1).uniform(0.4, 2.4, size=shape))
    params = params.astype(np.float32)
    wanted = value_and_gradients(params)
    example = X[0].size
    blocks = {(2, 6): (2 * example, 1), (1, 3): (1, example // 2)}
    monkeypatch.setattr(tuning, "LEAST_CHANNELS", 1)
    for block, sizes in blocks.items():
        for form in ("AXES", "PLANE"):
            limit(monkeypatch, form, *sizes)
        assert Limits(*sizes).block(X.shape) == block
        got = value_and_gradients(params)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("whole", [X.size, X[0].size])
def test_one_pass_over_both_axes_is_the_two(share, whole, monkeypatch):
    sigmas = np.random.default_rng(2).uniform(0.2, 0.5, size=SHARES[share])
    params = np.log(sigmas).astype(np.float32)
    limit(monkeypatch, "AXES", whole, whole)
    jax.clear_caches()
    at_once = rfjax.gaussian_blur(X, params)
    monkeypatch.setattr(tuning, "FUSED", 0)  # no half size of any axis
    jax.clear_caches()
    np.testing.assert_allclose(at_once, rfjax.gaussian_blur(X, params), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("share", ["shared", "per channel"])
@pytest.mark.parametrize("padding", ["zero", "edge", "renormalized"])
def test_wide_maps_are_filtered_as_their_channels_are(padding, share):
    """Rows of over a thousand numbers are added up, and multiplied by matrices, in other ways."""
    rng = np.random.default_rng(4)
    x, weights = rng.normal(size=(2, 2, 16, 24, 48)).astype(np.float32)
    for sigma in (1.0, 30.0):
        shape = (48, 2) if share == "per channel" else (2,)
        params = np.log(sigma * rng.uniform(0.8, 1.0, size=shape)).astype(np.float32)

        @jax.jit
        def gradients(x, weights, params):
            loss = lambda x, p: (weights * rfjax.gaussian_blur(x, p, padding=padding)).sum()
            return jax.grad(loss, argnums=(0, 1))(x, params)

        along_x, along_params = gradients(x, weights, params)
        parts = [slice(start, start + 6) for start in range(0, 48, 6)]
        narrow = [
            gradients(x[..., k], weights[..., k], params[k] if share == "per channel" else params)
            for k in parts
        ]
        wanted = np.concatenate([part[0] for part in narrow], -1)
        np.testing.assert_allclose(along_x, wanted, atol=2e-6)
        join = np.concatenate if share == "per channel" else sum
        np.testing.assert_allclose(along_params, join([part[1] for part in narrow]), atol=1e-3)


def test_a_channel_without_a_sigma_leaves_the_others_alone():
    params = jnp.zeros((6, 1)).at[2].set(jnp.nan)
    y = np.asarray(rfjax.gaussian_blur(X, params))
    wanted = rfjax.gaussian_blur(X, jnp.zeros(1))
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(y[..., others], wanted[..., others], atol=1e-6)


def test_gradients_of_gradients_in_blocks(monkeypatch):
    params = jnp.log(jnp.array([1.3]))
    x = X[:, 0]

    def curvature():
        jax.clear_caches()
        loss = lambda p: (rfjax.gaussian_blur(x, p, spatial_ndim=1) ** 2).mean()
        return jax.jit(jax.grad(lambda p: jax.grad(loss)(p)[0]))(params)

    wanted = curvature()
    limit(monkeypatch, "AXES", x[0].size, x[0].size)
    np.testing.assert_allclose(curvature(), wanted, rtol=1e-4)


def test_block_shapes():
    separable, full = AXES.limits.block, PLANE.limits.block
    for shape in ((1, 128, 128, 64), (8, 64, 64, 32), (3, 7, 1)):
        assert separable(shape) == (shape[0], shape[-1])
    assert separable((64, 64, 64, 32)) == (16, 32)
    assert separable((2, 100, 100, 512)) == (1, 64)
    assert full((8, 64, 64, 32)) == (2, 32)
    assert full((2, 100, 100, 512)) == (1, 16)


def test_blocks_are_no_narrower_than_a_cache_line_likes():
    assert AXES.limits.block((1, 1024, 1024, 64)) == (1, 8)
    assert AXES.limits.block((1, 1024, 1024, 18)) == (1, 9)
    for channels in (3, 19):
        assert AXES.limits.block((2, 1024, 1024, channels)) == (1, channels)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_plan_of_separable_covariances(platform):
    plan = rfjax.filtering.plan((2, 64, 512, 8), jnp.zeros(1), platform=platform)
    assert plan.half_sizes == (2, 2)
    if platform == "cpu":
        assert plan.algorithms == ("shift_add", "shift_add")
        assert plan.static_half_sizes == (2, 2)
    else:
        assert plan.algorithms == ("toeplitz", "toeplitz")
        assert plan.static_half_sizes == (63, 511)
        assert plan.block == (2, 8)


def test_plan_follows_the_largest_covariance_and_the_override():
    params = jnp.log(jnp.array([[1.0, 1.0], [3.0, 30.0]]))
    plan = rfjax.filtering.plan((100, 100, 2), params, platform="cpu")
    assert plan.half_sizes == (6, 60)
    assert plan.algorithms == ("shift_add", "toeplitz")
    options = dict(platform="cpu", algorithm="toeplitz")
    plan = rfjax.filtering.plan((100, 100, 2), params, **options)
    assert plan.algorithms == ("toeplitz", "toeplitz")


def test_plan_of_full_covariances():
    plan = rfjax.filtering.plan((100, 100, 2), rfjax.from_ellipse(6.0, 2.0, 0.5), platform="cpu")
    assert plan.algorithms == ("fourier",)
    assert plan.block == (1, 2)
    assert all(s >= n for s, n in zip(plan.static_half_sizes, plan.half_sizes, strict=True))
    plan = rfjax.filtering.plan((100, 100, 2), rfjax.from_ellipse(1.2, 0.8, 0.5), platform="cpu")
    assert plan.algorithms == ("shift_add",)


def test_errors():
    full = jnp.zeros(3)
    with pytest.raises(ValueError, match="algorithm must be 'auto'; got 'toeplitz'"):
        rfjax.gaussian_blur(X, full, algorithm="toeplitz")
    with pytest.raises(ValueError, match=r"algorithm is one of auto, .*, native; got 'fft'"):
        rfjax.gaussian_blur(X, jnp.zeros(1), algorithm="fft")
    with pytest.raises(ValueError, match="params must be known"):
        jax.jit(lambda p: rfjax.filtering.plan((8, 8, 1), p).half_sizes)(jnp.zeros(1))
    with pytest.raises(ValueError, match="2 spatial axes"):
        rfjax.filtering.plan((8, 8), jnp.zeros(1))


def test_the_page_on_performance_tells_what_is_planned(capsys):
    page = (Path(__file__).parent.parent / "docs" / "performance.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print.*  # (.*)", example)


def test_a_known_sigma_is_computed_as_a_traced_one_is():
    """Where XLA sees through the switch, it fuses passes and pads into scalar code."""
    x, params = jnp.zeros((1, 128, 128, 64)), jnp.log(jnp.array([4.0]))

    def switches(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().as_text().count(" conditional(")

    traced = switches(rfjax.gaussian_blur, x, params)
    assert switches(lambda x: rfjax.gaussian_blur(x, params), x) == traced > 0
