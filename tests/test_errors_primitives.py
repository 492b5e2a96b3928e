"""Wrong calls of covariance, gaussian and filtering: what was given, what is wanted, where."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax

X = jnp.zeros((2, 6, 7, 3))
P = jnp.zeros(1)
MAP = jnp.zeros((2, 6, 7, 1))


def blur(x=X, params=P, **options):
    return rfjax.gaussian_blur(x, params, **options)


# name: (call, error, fragments of the message: the argument, what was given, what is wanted)
WRONG = {
    "covariance: four parameters": (
        lambda: rfjax.covariance_matrix(jnp.zeros((2, 4))), ValueError, ["params", "4", "3"],
    ),
    "covariance: a scalar": (
        lambda: rfjax.cholesky_factor(jnp.float32(0)), ValueError, ["params", r"\(\)"],
    ),
    "covariance: no parameters": (
        lambda: rfjax.standard_deviations(jnp.zeros((3, 0))), ValueError, ["params", "0", "3"],
    ),
    "covariance: integers": (
        lambda: rfjax.covariance_matrix(jnp.zeros(3, jnp.int32)), TypeError, ["float", "int32"],
    ),
    "covariance: complex numbers": (
        lambda: rfjax.covariance_matrix(jnp.zeros(3, jnp.complex64)),
        TypeError, ["float", "complex64"],
    ),
    "log_cholesky: three by three": (
        lambda: rfjax.log_cholesky(jnp.eye(3)), ValueError, ["covariance", r"\(3, 3\)", "2, 2"],
    ),
    "log_cholesky: a vector": (
        lambda: rfjax.log_cholesky(jnp.ones(2)), ValueError, ["covariance", r"\(2,\)", "2, 2"],
    ),
    "to_ellipse: five parameters": (
        lambda: rfjax.to_ellipse(jnp.zeros(5)), ValueError, ["params", "5", "3"],
    ),
    "from_ellipse: integers": (
        lambda: rfjax.from_ellipse(jnp.ones(2, jnp.int32), 1.0, 0.0), TypeError, ["major", "int32"],
    ),
    "cascade: shapes that do not broadcast": (
        lambda: rfjax.cascade(jnp.zeros((2, 1)), jnp.zeros((3, 1))),
        ValueError, [r"\(2, 1\)|\(2,\)", r"\(3, 1\)|\(3,\)"],
    ),
    "half_size: truncate 0": (
        lambda: rfjax.half_size(1.0, truncate=0.0), ValueError, ["truncate", "0", "positive|> 0"],
    ),
    "kernel1d: method": (
        lambda: rfjax.gaussian_kernel1d(1.0, max_half_size=2, method="exact"),
        ValueError, ["method", "'exact'", "sampled", "integrated", "discrete"],
    ),
    "kernel1d: support": (
        lambda: rfjax.gaussian_kernel1d(1.0, max_half_size=2, support="soft"),
        ValueError, ["support", "'soft'", "hard", "faded"],
    ),
    "kernel1d: sigma larger than the room": (
        lambda: rfjax.gaussian_kernel1d(3.0, max_half_size=4),
        ValueError, ["max_half_size", "4", "6"],
    ),
    "kernel1d: max_half_size 0": (
        lambda: rfjax.gaussian_kernel1d(1.0, max_half_size=0), ValueError, ["max_half_size", "0"],
    ),
    "kernel1d: fractional max_half_size": (
        lambda: rfjax.gaussian_kernel1d(1.0, max_half_size=2.5),
        (TypeError, ValueError), ["max_half_size", "2.5", "int"],
    ),
    "kernel1d: integer sigma": (
        lambda: rfjax.gaussian_kernel1d(jnp.int32(1), max_half_size=2),
        TypeError, ["sigma", "float", "int32"],
    ),
    "kernel: sigma larger than the room": (
        lambda: rfjax.gaussian_kernel(jnp.log(jnp.array([1.0, 3.0])), max_half_size=4),
        ValueError, ["max_half_size", "4", "6"],
    ),
    "kernel: full covariance larger than the room": (
        lambda: rfjax.gaussian_kernel(jnp.array([0.0, 5.0, 0.0]), max_half_size=4),
        ValueError, ["max_half_size", "4", "11"],
    ),
    "kernel: negative truncate": (
        lambda: rfjax.gaussian_kernel(P, max_half_size=2, truncate=-1.0),
        ValueError, ["truncate", "-1", "positive|> 0"],
    ),
    "kernel: four parameters": (
        lambda: rfjax.gaussian_kernel(jnp.zeros(4), max_half_size=2), ValueError, ["params", "4"],
    ),
    "blur: padding": (
        lambda: blur(padding="mirror"),
        ValueError, ["padding", "'mirror'", "zero", "edge", "reflect", "wrap", "renormalized"],
    ),
    "blur: method": (
        lambda: blur(method="fft"), ValueError, ["method", "'fft'", "sampled", "discrete"],
    ),
    "blur: support": (
        lambda: blur(support="none"), ValueError, ["support", "'none'", "hard", "faded"],
    ),
    "blur: truncate 0": (lambda: blur(truncate=0), ValueError, ["truncate", "0", "positive|> 0"]),
    "blur: integer image": (
        lambda: blur(jnp.zeros((6, 7, 3), jnp.uint8)), TypeError, ["x", "float", "uint8"],
    ),
    "blur: no channel axis": (
        lambda: blur(jnp.zeros((6, 7))), ValueError, ["x", r"\(6, 7\)", "C"],
    ),
    "blur: four parameters": (
        lambda: blur(params=jnp.zeros(4)), ValueError, ["params", "4", "3"],
    ),
    "blur: scalar parameters": (
        lambda: blur(params=jnp.float32(0)), ValueError, ["params", r"\(\)"],
    ),
    "blur: integer parameters": (
        lambda: blur(params=jnp.zeros(1, jnp.int32)), TypeError, ["params", "float", "int32"],
    ),
    "blur: parameters of four channels for three": (
        lambda: blur(params=jnp.zeros((4, 1))), ValueError, ["params", r"\(4, 1\)", "3"],
    ),
    "blur: parameters with more axes than the map": (
        lambda: blur(params=jnp.zeros((1, 1, 1, 3, 1))), ValueError, ["params", r"1, 1, 1, 3, 1"],
    ),
    "blur: four spatial axes": (
        lambda: blur(jnp.zeros((1, 2, 2, 2, 2, 1)), spatial_ndim=4),
        ValueError, ["spatial_ndim", "4", "1, 2,? (or|and)? ?3"],
    ),
    "blur: one axis, two parameters": (
        lambda: blur(params=jnp.zeros(2), spatial_ndim=1), ValueError, ["params", "2", "1"],
    ),
    "blur: three axes, two parameters": (
        lambda: blur(jnp.zeros((4, 4, 4, 1)), jnp.zeros(2), spatial_ndim=3),
        ValueError, ["params", "2", "3"],
    ),
    "difference: surround of four parameters": (
        lambda: rfjax.difference_of_gaussians(X, P, jnp.zeros(4)), ValueError, ["4", "3"],
    ),
    "difference: padding": (
        lambda: rfjax.difference_of_gaussians(X, P, P, padding="same"),
        ValueError, ["padding", "'same'", "zero"],
    ),
    "local: map of another size": (
        lambda: rfjax.local_gaussian_blur(X, jnp.zeros((2, 5, 7, 1)), max_half_size=2),
        ValueError, ["params_map", "5, 7", "6, 7"],
    ),
    "local: map of another batch": (
        lambda: rfjax.local_gaussian_blur(X, jnp.zeros((3, 6, 7, 1)), max_half_size=2),
        ValueError, ["params_map", r"\(3, 6, 7, 1\)|\(3,\)", "2"],
    ),
    "local: four parameters": (
        lambda: rfjax.local_gaussian_blur(X, jnp.zeros((2, 6, 7, 4)), max_half_size=2),
        ValueError, ["params", r"\(2, 6, 7, 4\)", "3"],
    ),
    "local: no spatial axes": (
        lambda: rfjax.local_gaussian_blur(X, jnp.zeros(1), max_half_size=2),
        ValueError, ["params_map", r"\(1,\)"],
    ),
    "local: integer image": (
        lambda: rfjax.local_gaussian_blur(X.astype(jnp.int32), MAP, max_half_size=2),
        TypeError, ["x", "float", "int32"],
    ),
    "local: max_half_size 0": (
        lambda: rfjax.local_gaussian_blur(X, MAP, max_half_size=0),
        ValueError, ["max_half_size", "0"],
    ),
    "local: no max_half_size": (
        lambda: rfjax.local_gaussian_blur(X, MAP), TypeError, ["max_half_size"],
    ),
    "local: method": (
        lambda: rfjax.local_gaussian_blur(X, MAP, max_half_size=2, method="nearest"),
        ValueError, ["method", "'nearest'", "sampled"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_say_what_is_wrong(name):
    call, error, fragments = WRONG[name]
    with pytest.raises(error) as raised:
        call()
    for fragment in fragments:
        assert re.search(fragment, str(raised.value)), f"{fragment!r} not in {str(raised.value)!r}"


def test_errors_come_while_tracing():
    for wrong in (jnp.zeros(4), jnp.zeros(1, jnp.int32)):
        with pytest.raises((TypeError, ValueError), match="params"):
            jax.eval_shape(lambda p: rfjax.gaussian_blur(X, p), wrong)


def test_numpy_arrays_and_lists_of_floats_are_welcome():
    got = rfjax.gaussian_blur(np.ones((4, 4, 1), np.float32), np.zeros(1, np.float32))
    assert isinstance(got, jax.Array)
    assert rfjax.covariance_matrix([0.0, 0.5]).shape == (2, 2)
