"""Learnable receptive fields: Gaussian structure composed with free-form filters, in JAX.

The primitives, pure functions on arrays that import nothing but JAX, NumPy and SciPy:

    covariance    log-Cholesky parameters <-> covariance, factor, ellipse
    gaussian      covariance -> filter taps
    filtering     Gaussian blur of maps of any size by a sigma of any size
    grids         reference points and their covariance-warped offsets
    sampling      bilinear reads; convolution with taps at any offsets
    composition   free-form filters composed with Gaussians
    compound      the same with any number of Gaussians: `composed_conv`, and center-surround
    dilation      dilated convolution of a map blurred in proportion

Layers are in `rfjax.nn`, networks in `rfjax.models`, data in `rfjax.data`, the training program in
`rfjax.training`, and are imported by name.
"""

from rfjax import _lazy

__version__ = "0.1.0"

__all__ = _lazy.install(
    __name__,
    {
        "covariance": (
            "cascade",
            "cholesky_factor",
            "covariance_matrix",
            "from_ellipse",
            "log_cholesky",
            "regressed_covariance",
            "standard_deviations",
            "to_ellipse",
        ),
        "gaussian": (
            "gaussian_kernel",
            "gaussian_kernel1d",
            "half_size",
        ),
        "filtering": (
            "Blur",
            "difference_of_gaussians",
            "gaussian_blur",
            "local_gaussian_blur",
        ),
        "grids": (
            "affine_coordinates",
            "circular_points",
            "lattice_points",
            "ring_points",
            "sampling_offsets",
        ),
        "sampling": (
            "affine_conv",
            "bilinear_sample",
            "sampled_conv",
        ),
        "composition": (
            "blur_conv",
            "blur_resample_conv",
            "compose_kernel",
            "deformable_conv",
            "gaussian_deformable_conv",
        ),
        "compound": (
            "channel_conv",
            "composed_conv",
            "dog_conv",
            "mixture_conv",
            "surround_covariance",
        ),
        "dilation": ("blurred_dilated_conv",),
    },
)
