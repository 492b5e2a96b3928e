"""Forward mode and second derivatives: the same as by reverse mode alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax

RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


X, KERNEL = normal(2, 7, 8, 3), normal(3, 3, 3, 2)

CASES = {
    "blur": (rfjax.gaussian_blur, (X, normal(2, scale=0.3))),
    "blur by sums alone": (
        lambda x, p: rfjax.gaussian_blur(x, p, algorithm="shift_add", padding="edge"),
        (X, normal(1, scale=0.1)),
    ),
    "blur full": (
        lambda x, p: rfjax.gaussian_blur(x, p, padding="renormalized", support="faded"),
        (X, normal(3, scale=0.3)),
    ),
    "sampled": (rfjax.sampled_conv, (X, KERNEL, normal(9, 2))),
    "deformed": (rfjax.deformable_conv, (X, KERNEL, normal(2, 7, 8, 9, 2))),
    "modulated": (
        lambda x, kernel, offsets, mask: rfjax.deformable_conv(x, kernel, offsets, mask=mask),
        (X, normal(3, 2, 1, 3), normal(2, 7, 8, 3, 6, 2), normal(2, 7, 8, 6)),
    ),
    "mixed dilations": (rfjax.adaptive_dilated_conv, (X, KERNEL, normal(2, 7, 8, 3))),
    "grouped": (rfjax.sampled_conv, (X, normal(3, 3, 1, 6), normal(9, 2))),
    "affine": (rfjax.affine_conv, (X, KERNEL, normal(2, 3, scale=0.1))),
    "center-surround": (rfjax.dog_conv, (X, KERNEL, normal(1), normal(1))),
    "resampled": (rfjax.blur_resample_conv, (X, KERNEL, normal(1, scale=0.2))),
}


# As `jax.hessian` does it, and otherwise.
ALL = [(jax.jacfwd, jax.jacrev), (jax.jacfwd, jax.jacfwd), (jax.jacrev, jax.jacfwd)]


@pytest.mark.parametrize("name", CASES)
def test_a_tangent_is_the_adjoint_of_the_gradient(name):
    """<c, J v> = <J^T c, v>, under jit, and mapped over tangents."""
    function, operands = CASES[name]
    tangents = tuple(normal(*a.shape) for a in operands)
    value, pull = jax.vjp(function, *operands)
    cotangent = normal(*value.shape)
    along = jax.jit(lambda *t: jax.jvp(function, operands, t)[1])(*tangents)
    wanted = sum(jnp.vdot(g, t) for g, t in zip(pull(cotangent), tangents, strict=True))
    np.testing.assert_allclose(jnp.vdot(cotangent, along), wanted, rtol=1e-4, atol=1e-3)
    two = tuple(jnp.stack([t, -2.0 * t]) for t in tangents)
    mapped = jax.vmap(lambda *t: jax.jvp(function, operands, t)[1])(*two)
    np.testing.assert_allclose(mapped, jnp.stack([along, -2.0 * along]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family, orders", [(1, ALL), (3, ALL[:1])])
def test_second_derivatives_agree_in_all_modes(family, orders):
    def loss(params):
        return jnp.mean(rfjax.gaussian_blur(X, params, support="faded") ** 2)

    params = jnp.array([0.2, -0.1, 0.3])[:family]
    wanted = jax.jit(jax.jacrev(jax.jacrev(loss)))(params)
    assert jnp.abs(wanted).max() > 1e-3
    for outer, inner in orders:
        got = jax.jit(outer(inner(loss)))(params)
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-5)


def test_second_derivatives_of_positions():
    """Between kinks a bilinear map has no curvature along an axis, but across the two."""

    def loss(positions):
        return jnp.sum(rfjax.sampled_conv(X, KERNEL, positions) ** 2)

    positions = normal(9, 2, scale=0.3) + 0.5
    wanted = jax.jacrev(jax.jacrev(loss))(positions)
    np.testing.assert_allclose(jax.hessian(loss)(positions), wanted, rtol=1e-3, atol=1e-2)


def test_kept_maps_and_rematerialization():
    """The gradient of what is recomputed, in a scan over layers."""

    def loss(params):
        step = jax.checkpoint(lambda x, p: (rfjax.gaussian_blur(x, p[None]), None))
        return jnp.sum(jax.lax.scan(step, X, params)[0] ** 2)

    params = jnp.array([0.1, 0.4, -0.3])
    unrolled = lambda p: jnp.sum(
        rfjax.gaussian_blur(rfjax.gaussian_blur(rfjax.gaussian_blur(X, p[:1]), p[1:2]), p[2:]) ** 2
    )
    np.testing.assert_allclose(jax.grad(loss)(params), jax.grad(unrolled)(params), rtol=1e-4)
    np.testing.assert_allclose(jax.jacfwd(loss)(params), jax.grad(unrolled)(params), rtol=1e-4)
