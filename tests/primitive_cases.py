"""Every primitive as a function of a batch: what tests of devices and the benchmarks run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from tests import placements

RNG = np.random.default_rng(3)
N, SIDE, C = placements.DEVICES, 8, 4


def normal(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


X, KERNEL = normal(N, SIDE, SIDE, C), normal(3, 3, C, 4)
NARROW, WIDE = normal(3, 3, 24, 2), normal(N, SIDE, SIDE, 24)  # few outputs of many inputs
SIGMA, FULL = jnp.log(jnp.array([0.7])), jnp.array([0.1, 0.6, 0.3])
EACH, SHARED = True, False


def with_options(function, **options):
    return functools.partial(function, **options)


blur, deform = rfjax.gaussian_blur, rfjax.deformable_conv

# A function, which of its operands belong to the examples, and the operands.
CASES = {
    "correlation": (
        with_options(rfjax.correlation, max_displacement=2, displacement_stride=2),
        (EACH, EACH),
        (X, jnp.tanh(X)),
    ),
    "gaussian_blur": (blur, (EACH, SHARED), (X, SIGMA)),
    "gaussian_blur diagonal, edge": (
        with_options(blur, padding="edge"),
        (EACH, SHARED),
        (X, jnp.log(jnp.array([0.4, 3.0]))),
    ),
    "gaussian_blur renormalized": (
        with_options(blur, padding="renormalized"),
        (EACH, SHARED),
        (X, SIGMA),
    ),
    "gaussian_blur shift_add": (
        with_options(blur, algorithm="shift_add"),
        (EACH, SHARED),
        (X, SIGMA),
    ),
    "gaussian_blur of each channel": (blur, (EACH, SHARED), (X, normal(C, 1, scale=0.3))),
    "gaussian_blur of each example": (blur, (EACH, EACH), (X, normal(N, 1, 2, scale=0.3))),
    "gaussian_blur full": (blur, (EACH, SHARED), (X, FULL - jnp.array([0.5, 0.2, 0.5]))),
    "gaussian_blur full, large, reflect": (
        with_options(blur, padding="reflect"),
        (EACH, SHARED),
        (X, FULL + jnp.array([1.0, 0.3, 1.0])),
    ),
    "gaussian_blur full of each example": (blur, (EACH, EACH), (X, normal(N, 1, 3, scale=0.3))),
    "difference_of_gaussians": (
        rfjax.difference_of_gaussians,
        (EACH, SHARED, SHARED),
        (X, SIGMA, SIGMA + 0.7),
    ),
    "local_gaussian_blur": (
        with_options(rfjax.local_gaussian_blur, max_half_size=2, padding="renormalized"),
        (EACH, EACH),
        (X, normal(N, SIDE, SIDE, 1, scale=0.2)),
    ),
    "bilinear_sample": (rfjax.bilinear_sample, (EACH, EACH), (X, normal(N, 5, 2) * 3 + 4)),
    "sampled_conv": (rfjax.sampled_conv, (EACH, SHARED, SHARED), (X, KERNEL, normal(9, 2))),
    "sampled_conv narrow": (
        rfjax.sampled_conv,
        (EACH, SHARED, SHARED),
        (WIDE, NARROW, normal(9, 2)),
    ),
    "blur_conv": (
        with_options(rfjax.blur_conv, stride=2),
        (EACH, SHARED, SHARED),
        (X, KERNEL, SIGMA),
    ),
    "blur_resample_conv": (
        rfjax.blur_resample_conv,
        (EACH, SHARED, SHARED),
        (X, KERNEL, SIGMA),
    ),
    "blur_resample_conv full, stride 2": (
        with_options(rfjax.blur_resample_conv, stride=2),
        (EACH, SHARED, SHARED),
        (X, KERNEL, FULL),
    ),
    "gaussian_deformable_conv": (
        rfjax.gaussian_deformable_conv,
        (EACH, SHARED, EACH),
        (X, KERNEL, normal(N, SIDE, SIDE, 3, scale=0.3)),
    ),
    "deformable_conv": (deform, (EACH, SHARED, EACH), (X, KERNEL, normal(N, SIDE, SIDE, 9, 2))),
    "deformable_conv narrow, stride 2": (
        with_options(deform, stride=2),
        (EACH, SHARED, EACH),
        (WIDE, NARROW, normal(N, SIDE // 2, SIDE // 2, 9, 2)),
    ),
    "channel_conv": (
        with_options(rfjax.channel_conv, stride=2),
        (EACH, SHARED, SHARED),
        (X, KERNEL, normal(4, 1, scale=0.3)),
    ),
    "mixture_conv": (
        rfjax.mixture_conv,
        (EACH, SHARED, SHARED, SHARED),
        (X, KERNEL, normal(2, 1, scale=0.3), normal(2)),
    ),
    "deformable_conv masked, of offset groups": (
        lambda x, kernel, offsets, mask: deform(x, kernel, offsets, mask=mask, stride=(2, 1)),
        (EACH, SHARED, EACH, EACH),
        (X, KERNEL, normal(N, SIDE // 2, SIDE, 2, 9, 2), normal(N, SIDE // 2, SIDE, 2, 9)),
    ),
    "sampled_conv of channel groups": (
        rfjax.sampled_conv,
        (EACH, SHARED, SHARED),
        (X, normal(3, 3, C // 2, 4), normal(9, 2)),
    ),
    "composed_conv": (
        with_options(rfjax.composed_conv, resample=False, blur=rfjax.Blur(padding="edge")),
        (EACH, SHARED, SHARED, SHARED),
        (X, KERNEL, normal(2, 1, scale=0.3), normal(2)),
    ),
    "dog_conv": (
        lambda x, kernel, center, other: rfjax.dog_conv(
            x, kernel, center, center + 0.5, surround_kernel=other
        ),
        (EACH, SHARED, SHARED, SHARED),
        (X, KERNEL, SIGMA, normal(3, 3, C, 4)),
    ),
    "affine_conv": (
        rfjax.affine_conv,
        (EACH, SHARED, SHARED),
        (X, KERNEL, normal(2, 3, scale=0.1)),
    ),
    "affine_coordinates": (
        jax.vmap(lambda affine: rfjax.affine_coordinates(affine, (4, 5))),
        (EACH,),
        (normal(N, 2, 3),),
    ),
    "regressed_covariance": (
        lambda updates, initial: rfjax.regressed_covariance(
            updates, initial * jnp.array([1.0, 0.0, 1.0]), link="linear", bound=1.5, spread=2.0
        ),
        (EACH, SHARED),
        (normal(N, 3, 4, 3), normal(3)),
    ),
    "surround_covariance": (rfjax.surround_covariance, (EACH, EACH), (normal(N, 3), normal(N, 3))),
    "blurred_dilated_conv": (
        lambda x, kernel, factor: rfjax.blurred_dilated_conv(x, kernel, dilation=2, blur=factor),
        (EACH, SHARED, SHARED),
        (X, KERNEL, jnp.array(0.5)),
    ),
    "adaptive_dilated_conv": (
        rfjax.adaptive_dilated_conv,
        (EACH, SHARED, EACH),
        (X, KERNEL, normal(N, SIDE, SIDE, 3)),
    ),
    "adaptive_dilated_conv of channel groups, stride 2": (
        with_options(rfjax.adaptive_dilated_conv, stride=2, dilations=(1, 3)),
        (EACH, SHARED, EACH),
        (X, normal(3, 3, C // 2, 4), normal(N, SIDE // 2, SIDE // 2, 2)),
    ),
    "continuous_dilated_conv": (
        rfjax.continuous_dilated_conv,
        (EACH, SHARED, EACH),
        (X, KERNEL, 1.0 + normal(N, SIDE, SIDE, 1)),
    ),
    "transposed_bilinear": (with_options(rfjax.transposed_bilinear, factor=2), (EACH,), (X,)),
    "dense_to_conv": (
        jax.vmap(lambda kernel: rfjax.dense_to_conv(kernel, (2, 3), order="chw")),
        (EACH,),
        (normal(N, 24, 2),),
    ),
    "shift_and_stitch": (
        lambda x: rfjax.shift_and_stitch(lambda x: jnp.tanh(x[:, :-1:2, :-1:2]), x, 2),
        (EACH,),
        (X,),
    ),
    "dynamic_filter": (
        lambda x, within, across, samples, positions: rfjax.dynamic_filter(
            x,
            within,
            across,
            sample_attention=samples,
            position_attention=positions,
            samples=3,
            sample_stride=2,
        ),
        (EACH,) * 5,
        (
            X,
            normal(N, SIDE, SIDE, 2, 3, 3),
            normal(N, SIDE, SIDE, 2, C),
            normal(N, SIDE, SIDE, 2, 3, 3),
            normal(N, SIDE, SIDE, 2, 3, 3),
        ),
    ),
    "inflate": (
        lambda x, factor: rfjax.inflate(x, factor, max_factor=2.0)[0],
        (EACH, SHARED),
        (X, jnp.array(1.3)),
    ),
    "interpolate": (
        lambda x, factor: rfjax.interpolate(x, factor, jnp.array([7, 6]), (4, 4)),
        (EACH, SHARED),
        (X, jnp.array(1.3)),
    ),
    "weighted_gradient": (
        rfjax.weighted_gradient,
        (EACH, EACH),
        (X, jnp.abs(X[..., 0])),
    ),
    "gaussian_kernel": (
        with_options(rfjax.gaussian_kernel, max_half_size=3),
        (EACH,),
        (normal(N, 3, scale=0.2),),
    ),
    "gaussian_kernel1d": (
        with_options(rfjax.gaussian_kernel1d, max_half_size=3),
        (EACH,),
        (jnp.exp(normal(N, scale=0.2)),),
    ),
    "cascade": (rfjax.cascade, (EACH, EACH), (normal(N, 3), normal(N, 2))),
    "cholesky_factor": (rfjax.cholesky_factor, (EACH,), (normal(N, 3),)),
    "covariance_matrix": (rfjax.covariance_matrix, (EACH,), (normal(N, 3),)),
    "log_cholesky": (
        lambda params: rfjax.log_cholesky(rfjax.covariance_matrix(params)),
        (EACH,),
        (normal(N, 3, scale=0.3),),
    ),
    "standard_deviations": (rfjax.standard_deviations, (EACH,), (normal(N, 3),)),
    "from_ellipse": (
        lambda axes: rfjax.from_ellipse(jnp.exp(axes[:, 0]), jnp.exp(axes[:, 1]), axes[:, 2]),
        (EACH,),
        (normal(N, 3),),
    ),
    "to_ellipse": (
        lambda params: jnp.stack(rfjax.to_ellipse(params), -1),
        (EACH,),
        (normal(N, 3),),
    ),
    "sampling_offsets": (
        lambda params: rfjax.sampling_offsets(params, rfjax.ring_points()),
        (EACH,),
        (normal(N, 3),),
    ),
}
