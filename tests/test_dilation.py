"""Blurred dilation against its two parts, and what it does to gridding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax


def _draw(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _loop(x, kernel, *, dilation, stride, gaussian):
    """Blur and dilated convolution, tap by tap, of one map with zeros outside."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)

    def correlate(image, taps, step, spacing):
        margin = [spacing * (size // 2) for size in taps.shape[:2]]
        padded = np.pad(image, [(margin[0],) * 2, (margin[1],) * 2, (0, 0)])
        height, width = ((size - 1) // step + 1 for size in image.shape[:2])
        total = np.zeros((height, width, taps.shape[-1]))
        for i, j, a, b in np.ndindex(height, width, *taps.shape[:2]):
            total[i, j] += padded[i * step + spacing * a, j * step + spacing * b] @ taps[a, b]
        return total

    if gaussian is not None:
        diagonal = np.eye(x.shape[-1])
        x = correlate(x, np.asarray(gaussian)[..., None, None] * diagonal[None, None], 1, 1)
    return correlate(x, kernel, stride, dilation)


@pytest.mark.parametrize("dilation, stride", [(2, 2), (4, 1)])
@pytest.mark.parametrize("blur", [None, 0.5, (2 / 3, 1.0)])
def test_it_is_a_blur_and_then_a_dilated_convolution(dilation, stride, blur):
    x, kernel = _draw(2, 11, 13, 2), _draw(3, 3, 2, 3, seed=1)
    gaussian = None
    if blur is not None:
        sigmas = jnp.atleast_1d(jnp.asarray(blur)) * dilation
        size = int(np.max(np.ceil(2 * np.asarray(sigmas))))
        gaussian = rfjax.gaussian_kernel(jnp.log(sigmas), max_half_size=size)
    found = rfjax.blurred_dilated_conv(x, kernel, dilation=dilation, blur=blur, stride=stride)
    for example in range(2):
        wanted = _loop(x[example], kernel, dilation=dilation, stride=stride, gaussian=gaussian)
        np.testing.assert_allclose(found[example], wanted, atol=2e-5)


@pytest.mark.parametrize("dilation, stride", [(1, 1), (6, 2)])
@pytest.mark.parametrize("blur", [None, 0.0])
def test_without_a_blur_it_is_pytorchs_dilation(dilation, stride, blur):
    torch = pytest.importorskip("torch")
    x, kernel = _draw(2, 9, 12, 3), _draw(3, 3, 3, 4, seed=1)
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(np.asarray(kernel).transpose(3, 2, 0, 1).copy()),
        stride=stride,
        padding=dilation,
        dilation=dilation,
    )
    ours = rfjax.blurred_dilated_conv(x, kernel, dilation=dilation, blur=blur, stride=stride)
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-4)


def test_a_traced_blur_is_the_static_one_and_has_a_gradient():
    with jax.enable_x64(True):
        x, kernel = _draw(1, 9, 9, 1, dtype=np.float64), _draw(3, 3, 1, 1, dtype=np.float64)

        def blurred(blur):
            return rfjax.blurred_dilated_conv(x, kernel, dilation=3, blur=blur)

        loss = jax.jit(jax.value_and_grad(lambda blur: jnp.sum(blurred(blur) ** 2)))
        # sigma = 1.2, 2.4: away from the multiples of 1/2 where the filter's size changes.
        blur, step = np.array([0.4, 0.8]), 1e-6
        value, gradient = loss(blur)
        np.testing.assert_allclose(value, jnp.sum(blurred(tuple(blur)) ** 2), rtol=1e-12)
        for axis, along in enumerate(step * np.eye(2)):
            slope = (loss(blur + along)[0] - loss(blur - along)[0]) / (2 * step)
            np.testing.assert_allclose(gradient[axis], slope, rtol=1e-6)
            assert abs(slope) > 0.1


# -- gridding --------------------------------------------------------------------------------------

LENGTH = 48


def _spectrum(dilation, blur, row, **options):
    """The share of each frequency m / LENGTH in what a smooth dilated kernel makes of a row.

    The row runs along x and is repeated along y, and wraps around: with the row once to the left
    and once to the right the middle is the response to the periodic signal.
    """
    x = jnp.tile(jnp.asarray(row, jnp.float32), 3).reshape(1, -1, 1)
    kernel = jnp.asarray([0.25, 0.5, 0.25]).reshape(1, 3, 1, 1)
    # One row, whose edge goes on: blurring along y leaves it as it is.
    y = rfjax.blurred_dilated_conv(
        x, kernel, dilation=dilation, blur=blur, padding="edge", **options
    )
    return np.abs(np.fft.rfft(np.asarray(y)[0, LENGTH : 2 * LENGTH, 0]))


def _comb(dilation):
    """The frequencies k / dilation up to 1/2, as indices of the spectrum."""
    return [LENGTH * k // dilation for k in range(1, dilation // 2 + 1)]


IMPULSE = np.eye(LENGTH)[LENGTH // 2]

# Of the default filter, cut off at two sigma. The ideal Gaussian leaves exp(-2 pi^2 blur^2) of the
# frequency 1/d: 7.2e-3, 1.5e-4 and 2.7e-9. What cutting it off adds is the difference.
LEFT = {0.5: 0.024, 2 / 3: 0.017, 1.0: 0.015}


@pytest.mark.parametrize("dilation", [2, 4, 6, 8])
@pytest.mark.parametrize("blur", LEFT)
def test_a_blur_takes_the_gridding_from_the_impulse_response(dilation, blur):
    plain = _spectrum(dilation, None, IMPULSE)
    blurred = _spectrum(dilation, blur, IMPULSE)
    np.testing.assert_allclose([plain[0], blurred[0]], 1.0, atol=1e-5)  # constants pass both
    np.testing.assert_allclose(plain[_comb(dilation)], 1.0, atol=1e-5)  # and the comb the first
    assert np.max(blurred[_comb(dilation)]) < LEFT[blur]


@pytest.mark.parametrize("dilation", [4, 8])
@pytest.mark.parametrize("blur", LEFT)
def test_with_a_wide_support_what_is_left_is_that_of_the_gaussian(dilation, blur):
    left = _spectrum(dilation, blur, IMPULSE, truncate=6.0)[LENGTH // dilation]
    np.testing.assert_allclose(left, np.exp(-2 * np.pi**2 * blur**2), rtol=2e-3, atol=1e-6)


def test_a_blur_takes_the_gridding_from_white_noise():
    dilation, rows = 4, np.random.default_rng(0).normal(size=(16, LENGTH))
    power = {
        blur: np.mean([_spectrum(dilation, blur, row)[_comb(dilation)] ** 2 for row in rows])
        for blur in (None, *LEFT)
    }
    # White noise has the variance LENGTH at every frequency, and plain dilation passes all of it.
    assert 0.5 * LENGTH < power[None] < 2 * LENGTH
    for blur, left in LEFT.items():
        assert power[blur] < left**2 * power[None]


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, error, message", [
    ({"blur": -0.5}, ValueError, "blur must be positive, or 0 or None for no blur; got -0.5"),
    ({"blur": float("nan")}, ValueError, "blur must be positive"),
    ({"blur": (0.5, 0.0)}, ValueError, "blur must be positive"),
    ({"blur": (0.5, 0.5, 0.5)}, ValueError, r"a number or two of them \(y, x\); got shape \(3,\)"),
    ({"dilation": 0}, ValueError, "dilation must be a positive integer or two"),
    ({"dilation": 0, "blur": None}, ValueError, "dilation must be a positive integer or two"),
    ({"dilation": 1.5}, TypeError, "dilation must be a positive integer or two of them; got 1.5"),
    ({"stride": 0}, ValueError, "stride must be a positive integer"),
    ({"padding": "none"}, ValueError, "padding is one of"),
])  # fmt: skip
def test_errors(options, error, message):
    x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))
    with pytest.raises(error, match=message):
        rfjax.blurred_dilated_conv(x, kernel, **({"dilation": 2} | options))
