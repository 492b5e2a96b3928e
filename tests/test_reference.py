"""The references themselves, against SciPy and against closed forms."""

import math

import numpy as np
import pytest
from scipy import integrate, ndimage, signal, special

from tests import reference as ref

SCIPY_MODE = {"zero": "constant", "edge": "nearest", "reflect": "mirror", "wrap": "wrap"}
TILTED = (math.log(1.3), 0.7, math.log(0.9))


@pytest.mark.parametrize("padding", sorted(SCIPY_MODE))
@pytest.mark.parametrize("sigma", [0.4, 1.7, 6.0, 60.0])
def test_separable_blur_is_scipys(padding, sigma):
    x = np.random.default_rng(0).normal(size=(1, 8, 7, 1))
    wanted = x[0, :, :, 0]
    for axis in (0, 1):
        wanted = ndimage.gaussian_filter1d(
            wanted, sigma, axis, mode=SCIPY_MODE[padding], radius=ref.half_size(sigma)
        )
    got = ref.blur(x, [math.log(sigma)], padding=padding)[0, :, :, 0]
    np.testing.assert_allclose(got, wanted, atol=1e-13)


@pytest.mark.parametrize("padding", sorted(SCIPY_MODE))
def test_full_blur_is_scipys(padding):
    x = np.random.default_rng(0).normal(size=(1, 8, 7, 1))
    wanted = ndimage.correlate(x[0, :, :, 0], ref.kernel(TILTED), mode=SCIPY_MODE[padding])
    got = ref.blur(x, TILTED, padding=padding)[0, :, :, 0]
    np.testing.assert_allclose(got, wanted, atol=1e-13)


def test_pixel_integrals_are_quadpacks():
    matrix = ref.covariance(TILTED)
    inverse = np.linalg.inv(matrix)
    norm = 2 * math.pi * math.sqrt(np.linalg.det(matrix))

    def density(x, y):
        v = np.array([y, x])
        return math.exp(-0.5 * v @ inverse @ v) / norm

    got = ref.FULL["integrated"](matrix, 1, 2)
    for y, x in ((0, 0), (1, 2), (-1, 1)):
        wanted, _ = integrate.dblquad(density, y - 0.5, y + 0.5, x - 0.5, x + 0.5, epsabs=1e-12)
        assert got[y + 1, x + 2] == pytest.approx(wanted, abs=1e-11)


def test_discrete_kernel_is_a_convolution_along_sellings_directions():
    matrix = ref.covariance((math.log(1.5), 2.0, math.log(0.8)))
    weights, directions = ref.selling(matrix)
    rebuilt = sum(w * np.outer(e, e) for w, e in zip(weights, directions, strict=True))
    np.testing.assert_allclose(rebuilt, matrix, atol=1e-12)
    assert min(weights) >= 0
    reach = 24
    kernel = np.ones((1, 1))
    for weight, (ey, ex) in zip(weights, directions, strict=True):
        line = np.zeros((2 * reach * max(1, abs(ey)) + 1, 2 * reach * max(1, abs(ex)) + 1))
        for d in range(-reach, reach + 1):
            centre = line.shape[0] // 2, line.shape[1] // 2
            line[centre[0] + d * ey, centre[1] + d * ex] = special.ive(abs(d), weight)
        kernel = signal.convolve(kernel, line, method="direct" if kernel.size == 1 else "fft")
    middle = kernel.shape[0] // 2, kernel.shape[1] // 2
    got = ref.FULL["discrete"](matrix, 6, 9)
    wanted = kernel[middle[0] - 6 : middle[0] + 7, middle[1] - 9 : middle[1] + 10]
    np.testing.assert_allclose(got, wanted, atol=1e-13)


@pytest.mark.parametrize("method", ref.METHODS)
def test_full_kernel_without_tilt_is_an_outer_product(method):
    full = ref.kernel((math.log(0.7), 0.0, math.log(1.9)), method=method, support="faded")
    diagonal = ref.kernel((math.log(0.7), math.log(1.9)), method=method, support="faded")
    np.testing.assert_allclose(full, diagonal, atol=1e-13)
