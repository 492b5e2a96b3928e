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
    inflation     a map enlarged by a learned factor, and brought back
    dynamic       filters of every pixel, over a large field of samples
    matching      how alike two maps are, at every displacement
    adaptive      dilation of every output: several ones mixed, or a real number
    fully_convolutional   bilinear enlargement; classifiers that slide over maps
    guidance      what was marked in some images, pooled to guide the segmentation of others

Layers are in `rfjax.nn`, networks in `rfjax.models`, data in `rfjax.data`, the training program in
`rfjax.training`, and are imported by name.
"""

from typing import TYPE_CHECKING

from rfjax import _lazy

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names as below, which are imported at their first use
    from rfjax.adaptive import adaptive_dilated_conv as adaptive_dilated_conv
    from rfjax.adaptive import continuous_dilated_conv as continuous_dilated_conv
    from rfjax.composition import blur_conv as blur_conv
    from rfjax.composition import blur_resample_conv as blur_resample_conv
    from rfjax.composition import compose_kernel as compose_kernel
    from rfjax.composition import deformable_conv as deformable_conv
    from rfjax.composition import gaussian_deformable_conv as gaussian_deformable_conv
    from rfjax.compound import channel_conv as channel_conv
    from rfjax.compound import composed_conv as composed_conv
    from rfjax.compound import dog_conv as dog_conv
    from rfjax.compound import mixture_conv as mixture_conv
    from rfjax.compound import surround_covariance as surround_covariance
    from rfjax.covariance import cascade as cascade
    from rfjax.covariance import cholesky_factor as cholesky_factor
    from rfjax.covariance import covariance_matrix as covariance_matrix
    from rfjax.covariance import from_ellipse as from_ellipse
    from rfjax.covariance import log_cholesky as log_cholesky
    from rfjax.covariance import regressed_covariance as regressed_covariance
    from rfjax.covariance import standard_deviations as standard_deviations
    from rfjax.covariance import to_ellipse as to_ellipse
    from rfjax.dilation import blurred_dilated_conv as blurred_dilated_conv
    from rfjax.dynamic import dynamic_filter as dynamic_filter
    from rfjax.filtering import Blur as Blur
    from rfjax.filtering import difference_of_gaussians as difference_of_gaussians
    from rfjax.filtering import gaussian_blur as gaussian_blur
    from rfjax.filtering import local_gaussian_blur as local_gaussian_blur
    from rfjax.fully_convolutional import bilinear_kernel as bilinear_kernel
    from rfjax.fully_convolutional import dense_to_conv as dense_to_conv
    from rfjax.fully_convolutional import shift_and_stitch as shift_and_stitch
    from rfjax.fully_convolutional import transposed_bilinear as transposed_bilinear
    from rfjax.gaussian import gaussian_kernel as gaussian_kernel
    from rfjax.gaussian import gaussian_kernel1d as gaussian_kernel1d
    from rfjax.gaussian import half_size as half_size
    from rfjax.grids import affine_coordinates as affine_coordinates
    from rfjax.grids import circular_points as circular_points
    from rfjax.grids import lattice_points as lattice_points
    from rfjax.grids import ring_points as ring_points
    from rfjax.grids import sampling_offsets as sampling_offsets
    from rfjax.inflation import inflate as inflate
    from rfjax.inflation import interpolate as interpolate
    from rfjax.inflation import weighted_gradient as weighted_gradient
    from rfjax.matching import correlation as correlation
    from rfjax.sampling import affine_conv as affine_conv
    from rfjax.sampling import bilinear_sample as bilinear_sample
    from rfjax.sampling import sampled_conv as sampled_conv

__all__ = _lazy.install(  # pyright: ignore[reportUnsupportedDunderAll]  the names stand above
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
        "inflation": (
            "inflate",
            "interpolate",
            "weighted_gradient",
        ),
        "dynamic": ("dynamic_filter",),
        "matching": ("correlation",),
        "adaptive": (
            "adaptive_dilated_conv",
            "continuous_dilated_conv",
        ),
        "fully_convolutional": (
            "bilinear_kernel",
            "dense_to_conv",
            "shift_and_stitch",
            "transposed_bilinear",
        ),
    },
)
