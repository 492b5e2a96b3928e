"""Dynamic filters against the nested loops of their definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import rfjax
from rfjax import nn
from rfjax._engine.conv import convolve
from rfjax.models.concatenation import FilteredConcatenation
from rfjax.places import Place

H, W, C, V = 6, 7, 3, 2  # a map, and the number of outputs


def draw(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def operands(samples, size=3, dtype=np.float64):
    """x, V, U, A and B of one example."""
    return (
        draw(H, W, C, dtype=dtype),
        draw(H, W, V, size, size, seed=1, dtype=dtype),
        draw(H, W, V, C, seed=2, dtype=dtype),
        draw(H, W, V, samples, samples, seed=3, dtype=dtype),
        draw(H, W, V, size, size, seed=4, dtype=dtype),
    )


def naive(x, within, across, attention, positions, *, stride):
    """The filter of every channel is formed, W = V + U at the center: [s, s, H, W, C']."""
    size, number = within.shape[-1], attention.shape[-1]
    kernel = np.repeat(within[:, :, :, None], C, 3)
    kernel[..., size // 2, size // 2] += across
    found = np.zeros((number, number, H, W, V))
    for b, a, i, j in np.ndindex(number, number, H, W):
        row, column = i + stride * (b - number // 2), j + stride * (a - number // 2)
        inside = 0 <= row < H and 0 <= column < W
        weights = positions[row, column] if inside else np.ones((V, size, size))
        for m, n in np.ndindex(size, size):
            y, z = row + m - size // 2, column + n - size // 2
            if 0 <= y < H and 0 <= z < W:
                found[b, a, i, j] += weights[:, m, n] * (kernel[i, j, :, :, m, n] @ x[y, z])
        found[b, a, i, j] *= attention[i, j, :, b, a]
    return found


def cheap(x, within, across, attention=None, positions=None, **options):
    return rfjax.dynamic_filter(
        x, within, across, sample_attention=attention, position_attention=positions, **options
    )


@pytest.mark.parametrize("samples, stride", [(1, 1), (3, 1), (3, 2), (5, 3)])
@pytest.mark.parametrize("fusion", ["sum", "mean", "max"])
def test_the_cheap_form_is_the_naive_one(samples, stride, fusion):
    """Invariants 5 and 9."""
    with jax.enable_x64(True):
        given = operands(samples)
        found = cheap(*given, samples=samples, sample_stride=stride, fusion=fusion)
        wanted = getattr(np, fusion)(naive(*given, stride=stride), (0, 1))
        np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_without_attention_both_are_one():
    """Invariant 4."""
    with jax.enable_x64(True):
        x, within, across, attention, positions = operands(3)
        ones = np.ones_like(attention), np.ones_like(positions)
        options = {"samples": 3, "sample_stride": 2}
        found = cheap(x, within, across, **options)
        np.testing.assert_allclose(found, cheap(x, within, across, *ones, **options), atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        function = functools.partial(cheap, samples=3, sample_stride=2)
        given = tuple(map(jnp.asarray, operands(3)))
        check_grads(function, given, order=1, atol=1e-6, rtol=1e-6)


def test_equal_filters_are_a_convolution():
    """Invariants 1 and 3: the center alone differs between channels."""
    x, window, center = draw(1, H, W, C, dtype=np.float32), draw(V, 3, 3), draw(V, C, seed=1)
    kernel = np.repeat(window.transpose(1, 2, 0)[:, :, None], C, 2)
    kernel[1, 1] += center.T
    everywhere = lambda a: jnp.broadcast_to(jnp.asarray(a, jnp.float32), (1, H, W, *a.shape))
    found = rfjax.dynamic_filter(x, everywhere(window), everywhere(center))
    wanted = convolve(jnp.asarray(x), jnp.asarray(kernel, jnp.float32), 1, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3, 5])
def test_residuals_alone_sum_the_means_of_channels(samples):
    """Invariant 2."""
    within, across = jnp.zeros((9, 9, V, 3, 3)), jnp.full((9, 9, V, C), 1 / C)
    x = jnp.full((9, 9, C), 7.0)
    found = rfjax.dynamic_filter(x, within, across, samples=samples)
    np.testing.assert_allclose(found[4, 4], samples**2 * 7.0, rtol=1e-6)
    x = jnp.asarray(draw(9, 9, C, dtype=np.float32))
    found = rfjax.dynamic_filter(x, within, across, samples=samples, sample_stride=2)
    reach = samples // 2 * 2
    wanted = x[4 - reach : 5 + reach : 2, 4 - reach : 5 + reach : 2].mean(-1).sum()
    np.testing.assert_allclose(found[4, 4], wanted, atol=1e-5)


def test_where_attentions_are_read():
    """Invariant 6: positions at the sampled center, samples at the output."""
    x, within, across, attention, positions = map(jnp.asarray, operands(3, dtype=np.float32))
    function = functools.partial(cheap, x, within, across, samples=3, sample_stride=2)
    before = function(attention, positions)
    changed = jnp.abs(function(attention, positions.at[3, 3].add(1.0)) - before).sum(-1) > 1e-6
    rows, columns = np.nonzero(changed)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {
        (i, j) for i in (1, 3, 5) for j in (1, 3, 5)
    }
    changed = jnp.abs(function(attention.at[3, 3].add(1.0), positions) - before).sum(-1) > 1e-6
    assert np.argwhere(changed).tolist() == [[3, 3]]


@pytest.mark.parametrize("samples, stride", [(3, 1), (5, 2), (3, 3)])
def test_the_field_is_the_samples_and_the_window(samples, stride):
    """Invariant 7: E = (s - 1) stride + k, symmetric."""
    shape = (21, 21)
    within, across = jnp.ones((*shape, 1, 3, 3)), jnp.ones((*shape, 1, 1))
    function = functools.partial(rfjax.dynamic_filter, samples=samples, sample_stride=stride)
    along = jax.grad(lambda x: function(x, within, across)[10, 10, 0])(jnp.ones((*shape, 1)))
    rows, columns, _ = np.nonzero(along)
    reach = (samples // 2) * stride + 1
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (10 - reach, 10 + reach)


# The layer

KEY = jax.random.key(0, impl="unsafe_rbg")
X = jnp.asarray(draw(1, 12, 13, 4, dtype=np.float32))


def test_counts_of_channels():
    """Invariants 3 and 4, of C = 128, C' = 32, k = s = 3."""
    layer = nn.DynamicFilter(32, channels=128)
    params = jax.eval_shape(layer.init, KEY, X)["params"]
    outputs = {name: branch["kernel"].shape[-1] for name, branch in params.items()}
    assert outputs["within"] + outputs["across"] == 4384
    assert outputs["sample_attention"] + outputs["position_attention"] == 576


def test_layers_commute_with_shifts_of_the_map():
    """Invariant 8, away from the border."""
    layer = nn.DynamicFilter(3, channels=5, sample_stride=2)
    variables = jax.jit(layer.init)(KEY, X)
    y, moved = (layer.apply(variables, x) for x in (X, jnp.roll(X, (1, 2), (1, 2))))
    np.testing.assert_allclose(moved[:, 5:8, 6:9], y[:, 4:7, 4:7], atol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
def test_the_residual_lets_gradients_through_a_new_layer(residual):
    """Invariants 10 and 11."""
    layer = nn.DynamicFilter(3, channels=5, residual=residual)
    params = jax.jit(layer.init)(KEY, X)["params"]
    zeros = {name: jax.tree.map(jnp.zeros_like, params[name]) for name in ("within", "across")}
    y, pull = jax.vjp(lambda x: layer.apply({"params": params | zeros}, x), X)
    assert y.shape == (1, 12, 13, 3)
    along = pull(jnp.ones_like(y))[0]
    assert jnp.all(jnp.isfinite(along)) and bool(jnp.any(along != 0)) == residual


def test_the_head_is_a_sum_of_filters():
    head = nn.LSDFN(3, channels=5, samples=3, sample_strides=(2, 4), use_bias=True)
    variables = jax.jit(head.init)(KEY, X)
    parts = []
    for index, stride in enumerate((2, 4)):
        layer = nn.DynamicFilter(3, channels=5, sample_stride=stride, use_bias=not index)
        parts.append(layer.apply({"params": variables["params"][f"filter_{index}"]}, X))
    np.testing.assert_allclose(head.apply(variables, X), parts[0] + parts[1], atol=1e-5)


GIVEN = tuple(map(jnp.asarray, operands(3, dtype=np.float32)))
WRONG = {
    "an even window": (
        lambda: rfjax.dynamic_filter(GIVEN[0], GIVEN[1][..., :2, :2], GIVEN[2]),
        r"within must have shape .*k odd",
    ),
    "other channels": (
        lambda: rfjax.dynamic_filter(GIVEN[0], GIVEN[1], GIVEN[2][..., :2]),
        r"across must have shape \(6, 7, 2, 3\).*got \(6, 7, 2, 2\)",
    ),
    "other samples": (
        lambda: cheap(*GIVEN, samples=5),
        r"sample_attention must have shape \(6, 7, 2, 5, 5\); got \(6, 7, 2, 3, 3\)",
    ),
    "even samples": (lambda: cheap(*GIVEN[:3], samples=2), "samples must be odd; got 2"),
    "fusion": (lambda: cheap(*GIVEN[:3], fusion="min"), "fusion is one of sum, mean, max"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_say_what_is_wanted(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_released_filters_start_as_sums_of_channels():
    """With kernels of zero, 1 + 0 in the attentions and + C in the weights of channels."""
    layer = nn.DynamicFilter(2, channels=3, variant="released", fusion="mean", samples=3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 8, 4)), jnp.float32)
    params = jax.jit(layer.init)(jax.random.key(0, impl="unsafe_rbg"), x)["params"]
    assert params["across_hidden"]["kernel"].shape == (3, 3, 3, 6)
    assert params["position_attention"]["kernel"].shape == (3, 3, 3, 9)
    assert params["sample_attention"]["kernel"].shape == (3, 3, 3, 9)
    zero = ("across", "within", "sample_attention", "position_attention")
    params |= {name: jax.tree.map(jnp.zeros_like, params[name]) for name in zero}
    found = layer.apply({"params": params}, x)

    def run(name, x, **options):
        kernel = params[name]["kernel"]
        if name == "attended":  # a 1x1 kernel of the taps side by side
            kernel = kernel.reshape(3, 3, 3, 3)
        conv = nn.Conv(kernel.shape[-1], kernel_size=kernel.shape[:2], use_bias=True, **options)
        return conv.apply({"params": params[name] | {"kernel": kernel}}, x)

    seen = jax.nn.relu(run("attended", run("reduced", x)))
    filtered = jax.nn.relu(run("input", jax.nn.relu(run("input_hidden", seen))))
    bordered = np.pad(np.sum(filtered, -1), ((0, 0), (1, 1), (1, 1)))
    around = [bordered[:, i : i + 7, j : j + 8] for i, j in np.ndindex(3, 3)]
    wanted = 3 * np.mean(around, 0)
    np.testing.assert_allclose(found, np.stack([wanted] * 2, -1), atol=1e-4 * np.abs(wanted).max())


def test_a_head_joins_filters_to_their_map():
    head = FilteredConcatenation(5, outputs=3, width=6, channels=4, samples=3)
    maps = {"last": jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 8, 4)), jnp.float32)}
    variables = head.init(jax.random.key(0), maps)
    assert head.place({"last": Place(4)}) == Place(4)
    params = variables["params"]
    assert params["filter"]["across"]["kernel"].shape == (1, 1, 4, 12)
    kernel = params["score"]["kernel"].at[:, :, 4:].set(0.0)
    params["score"] = params["score"] | {"kernel": kernel}
    wanted = jnp.einsum("nhwc,ck->nhwk", maps["last"], kernel[0, 0, :4])
    np.testing.assert_allclose(head.apply({"params": params}, maps), wanted, atol=1e-5)
