"""Spatial covariances by their log-Cholesky parameters.

A covariance is stored as unconstrained numbers. The size of the last axis picks the family:

    1  spherical   (log sigma)
    2  diagonal    (log sigma_y, log sigma_x)
    3  full        (log u_yy, u_yx, log u_xx),  Sigma = U^T U,  U = [[u_yy, u_yx], [0, u_xx]]

Any numbers give a symmetric positive-definite Sigma, so an optimiser needs no constraint. Axes come
in (y, x) order, y down, in pixels of the map that the Gaussian acts on. Leading axes are free: one
covariance per channel, example or pixel is the same call on a larger array.

Reference: Pinheiro & Bates, "Unconstrained parametrizations for variance-covariance matrices",
Statistics and Computing 6, 1996.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.factor import bounded, entries, sigma_of, wide

FAMILIES = {"spherical": 1, "diagonal": 2, "full": 3}
LINKS = ("exponential", "linear")


def _parameters(params: ArrayLike) -> jax.Array:
    """`params` as an array whose last axis has the size of a family."""
    params = _checks.float_array("params", params, min_ndim=1, layout="[..., 1 | 2 | 3]")
    if params.shape[-1] not in (1, 2, 3):
        raise ValueError(
            "params must have 1 (spherical), 2 (diagonal) or 3 (full) numbers on the last axis; "
            f"got shape {params.shape}"
        )
    return params


def _matrix(yy: jax.Array, yx: jax.Array, xy: jax.Array, xx: jax.Array) -> jax.Array:
    return jnp.stack([jnp.stack([yy, yx], -1), jnp.stack([xy, xx], -1)], -2)


def cholesky_factor(params: ArrayLike) -> jax.Array:
    """The upper-triangular factor U of the covariance.

    Sigma = U^T U, so that the points U^T c have covariance Sigma when the points c have covariance
    I. The diagonal of U is positive.

    Args:
      params: [..., F] log-Cholesky parameters, F = 1 spherical, 2 diagonal, 3 full. Traced.

    Returns:
      [..., 2, 2], rows and columns in (y, x) order, in pixels; the dtype of `params`.

    Raises:
      ValueError: the last axis is not 1, 2 or 3 long.
      TypeError: `params` are not floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> print(cholesky_factor(jnp.log(jnp.array([1.0, 2.0]))))
      [[1. 0.]
       [0. 2.]]

    Reference: "Blurring the Line between Structure and Learning", section 3.2.
    """
    params = _parameters(params)
    u_yy, u_yx, u_xx = entries(params)
    return _matrix(u_yy, u_yx, jnp.zeros_like(u_yy), u_xx).astype(params.dtype)


def covariance_matrix(params: ArrayLike) -> jax.Array:
    """The covariance Sigma = U^T U.

    Args:
      params: [..., F] log-Cholesky parameters, F = 1 spherical, 2 diagonal, 3 full. Traced.

    Returns:
      [..., 2, 2] symmetric positive-definite, in (y, x) order, in squared pixels.

    Raises:
      ValueError: the last axis is not 1, 2 or 3 long.
      TypeError: `params` are not floating-point numbers.

    Example: (the worked example of the paper)
      >>> import jax.numpy as jnp
      >>> print(covariance_matrix(jnp.array([0.0, -2.0, jnp.log(2.0)])))
      [[ 1. -2.]
       [-2.  8.]]

    Reference: "Blurring the Line between Structure and Learning", section 3.2.
    """
    params = _parameters(params)
    u_yy, u_yx, u_xx = entries(params)
    yx = u_yy * u_yx
    return _matrix(u_yy * u_yy, yx, yx, u_yx * u_yx + u_xx * u_xx).astype(params.dtype)


def log_cholesky(covariance: ArrayLike) -> jax.Array:
    """The full log-Cholesky parameters of a covariance; the inverse of `covariance_matrix`.

    log u_yy = log(Sigma_yy) / 2,  u_yx = Sigma_yx / u_yy,
    log u_xx = log(Sigma_xx - u_yx^2) / 2.

    Args:
      covariance: [..., 2, 2] symmetric positive-definite, in (y, x) order, in squared pixels.

    Returns:
      [..., 3] parameters (log u_yy, u_yx, log u_xx). A matrix that is not positive definite
      raises when its numbers are known, and gives NaN when they are traced.

    Raises:
      ValueError: the last two axes are not 2 x 2, or a known matrix is not symmetric
        positive-definite.
      TypeError: `covariance` does not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> print(log_cholesky(jnp.array([[1.0, -2.0], [-2.0, 8.0]])))
      [ 0.        -2.         0.6931472]

    Reference: Pinheiro & Bates 1996, section 2.
    """
    _check_positive_definite(_checks.known(covariance))
    layout = "[..., 2, 2]"
    covariance = _checks.float_array("covariance", covariance, min_ndim=2, layout=layout)
    if covariance.shape[-2:] != (2, 2):
        raise ValueError(f"covariance must have shape {layout}; got {covariance.shape}")
    matrix = wide(covariance)
    yy, yx, xx = matrix[..., 0, 0], matrix[..., 1, 0], matrix[..., 1, 1]
    u_yx = yx / jnp.sqrt(yy)
    params = jnp.stack([0.5 * jnp.log(yy), u_yx, 0.5 * jnp.log(xx - u_yx * u_yx)], -1)
    return params.astype(covariance.dtype)


def _check_positive_definite(known: np.ndarray | None) -> None:
    if known is None or known.shape[-2:] != (2, 2):
        return
    yy, yx, xy, xx = (known[..., i, j].astype(float) for i in (0, 1) for j in (0, 1))
    symmetric = np.all(np.abs(yx - xy) <= 1e-4 * np.sqrt(np.abs(yy * xx)))
    if not (symmetric and np.all(yy > 0) and np.all(yy * xx > yx * yx)):
        raise ValueError(f"covariance must be symmetric positive-definite; got {known.tolist()}")


def standard_deviations(params: ArrayLike, *, spatial_ndim: int = 2) -> jax.Array:
    """The marginal standard deviation along each axis: the square roots of Sigma's diagonal.

    Args:
      params: [..., F] log-Cholesky parameters. Traced.
      spatial_ndim: number of spatial axes, static. With 1 or 3 axes only the spherical (F = 1) and
        diagonal (F = spatial_ndim) families exist; with 2, F = 3 is full.

    Returns:
      [..., spatial_ndim] in the order of the axes, (y, x) in two dimensions, in pixels.

    Raises:
      ValueError: F does not belong to a family in this number of dimensions.
      TypeError: `params` are not floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> print(standard_deviations(jnp.array([0.0, -2.0, jnp.log(2.0)])).round(3))
      [1.    2.828]

    Reference: "Blurring the Line between Structure and Learning", section 3.1.
    """
    params = _checks.float_array("params", params, min_ndim=1, layout="[..., F]")
    if is_full(params, spatial_ndim=spatial_ndim):
        u_yy, u_yx, u_xx = entries(params)
        return jnp.stack([u_yy, jnp.hypot(u_yx, u_xx)], -1).astype(params.dtype)
    sigmas = sigma_of(params).astype(params.dtype)
    return jnp.broadcast_to(sigmas, (*params.shape[:-1], spatial_ndim))


def is_full(params: jax.Array | np.ndarray, *, spatial_ndim: int = 2) -> bool:
    """Whether `params` [..., F] are of the full family; other sizes of F than a family's raise.

    Example:
      >>> import jax.numpy as jnp
      >>> is_full(jnp.zeros(3)), is_full(jnp.zeros(3), spatial_ndim=3)
      (True, False)
    """
    size = params.shape[-1]
    sizes = {1: (1,), 2: (1, 2, 3), 3: (1, 3)}
    _checks.spatial_axes(spatial_ndim)
    if size not in sizes[spatial_ndim]:
        wanted = " or ".join(map(str, sizes[spatial_ndim]))
        raise ValueError(
            f"params for {spatial_ndim} spatial axes must have {wanted} numbers on the last axis; "
            f"got shape {params.shape}"
        )
    return spatial_ndim == 2 and size == 3


def from_ellipse(major: ArrayLike, minor: ArrayLike, angle: ArrayLike) -> jax.Array:
    """The full parameters of a covariance given by its ellipse.

    Sigma = major^2 d d^T + minor^2 p p^T with d = (sin angle, cos angle) in (y, x) order and p
    perpendicular to it.

    Args:
      major: [...] standard deviation along the major axis, in pixels, positive.
      minor: [...] standard deviation across it, in pixels, positive.
      angle: [...] angle of the major axis from +x towards +y (down), in radians.
        The three broadcast against each other when their ranks agree or are zero.

    Returns:
      [..., 3] log-Cholesky parameters.

    Raises:
      ValueError: a known standard deviation is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> print(covariance_matrix(from_ellipse(2.0, 1.0, 0.0)))  # wide: the major axis along x
      [[1. 0.]
       [0. 4.]]

    Reference: "Local and Adaptive Receptive Fields" (thesis), figure 5.3.
    """
    for name, value in (("major", major), ("minor", minor)):
        known = _checks.known(value)
        if known is not None and not np.all(known > 0):
            raise ValueError(f"{name} must be positive; got {known.tolist()}")
    major = _checks.float_array("major", major)
    minor = _checks.float_array("minor", minor)
    angle = _checks.float_array("angle", angle)
    dtype = _checks.common_dtype(major, minor, angle)
    major, minor, angle = wide(major), wide(minor), wide(angle)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    yy = (major * sine) ** 2 + (minor * cosine) ** 2
    yx = (major - minor) * (major + minor) * sine * cosine
    log_u_yy = 0.5 * jnp.log(yy)
    # det Sigma = (major * minor)^2 gives u_xx without the cancellation of Sigma_xx - u_yx^2.
    log_u_xx = jnp.log(major) + jnp.log(minor) - log_u_yy
    params = jnp.stack(jnp.broadcast_arrays(log_u_yy, yx / jnp.sqrt(yy), log_u_xx), -1)
    return params.astype(dtype)


def to_ellipse(params: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The ellipse of a covariance: (major, minor, angle).

    Args:
      params: [..., F] log-Cholesky parameters, F = 1 spherical, 2 diagonal, 3 full. Traced.

    Returns:
      (major, minor, angle), each [...]: standard deviations along the axes in pixels and the angle
      of the major axis from +x towards +y (down), in radians, in (-pi/2, pi/2]. Of a circle the
      angle is 0, and the gradients through the axes' difference and the angle are zero there.

    Raises:
      ValueError: the last axis is not 1, 2 or 3 long.
      TypeError: `params` are not floating-point numbers.

    Example:
      >>> major, minor, angle = to_ellipse(from_ellipse(3.0, 1.0, 0.5))
      >>> round(float(major), 4), round(float(minor), 4), round(float(angle), 4)
      (3.0, 1.0, 0.5)

    Reference: "Local and Adaptive Receptive Fields" (thesis), figure 5.3.
    """
    params = _parameters(params)
    u_yy, u_yx, u_xx = entries(params)
    # To the scale of the ellipse: squares of small entries would leave float32's range.
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(u_yy, u_xx), jnp.abs(u_yx)))
    u_yy, u_yx, u_xx = u_yy / scale, u_yx / scale, u_xx / scale
    # Sigma_xx - Sigma_yy, as products of differences to keep nearly round ellipses exact.
    difference = (u_xx - u_yy) * (u_xx + u_yy) + u_yx * u_yx
    product = 2.0 * u_yy * u_yx
    round_ = (difference == 0) & (product == 0)
    safe = jnp.where(round_, 1.0, difference)
    gap = jnp.where(round_, 0.0, jnp.hypot(safe, product))
    angle = jnp.where(round_, 0.0, 0.5 * jnp.arctan2(product, safe))
    major = jnp.sqrt(0.5 * (u_yy * u_yy + u_yx * u_yx + u_xx * u_xx + gap))
    minor = u_yy * u_xx / major
    dtype = params.dtype
    return (scale * major).astype(dtype), (scale * minor).astype(dtype), angle.astype(dtype)


def cascade(params_a: ArrayLike, params_b: ArrayLike) -> jax.Array:
    """The parameters of the summed covariance: one Gaussian filter after the other.

    g_a * g_b = g_(Sigma_a + Sigma_b): variances add under convolution.

    Args:
      params_a: [..., F_a] log-Cholesky parameters of the first filter.
      params_b: [..., F_b] of the second. Leading axes are equal, or absent in one of the two.

    Returns:
      [..., max(F_a, F_b)] parameters, in the richer of the two families.

    Raises:
      ValueError: a last axis is not 1, 2 or 3 long, or the leading axes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.exp(cascade(jnp.log(jnp.array([3.0])), jnp.log(jnp.array([4.0])))).round(3))
      [5.]

    Reference: "Blurring the Line between Structure and Learning", section 4.1 (cascade smoothing).
    """
    params_a, params_b = _parameters(params_a), _parameters(params_b)
    leading = _common_leading(params_a, params_b)
    size = max(params_a.shape[-1], params_b.shape[-1])
    params_a = jnp.broadcast_to(_as_family(params_a, size), (*leading, size))
    params_b = jnp.broadcast_to(_as_family(params_b, size), (*leading, size))
    dtype = _checks.common_dtype(params_a, params_b)
    params_a, params_b = params_a.astype(dtype), params_b.astype(dtype)
    if size < 3:
        params = 0.5 * jnp.logaddexp(2.0 * bounded(params_a), 2.0 * bounded(params_b))
        return params.astype(dtype)
    a_yy, a_yx, a_xx = entries(params_a)
    b_yy, b_yx, b_xx = entries(params_b)
    # One factor under the other, [U_a; U_b], made triangular by a rotation: no square is formed
    # that could cancel or leave float32's range.
    u_yy = jnp.hypot(a_yy, b_yy)
    cosine, sine = a_yy / u_yy, b_yy / u_yy
    u_yx = cosine * a_yx + sine * b_yx
    u_xx = jnp.hypot(jnp.hypot(a_xx, b_xx), cosine * b_yx - sine * a_yx)
    return jnp.stack([jnp.log(u_yy), u_yx, jnp.log(u_xx)], -1).astype(dtype)


def regressed_covariance(
    updates: ArrayLike,
    initial: ArrayLike,
    *,
    link: str = "exponential",
    bound: float | None = None,
    spread: ArrayLike = 1.0,
) -> jax.Array:
    """The covariances that free numbers, such as a network regresses, make of an initial one.

    log u_yy = log sigma_y + b(l(r_1)),  log u_xx = log sigma_x + b(l(r_F)),
    u_yx = u_yy b(r_2) (exponential) or s b(r_2 / (q s)) (linear), s^2 = sigma_y sigma_x,
    b(a) = bound tanh(a / bound), and b(a) = a without a bound

    exponential: l(r) = r. An update multiplies sigma. Where the bound saturates the gradient
      vanishes.
    linear: l(r) = log(1 + t) for t = r / (q sigma) above 0, and t below: beyond the initial one
      sigma grows by r / q, and it is positive always.

    Args:
      updates: [..., F] free numbers r; 0 keeps the initial covariance. Traced.
      initial: [F] log-Cholesky parameters of an axis-aligned Gaussian: log sigma_y and log sigma_x
        first and last. Traced.
      link: exponential | linear, static.
      bound: how far log sigma moves from its start, static; None for no bound.
      spread: scalar, q of the linear link. With q^2 = sum_k |c_k|^2 of the reference points an
        update of a spherical covariance moves the taps as far as the same update of free offsets
        would.

    Returns:
      [..., F] log-Cholesky parameters in the dtype of `updates`, float32 at least.

    Raises:
      ValueError: a shape or an option is wrong.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> twice, initial = jnp.log(jnp.array([2.0])), jnp.log(jnp.array([0.5]))
      >>> print(jnp.exp(regressed_covariance(twice, initial)))
      [1.]

    Reference: "Blurring the Line between Structure and Learning", section 4.2; the linear link is
      not in the paper.
    """
    _checks.choose("link", link, LINKS)
    _checks.number("bound", bound, above=0, optional=True)
    spread = _checks.finite_scalar("spread", spread)
    updates, initial = _parameters(updates), _parameters(initial)
    if initial.shape != updates.shape[-1:]:
        raise ValueError(
            f"initial must have shape [F] with F = {updates.shape[-1]} as in updates "
            f"{updates.shape}; got {initial.shape}"
        )
    updates = updates.astype(_checks.accumulation_dtype(updates))
    start = initial.astype(updates.dtype).reshape((1,) * (updates.ndim - 1) + (-1,))
    if link == "exponential":
        moved = _within(updates, bound)
        shear = jnp.exp((moved + start)[..., :1]) * moved[..., 1:2]
    else:
        sigmas = jnp.exp(start)
        unit = jnp.sqrt(sigmas[..., :1] * sigmas[..., -1:])  # of the shear, which starts at 0
        if updates.shape[-1] == 3:
            sigmas = jnp.concatenate([sigmas[..., :1], unit, sigmas[..., 2:]], -1)
        relative = updates / (spread.astype(updates.dtype) * sigmas)
        grown = jnp.log1p(jnp.maximum(relative, 0.0)) + jnp.minimum(relative, 0.0)
        moved = _within(grown, bound)
        shear = unit * _within(relative[..., 1:2], bound)
    params = moved + start
    if params.shape[-1] < 3:
        return params
    return jnp.concatenate([params[..., :1], shear, params[..., 2:]], -1)


def _within(values: jax.Array, bound: float | None) -> jax.Array:
    """`values` up to about `bound`, where there is one."""
    return values if bound is None else float(bound) * jnp.tanh(values / float(bound))


def _common_leading(a: jax.Array, b: jax.Array) -> tuple[int, ...]:
    leading = a.shape[:-1] or b.shape[:-1]
    if any(p.shape[:-1] not in ((), leading) for p in (a, b)):
        raise ValueError(
            "params_a and params_b must have equal leading axes, or none in one of them; "
            f"got shapes {a.shape} and {b.shape}"
        )
    return leading


def _as_family(params: jax.Array, size: int) -> jax.Array:
    """`params` in the richer family with `size` parameters."""
    if params.shape[-1] == size:
        return params
    if size == 2:
        return jnp.concatenate([params, params], -1)
    log_y, log_x = params[..., :1], params[..., -1:]
    return jnp.concatenate([log_y, jnp.zeros_like(log_y), log_x], -1)
