"""Slow, plain references in float64: NumPy and SciPy loops, written from the definitions alone.

Nothing here imports the library. Maps are [..., H, W, C], coordinates (y, x) with y down,
parameters log-Cholesky: 1 (log s), 2 (log s_y, log s_x) or 3 (log u_yy, u_yx, log u_xx) numbers.
"""

import functools
import math

import numpy as np
from scipy import special

METHODS = ("sampled", "integrated", "discrete")
SUPPORTS = ("hard", "faded")
PADDINGS = ("zero", "edge", "reflect", "wrap", "renormalized")


# Covariances


def factor(params):
    """Upper-triangular U [2, 2] with covariance U^T U."""
    p = np.asarray(params, np.float64)
    if p.size == 1:
        return np.diag([math.exp(p[0]), math.exp(p[0])])
    if p.size == 2:
        return np.diag([math.exp(p[0]), math.exp(p[1])])
    return np.array([[math.exp(p[0]), p[1]], [0.0, math.exp(p[2])]])


def covariance(params):
    """Covariance [2, 2] in (y, x) order."""
    upper = factor(params)
    return upper.T @ upper


def log_cholesky(matrix):
    """The three parameters of a covariance [2, 2], from L L^T with U = L^T."""
    lower = np.linalg.cholesky(np.asarray(matrix, np.float64))
    return np.array([math.log(lower[0, 0]), lower[1, 0], math.log(lower[1, 1])])


def ellipse_covariance(major, minor, angle):
    """Covariance with deviation `major` along `angle` (from +x towards +y), `minor` across."""
    along = np.array([math.sin(angle), math.cos(angle)])
    across = np.array([math.cos(angle), -math.sin(angle)])
    return major**2 * np.outer(along, along) + minor**2 * np.outer(across, across)


# Taps


def half_size(sigma, truncate=2.0):
    """max(1, ceil(truncate * sigma)); rounded first, so that 2 * exp(log 2) counts as 4."""
    return max(1, math.ceil(round(truncate * sigma, 9)))


def profile(d, sigma, method):
    """The value at the integer d, before truncation and normalisation."""
    if method == "sampled":
        return math.exp(-0.5 * (d / sigma) ** 2)
    if method == "integrated":
        # Written with the upper tail, which keeps its digits far from the centre.
        d = abs(d)
        return special.ndtr(-(d - 0.5) / sigma) - special.ndtr(-(d + 0.5) / sigma)
    return special.ive(abs(d), sigma**2)  # exp(-s^2) I_d(s^2)


def support_weight(d, sigma, truncate, support):
    """The weight that the support gives to the integer d."""
    if support == "hard":
        return float(abs(d) <= half_size(sigma, truncate))
    return 1.0 if d == 0 else min(max(truncate * sigma + 1 - abs(d), 0.0), 1.0)


def taps(sigma, *, truncate=2.0, method="sampled", support="hard", limit=None):
    """Normalised taps [2h + 1] of one axis; `limit` cuts the half size before the normalisation."""
    half = half_size(sigma, truncate)
    half = half if limit is None else min(half, limit)
    values = []
    for d in range(-half, half + 1):
        values.append(profile(d, sigma, method) * support_weight(d, sigma, truncate, support))
    return np.array(values) / math.fsum(values)


def selling(matrix):
    """Selling's decomposition: matrix = sum_k weight_k e_k e_k^T, weights >= 0, e_k integer."""
    base = [np.array([1, 0]), np.array([0, 1]), np.array([-1, -1])]
    tolerance = 1e-14 * np.trace(matrix)
    pairs = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    obtuse = False
    while not obtuse:
        obtuse = True
        for i, j, _ in pairs:
            if base[i] @ matrix @ base[j] > tolerance:
                base = [-base[i], base[j], base[i] - base[j]]
                obtuse = False
                break
    weights = [max(0.0, -(base[i] @ matrix @ base[j])) for i, j, _ in pairs]
    directions = [(-int(base[k][1]), int(base[k][0])) for _, _, k in pairs]
    return weights, directions


def _sampled_full(matrix, half_y, half_x):
    inverse = np.linalg.inv(matrix)
    values = np.zeros((2 * half_y + 1, 2 * half_x + 1))
    for y in range(-half_y, half_y + 1):
        for x in range(-half_x, half_x + 1):
            v = np.array([y, x])
            values[y + half_y, x + half_x] = math.exp(-0.5 * v @ inverse @ v)
    return values


def _integrated_full(matrix, half_y, half_x):
    """The density's integral over each pixel: Gauss-Legendre on parts no wider than a deviation."""
    narrow = math.sqrt(np.linalg.eigvalsh(matrix)[0])
    parts = max(1, math.ceil(1 / narrow))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    cell = np.concatenate([(nodes + 1) / 2 + k for k in range(parts)]) / parts - 0.5
    weight = np.tile(weights / 2, parts) / parts
    (a, b), (_, c) = np.linalg.inv(matrix)
    values = np.zeros((2 * half_y + 1, 2 * half_x + 1))
    for y in range(-half_y, half_y + 1):
        for x in range(-half_x, half_x + 1):
            v, u = y + cell[:, None], x + cell[None, :]
            density = np.exp(-0.5 * (a * v * v + 2 * b * v * u + c * u * u))
            values[y + half_y, x + half_x] = weight @ density @ weight
    return values / (2 * math.pi * math.sqrt(np.linalg.det(matrix)))


def _discrete_full(matrix, half_y, half_x):
    """Inverse Fourier transform of exp(-sum_k weight_k (1 - cos(e_k . w))) on a wide torus."""
    reach = math.sqrt(np.linalg.eigvalsh(matrix)[1])
    size = 2 ** math.ceil(math.log2(2 * (max(half_y, half_x) + 14 * reach + 24)))
    wave = 2 * math.pi * np.arange(size) / size
    exponent = np.zeros((size, size))
    for weight, (ey, ex) in zip(*selling(matrix), strict=True):
        exponent += weight * (1 - np.cos(ey * wave[:, None] + ex * wave[None, :]))
    kernel = np.fft.fftshift(np.fft.ifft2(np.exp(-exponent)).real)
    middle = size // 2
    return kernel[middle - half_y : middle + half_y + 1, middle - half_x : middle + half_x + 1]


FULL = {"sampled": _sampled_full, "integrated": _integrated_full, "discrete": _discrete_full}


@functools.cache
def _kernel(params, truncate, method, support, limit):
    matrix = covariance(params)
    sigma_y, sigma_x = math.sqrt(matrix[0, 0]), math.sqrt(matrix[1, 1])
    if len(params) < 3:
        options = dict(truncate=truncate, method=method, support=support, limit=limit)
        return np.outer(taps(sigma_y, **options), taps(sigma_x, **options))
    half_y, half_x = half_size(sigma_y, truncate), half_size(sigma_x, truncate)
    if limit is not None:
        half_y, half_x = min(half_y, limit), min(half_x, limit)
    values = FULL[method](matrix, half_y, half_x).copy()
    for y in range(-half_y, half_y + 1):
        for x in range(-half_x, half_x + 1):
            values[y + half_y, x + half_x] *= support_weight(y, sigma_y, truncate, support)
            values[y + half_y, x + half_x] *= support_weight(x, sigma_x, truncate, support)
    return values / values.sum()


def kernel(params, *, truncate=2.0, method="sampled", support="hard", limit=None):
    """Normalised taps [2 h_y + 1, 2 h_x + 1] of a covariance of any family."""
    key = tuple(float(p) for p in np.asarray(params).ravel())
    return _kernel(key, truncate, method, support, limit)


def embed(values, size):
    """`values` (odd sides) in the middle of zeros with sides `size`."""
    out = np.zeros((size,) * values.ndim)
    middle = tuple(slice((size - n) // 2, (size - n) // 2 + n) for n in values.shape)
    out[middle] = values
    return out


# Filtering


def resolve(i, n, padding):
    """The index that position i of an axis of n reads, or None where it reads nothing."""
    if 0 <= i < n:
        return i
    if padding == "edge":
        return min(max(i, 0), n - 1)
    if padding == "wrap":
        return i % n
    if padding == "reflect":
        period = max(1, 2 * (n - 1))
        return min(i % period, period - i % period) if n > 1 else 0
    return None


def axis_operator(n, values, padding):
    """Matrix [n, n] that filters an axis of n with `values` [2h + 1]."""
    half = len(values) // 2
    matrix = np.zeros((n, n))
    for i in range(n):
        for d in range(-half, half + 1):
            j = resolve(i + d, n, padding)
            if j is not None:
                matrix[i, j] += values[d + half]
    if padding == "renormalized":
        matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def blur_axis(x, sigma, axis, *, padding="zero", **options):
    """`x` filtered along one axis."""
    operator = axis_operator(x.shape[axis], taps(sigma, **options), padding)
    return np.moveaxis(np.tensordot(operator, np.asarray(x, np.float64), (1, axis)), 0, axis)


def correlate(x, values, padding="zero"):
    """Maps [..., H, W, C] filtered by a kernel [kh, kw], tap by tap."""
    x = np.asarray(x, np.float64)
    height, width = x.shape[-3:-1]
    half_y, half_x = values.shape[0] // 2, values.shape[1] // 2
    rows = [resolve(i, height, padding) for i in range(-half_y, height + half_y)]
    columns = [resolve(j, width, padding) for j in range(-half_x, width + half_x)]
    inside = np.outer([r is not None for r in rows], [c is not None for c in columns])
    index = np.ix_([r or 0 for r in rows], [c or 0 for c in columns])
    padded = np.moveaxis(x, -1, 0)[..., index[0], index[1]] * inside
    out, total = np.zeros_like(np.moveaxis(x, -1, 0)), np.zeros((height, width))
    for y in range(values.shape[0]):
        for u in range(values.shape[1]):
            out += values[y, u] * padded[..., y : y + height, u : u + width]
            total += values[y, u] * inside[y : y + height, u : u + width]
    if padding == "renormalized":
        out /= total
    return np.moveaxis(out, 0, -1)


def blur(x, params, *, padding="zero", **options):
    """Maps [..., H, W, C] blurred by one covariance that all of them share."""
    params = np.asarray(params, np.float64).ravel()
    if params.size == 3:
        return correlate(x, kernel(params, **options), padding)
    matrix = covariance(params)
    x = blur_axis(x, math.sqrt(matrix[0, 0]), x.ndim - 3, padding=padding, **options)
    return blur_axis(x, math.sqrt(matrix[1, 1]), x.ndim - 2, padding=padding, **options)


def local_blur(x, params_map, *, max_half_size, padding="zero", **options):
    """A map [H, W, C] of which every pixel is filtered by the covariance at that pixel."""
    out = np.zeros(x.shape)
    height, width, _ = x.shape
    for i in range(height):
        for j in range(width):
            values = kernel(params_map[i, j], limit=max_half_size, **options)
            half_y, half_x = values.shape[0] // 2, values.shape[1] // 2
            total = 0.0
            for y in range(-half_y, half_y + 1):
                for u in range(-half_x, half_x + 1):
                    row, column = resolve(i + y, height, padding), resolve(j + u, width, padding)
                    if row is not None and column is not None:
                        out[i, j] += values[y + half_y, u + half_x] * x[row, column]
                        total += values[y + half_y, u + half_x]
            if padding == "renormalized":
                out[i, j] /= total
    return out


# Deformation


def bilinear(image, y, x):
    """The value of an image [H, W] at a real-valued place, 0 outside."""
    i, j = math.floor(y), math.floor(x)
    total = 0.0
    for row, down in ((i, 1 - (y - i)), (i + 1, y - i)):
        for column, right in ((j, 1 - (x - j)), (j + 1, x - j)):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += down * right * image[row, column]
    return total


def deformed(x, kernel, offsets, mask, *, stride=(1, 1), dilation=(1, 1)):
    """A map [H, W, C] convolved by taps displaced by offsets [H', W', D, K, 2] of D offset groups.

    kernel [kh, kw, C / groups, C_out], mask [H', W', D, K].
    """
    rows, columns, parts, taps, _ = offsets.shape
    channels, (kh, kw, own, features) = x.shape[-1], kernel.shape
    groups = channels // own
    out = np.zeros((rows, columns, features))
    for i, j, o, c, k in np.ndindex(rows, columns, features, own, taps):
        a, b = divmod(k, kw)
        channel = o // (features // groups) * own + c
        part = channel // (channels // parts)
        y = stride[0] * i + dilation[0] * a - dilation[0] * (kh - 1) // 2
        u = stride[1] * j + dilation[1] * b - dilation[1] * (kw - 1) // 2
        dy, dx = offsets[i, j, part, k]
        value = bilinear(x[..., channel], y + dy, u + dx)
        out[i, j, o] += kernel[a, b, c, o] * mask[i, j, part, k] * value
    return out


def torchvision_deform(image, offset, weight, mask, *, stride, padding, dilation):
    """`deform_conv2d` as torchvision documents it, of one image [C, H, W].

    offset [2 D K, H', W'], for every offset group and tap (y, x); weight [O, C / groups, kh, kw];
    mask [D K, H', W']. H' = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1.
    """
    channels, height, width = image.shape
    features, own, kh, kw = weight.shape
    groups, parts = channels // own, mask.shape[0] // (kh * kw)
    out_h = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((features, out_h, out_w))
    for o, i, j, c, a, b in np.ndindex(features, out_h, out_w, own, kh, kw):
        channel = o // (features // groups) * own + c
        tap = channel // (channels // parts) * kh * kw + a * kw + b
        y = stride[0] * i - padding[0] + dilation[0] * a + offset[2 * tap, i, j]
        u = stride[1] * j - padding[1] + dilation[1] * b + offset[2 * tap + 1, i, j]
        out[o, i, j] += weight[o, c, a, b] * mask[tap, i, j] * bilinear(image[channel], y, u)
    return out


def moments(values):
    """Covariance [2, 2] of a kernel [kh, kw] of sum 1 and mean 0, in (y, x) order."""
    y = np.arange(values.shape[0]) - values.shape[0] // 2
    x = np.arange(values.shape[1]) - values.shape[1] // 2
    yy, xx = (values.sum(1) * y * y).sum(), (values.sum(0) * x * x).sum()
    yx = (values * y[:, None] * x[None, :]).sum()
    return np.array([[yy, yx], [yx, xx]])


def variance(values):
    """Variance of taps [2h + 1] of sum 1."""
    d = np.arange(len(values)) - len(values) // 2
    return float((values * d * d).sum())


# Derivatives


def numeric_jacobian(function, point, step=3e-3):
    """d function / d point [*function's shape, *point's shape], by differences of order six."""
    point = np.asarray(point, np.float64)
    columns = []
    for index in range(point.size):
        column = 0.0
        for shift, weight in ((1, 45.0), (2, -9.0), (3, 1.0)):
            moved = np.zeros(point.size)
            moved[index] = shift * step
            moved = moved.reshape(point.shape)
            column = column + weight * np.asarray(function(point + moved), np.float64)
            column = column - weight * np.asarray(function(point - moved), np.float64)
        columns.append(column / (60 * step))
    return np.stack(columns, -1).reshape(np.shape(columns[0]) + point.shape)
