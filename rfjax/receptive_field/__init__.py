"""Receptive fields: what an output can see of its input, and how much it looks at each pixel.

    theoretical(layers)                     size, stride and offset of a list of layers
    theoretical(function, input_shape)      the same of any JAX function, by its jaxpr
    effective(function, input_shape)        the mean gradient: map, covariance, radius of its mass
    compose(inner, outer)                   the field of outer(inner(x))
    rf_paper, rf_exact                      of a layer whose map is inflated

The module `networks` has the fields of Linen networks by layer, of the registry's networks and of
trained runs, and

    python -m rfjax.receptive_field --model=drn_c_26

prints and draws them. Axes are (y, x), in input pixels; pixel i has its centre at i.
"""

from rfjax import _lazy

__all__ = _lazy.install(
    __name__,
    {
        "effective": ("EffectiveField", "effective"),
        "inflation": ("rf_exact", "rf_paper"),
        "functions": ("theoretical", "theoretical_of_outputs"),
        "layers": ("Conv", "Gaussian", "Parallel", "Pool", "ReceptiveField", "Taps", "compose"),
    },
)
