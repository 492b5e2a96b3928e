"""The figures of "Blurring the Line between Structure and Learning", drawn by the primitives.

`write` draws those that need no trained network, under the names of `FIGURES`. The seventh, of
dynamic scales, is drawn for a trained run: see `rfjax.studies.scale_maps`. Filters and maps are
drawn with y down, one square a pixel.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import rfjax
from rfjax import visualize

ELLIPSES = {
    "spherical": (3.0, 3.0, 0.0),
    "diagonal": (4.0, 1.5, 0.0),
    "full": (4.0, 1.5, math.pi / 5),
}


def composition() -> Figure:
    """1: free-form filters, Gaussians, and the two composed."""
    kernel = _edge()
    columns = [_gaussian(rfjax.from_ellipse(*ellipse)) for ellipse in ELLIPSES.values()]
    panels = [[kernel[..., 0, 0], g, _composed(kernel, g)] for g in columns]
    return visualize.filter_panels(
        panels, rows=tuple(ELLIPSES), titles=("free-form f", "Gaussian g", "g * f")
    )


def alternatives() -> Figure:
    """2: what a composition sees that dilation and more parameters do not."""
    kernel = _random_kernel(7)
    gaussian = _gaussian(jnp.log(jnp.array([3.5])))
    composed = _composed(kernel, gaussian)
    dilated = np.zeros((21, 21))
    dilated[1:20:3, 1:20:3] = kernel[..., 0, 0]
    dense = _random_kernel(21)[..., 0, 0]
    titles = (
        "7×7 composed: 49 + 1 parameters,\ndense, its size has a gradient",
        "7×7 dilated: 49 parameters,\nsparse, its size is fixed",
        "21×21: 441 parameters,\ndense, its size is fixed",
    )
    return visualize.filter_panels(
        [[_cropped(composed, 21), dilated, dense]], rows=("",), titles=titles, width=3.2
    )


def learning_to_blur() -> Figure:
    """3: a covariance is recovered from a blurred image by its gradient."""
    iterations = (0, 1, 16, 64, 256)
    rows = {
        name: _recover(rfjax.from_ellipse(*ellipse), iterations)
        for name, ellipse in ELLIPSES.items()
    }
    titles = [*(f"iteration {i}" for i in iterations), "truth"]
    return visualize.blur_panels(rows, titles=titles)


def special_cases() -> Figure:
    """4: the Gaussian at the identity, near it, and at average pooling."""
    sigmas = {"σ → 0: identity": 0.05, "σ = 0.5: near identity": 0.5, "σ → ∞: average": 500.0}
    kernel = rfjax.gaussian_kernel
    filters = [
        np.asarray(kernel(jnp.log(jnp.array([sigma])), max_half_size=7, truncate=truncate))
        for sigma, truncate in zip(sigmas.values(), (2.0, 2.0, 7 / 500.0), strict=True)
    ]
    return visualize.filter_panels([filters], rows=("",), titles=tuple(sigmas), signed=False)


def gridding() -> Figure:
    """5: dilation copies a grid into its output, and a blur of half its rate removes it."""
    dilation = 6
    noise = jax.random.normal(jax.random.key(1), (1, 72, 72, 1))
    scene = rfjax.gaussian_blur(noise, jnp.log(jnp.array([6.0]))) * 20.0
    scene = scene + 0.3 * jax.random.normal(jax.random.key(2), scene.shape)
    point = jnp.zeros((1, 72, 72, 1)).at[0, 36, 36, 0].set(1.0)
    kernel = jnp.ones((3, 3, 1, 1)) / 9.0

    def respond(x: jax.Array, blur: float | None) -> np.ndarray:
        y = rfjax.blurred_dilated_conv(x, kernel, dilation=dilation, blur=blur)
        return np.asarray(y[0, ..., 0])

    def spectrum(blur: float | None) -> np.ndarray:
        return np.fft.fftshift(np.abs(np.fft.fft2(respond(point, blur))))

    panels = [
        [np.asarray(scene[0, ..., 0]), respond(scene, None), respond(scene, 0.5)],
        [np.asarray(point[0, ..., 0]), _cropped(respond(point, None), 41), None],
        [None, spectrum(None), spectrum(0.5)],
    ]
    panels[1][2] = _cropped(respond(point, 0.5), 41)
    titles = ("input", f"dilation {dilation}", f"blurred by σ = {dilation / 2:g}, then dilated")
    rows = ("scene", "one point", "spectrum")
    return visualize.filter_panels(panels, rows=rows, titles=titles, signed=False, width=2.4)


def deformations() -> Figure:
    """6: sampling points, from the lattice through the families of covariances to free form."""
    key, points = jax.random.key(3), rfjax.ring_points()
    lattice = rfjax.lattice_points(3)
    free = lattice + 0.8 * jax.random.normal(key, lattice.shape)
    cases = {"(a) lattice": (lattice, None), "(b) free-form": (free, None)}
    cases["(c) standard Gaussian"] = (points, rfjax.from_ellipse(1.0, 1.0, 0.0))
    for letter, (name, (major, minor, angle)) in zip("def", ELLIPSES.items(), strict=True):
        params = rfjax.from_ellipse(major / 1.8, minor / 1.8, angle)
        cases[f"({letter}) {name}"] = (rfjax.sampling_offsets(params, points), params)
    return visualize.sampling_points(cases)


def families() -> Figure:
    """Families of covariances, from one parameter to three (thesis, figure 5.3)."""
    covariances = {
        f"{name}: {count} parameter{'s' * (count > 1)}": rfjax.from_ellipse(*ELLIPSES[name])
        for count, name in enumerate(ELLIPSES, start=1)
    }
    return visualize.covariance_ellipses(covariances, columns=3)


FIGURES: dict[str, Callable[[], Figure]] = {
    "1_composition": composition,
    "2_alternatives": alternatives,
    "3_learning_to_blur": learning_to_blur,
    "4_special_cases": special_cases,
    "5_gridding": gridding,
    "6_deformations": deformations,
    "families": families,
}


def write(folder: Path) -> list[Path]:
    """Draws all `FIGURES` as PNG files into `folder`, and returns their paths."""
    paths = [folder / f"figure_{name}.png" for name in FIGURES]
    for path, draw in zip(paths, FIGURES.values(), strict=True):
        visualize.save(draw(), path)
    return paths


# -- what they show --------------------------------------------------------------------------------


def _edge() -> np.ndarray:
    """A small oriented filter, [3, 3, 1, 1]."""
    return np.array([[1.0, 1.0, 0.0], [1.0, 0.0, -1.0], [0.0, -1.0, -1.0]])[..., None, None]


def _random_kernel(size: int) -> np.ndarray:
    return np.asarray(jax.random.normal(jax.random.key(0), (size, size, 1, 1)), np.float64)


def _gaussian(params: jax.Array) -> np.ndarray:
    half = int(np.max(np.ceil(2.0 * np.asarray(rfjax.standard_deviations(params)))))
    return np.asarray(rfjax.gaussian_kernel(params, max_half_size=half))


def _composed(kernel: np.ndarray, gaussian: np.ndarray) -> np.ndarray:
    composed = rfjax.compose_kernel(jnp.asarray(kernel, jnp.float32), jnp.asarray(gaussian))
    return np.asarray(composed[..., 0, 0])


def _cropped(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of odd `size`."""
    top, left = ((n - size) // 2 for n in image.shape)
    return image[top : top + size, left : left + size]


@functools.cache
def _photograph() -> np.ndarray:
    """A crop [128, 128, 3] of a picture of a roof, in 0..1."""
    from sklearn.datasets import load_sample_image  # a second to import

    return load_sample_image("china.jpg")[150:278, 250:378] / np.float32(255.0)


def _recover(truth: jax.Array, iterations: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """Images and covariances [3] at some iterations of an optimisation, and at last the truth."""
    image = jnp.asarray(_photograph())

    def blur(params: jax.Array) -> jax.Array:
        return rfjax.gaussian_blur(image, params, support="faded", padding="edge")

    target = blur(truth)
    optimizer = optax.adam(
        optax.cosine_decay_schedule(0.2, max(iterations)), b1=0.8, b2=0.9, eps=1e-12
    )

    @jax.jit
    def step(params: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        gradient = jax.grad(lambda p: jnp.mean((blur(p) - target) ** 2))(params)
        with jax.numpy_dtype_promotion("standard"):  # optax counts on it
            updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    params = rfjax.from_ellipse(0.5, 0.5, 0.0)
    state, seen = optimizer.init(params), []
    for iteration in range(max(iterations) + 1):
        if iteration in iterations:
            seen.append(params)
        params, state = step(params, state)
    images = [blur(params) for params in seen]
    return [*images, target], [*seen, truth]
