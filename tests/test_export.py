"""Programs that are exported with sizes that are not known yet, as for serving."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import rfjax
from rfjax import models
from rfjax.models.heads import HEADS

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 4, 5)), jnp.float32)
SIGMA = jnp.log(jnp.array([1.3]))


def blur(padding, method="sampled"):
    return functools.partial(rfjax.gaussian_blur, params=SIGMA, padding=padding, method=method)


def on_pixels(function, layout):
    """`function` with parameters of every pixel, made of the first channels."""
    return lambda x: function(x, KERNEL, x[..., : layout[-1]].reshape(*x.shape[:3], *layout))


FUNCTIONS = {
    "gaussian_blur": blur("zero"),
    "gaussian_blur edge": blur("edge"),
    "gaussian_blur wrap": blur("wrap"),
    "gaussian_blur renormalized": blur("renormalized", "discrete"),
    "difference_of_gaussians": lambda x: rfjax.difference_of_gaussians(x, SIGMA, SIGMA + 1),
    "local_gaussian_blur": lambda x: rfjax.local_gaussian_blur(
        x, 0.1 * x[..., :1], max_half_size=3
    ),
    "blur_conv": lambda x: rfjax.blur_conv(x, KERNEL, SIGMA, stride=2),
    "blur_resample_conv": lambda x: rfjax.blur_resample_conv(x, KERNEL, SIGMA, stride=2),
    "gaussian_deformable_conv": on_pixels(rfjax.gaussian_deformable_conv, (3,)),
    "deformable_conv": lambda x: rfjax.deformable_conv(
        x, KERNEL, jnp.broadcast_to(x[..., None, :2], (*x.shape[:3], 9, 2))
    ),
    "channel_conv": lambda x: rfjax.channel_conv(x, KERNEL, jnp.zeros((5, 1)), stride=2),
    "mixture_conv": lambda x: rfjax.mixture_conv(x, KERNEL, jnp.zeros((2, 1)), jnp.ones(2)),
    "deformable_conv masked": lambda x: rfjax.deformable_conv(
        x,
        KERNEL[:, :, :2, :4],
        jnp.broadcast_to(x[..., None, None, :2], (*x.shape[:3], 2, 9, 2)),
        mask=jnp.broadcast_to(x[..., :1], (*x.shape[:3], 9)),
    ),
    "dog_conv": lambda x: rfjax.dog_conv(x, KERNEL, SIGMA - 1, SIGMA),
    "affine_conv": lambda x: rfjax.affine_conv(
        x, KERNEL, jnp.full((2, 3), 0.1), stride=(2, 1), padding="edge"
    ),
    "adaptive_dilated_conv": lambda x: rfjax.adaptive_dilated_conv(x, KERNEL, x[..., :3]),
    "continuous_dilated_conv": lambda x: rfjax.continuous_dilated_conv(x, KERNEL, x[..., :1]),
    "correlation": lambda x: rfjax.correlation(x, jnp.tanh(x), max_displacement=2),
    "dynamic_filter": lambda x: rfjax.dynamic_filter(
        x, jnp.ones((*x.shape[:3], 2, 3, 3)), jnp.ones((*x.shape[:3], 2, 4)), samples=3
    ),
    "interpolate": lambda x: rfjax.interpolate(x, 1.2, jnp.array([4, 5]), (4, 4)),
    "blurred_dilated_conv": lambda x: rfjax.blurred_dilated_conv(x, KERNEL, dilation=2),
    "transposed_bilinear": lambda x: rfjax.transposed_bilinear(x, 3, odd=True),
}


def reloaded(function, layout):
    """The function as it comes back from a file, for a map whose sizes are symbols."""
    shape = jax.ShapeDtypeStruct(export.symbolic_shape(layout), jnp.float32)
    return export.deserialize(export.export(jax.jit(function))(shape).serialize()).call


def check(function, layout, *shapes):
    again = reloaded(function, layout)
    for shape in shapes:
        x = jnp.asarray(RNG.normal(size=shape), jnp.float32)
        np.testing.assert_allclose(again(x), jax.jit(function)(x), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_batch_of_any_height_and_width(name):
    check(FUNCTIONS[name], "b, h, w, 4", (2, 7, 11, 4), (1, 12, 5, 4))


def test_a_full_covariance_of_any_batch():
    full = rfjax.from_ellipse(3.0, 1.0, 0.5)
    check(lambda x: rfjax.gaussian_blur(x, full), "b, 9, 10, 2", (3, 9, 10, 2), (1, 9, 10, 2))


def test_sizes_that_must_be_known():
    with pytest.raises(ValueError, match=r"full covariances must know the sizes .*\(1, h, w, 2\)"):
        reloaded(lambda x: rfjax.gaussian_blur(x, jnp.zeros(3)), "1, h, w, 2")
    with pytest.raises(ValueError, match="padding 'reflect' must know the sizes of the map; got w"):
        reloaded(blur("reflect"), "1, h, w, 2")


def network(head):
    name, options = "resnet_tiny", {"width": 4}
    if head.startswith("fcn_"):  # it wants coarser maps
        name, options = "resnet_18" if head[-1] == "s" else "vgg_tiny", {}
    model = models.create(name, num_classes=3, head=head, backbone_options=options)
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), images)
    return functools.partial(model.apply, variables)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(head, marks=() if head in ("composition", "deform") else pytest.mark.slow)
        for head in HEADS
    ],
)
def test_networks_serve_any_batch_of_images_of_any_size(head):
    check(network(head), "b, h, w, 3", (2, 17, 22, 3), (1, 16, 8, 3))
