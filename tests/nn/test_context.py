"""Context contrast and pyramids of dilations: against PyTorch, loops and the published counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import rfjax
from rfjax import nn


def _map(height=9, width=12, channels=3, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(batch, height, width, channels)), jnp.float32)


def _init(layer, x, seed=1):
    return jax.jit(layer.init)(jax.random.key(seed, impl="unsafe_rbg"), x)


def _randomised(layer, x, seed=0):
    """Variables none of which is trivial, variances positive."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return np.abs(noise) + 0.5 if path[-1] in ("var", "scale") else 0.5 * noise

    return traverse_util.path_aware_map(draw, shapes)


def _count(layer, channels):
    x = jnp.zeros((1, 4, 4, channels))
    params = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    return {name: sum(leaf.size for leaf in jax.tree.leaves(params[name])) for name in params}


# -- the published networks ------------------------------------------------------------------------


# Branches and projection of DeepLab v3 by the channels of its features, without the score.
@pytest.mark.parametrize("channels, wanted", [
    (512, 4_131_840), (2048, 15_535_104), (320, 2_706_432)
])  # fmt: skip
def test_the_pyramid_of_v3_has_the_published_number_of_parameters(channels, wanted):
    counts = _count(nn.ASPP(19, variant="v3", use_bias=True), channels)
    assert counts.pop("score") + counts.pop("bias") == 4_883  # 19 of 256 channels, and biases
    assert sum(counts.values()) == wanted


def test_the_pyramid_of_v2_has_four_branches_straight_to_the_scores():
    counts = _count(nn.ASPP(19, use_bias=True), 512)
    assert counts == {f"rate_{i}": 9 * 512 * 19 for i in range(4)} | {"bias": 19}


def test_a_contrast_has_two_kernels_a_normalisation_and_a_score():
    layer = nn.CCL(19, dilations=(6, 12), use_bias=True)
    counts = _count(layer, 2048)
    second = {"norm_1": 1024, "local_1": 9 * 512 * 512, "context_1": 9 * 512 * 512}
    first = {"norm_0": 4096, "local_0": 9 * 2048 * 512, "context_0": 9 * 2048 * 512}
    scores = {f"score_{i}": 512 * 19 for i in range(2)} | {f"gate_{i}": 513 for i in range(2)}
    assert counts == first | second | scores | {"bias": 19}


def test_defaults_are_those_of_the_papers():
    assert (nn.CCL(2).dilations, nn.CCL(2).width, nn.CCL(2).blur) == ((6,), 512, None)
    assert nn.ASPP.RATES == {"v2": (6, 12, 18, 24), "v3": (12, 24, 36)}


# -- against PyTorch -------------------------------------------------------------------------------


class Torch:
    """The few operations that the references need, on variables of this library."""

    def __init__(self, torch, variables):
        self.torch, self.f = torch, torch.nn.functional
        self.params, self.stats = variables["params"], variables.get("batch_stats", {})

    def tensor(self, array):
        return self.torch.from_numpy(np.array(array))

    def conv(self, x, name, dilation=1):
        kernel = np.asarray(self.params[name]["kernel"]).transpose(3, 2, 0, 1)
        padding = dilation * (kernel.shape[-1] // 2)
        return self.f.conv2d(x, self.tensor(kernel), padding=padding, dilation=dilation)

    def norm(self, x, name):
        scale, bias = (self.tensor(self.params[name][key]) for key in ("scale", "bias"))
        mean, var = (self.tensor(self.stats[name][key]) for key in ("mean", "var"))
        return self.f.batch_norm(x, mean, var, scale, bias, eps=1e-5)

    def run(self, network, x):
        y = network(self, self.tensor(np.asarray(x).transpose(0, 3, 1, 2)))
        return y.numpy().transpose(0, 2, 3, 1) + np.asarray(self.params["bias"])


def _contrasts(net, x, dilations=(2, 4), gated=True):
    scores, gates = [], []
    for i, dilation in enumerate(dilations):
        x = net.norm(x, f"norm_{i}")
        x = net.f.relu(net.conv(x, f"local_{i}") - net.conv(x, f"context_{i}", dilation))
        scores.append(net.conv(x, f"score_{i}"))
        if gated:
            bias = net.tensor(net.params[f"gate_{i}"]["bias"])
            gates.append(net.conv(x, f"gate_{i}") + bias)
    if not gated:
        return sum(scores)
    weights = net.torch.softmax(net.torch.cat(gates, 1), 1)
    return sum(len(dilations) * weights[:, i : i + 1] * score for i, score in enumerate(scores))


def _pyramid_v2(net, x):
    return sum(net.conv(x, f"rate_{i}", rate) for i, rate in enumerate((1, 3, 5)))


def _pyramid_v3(net, x):
    def activate(y, name):
        return net.f.relu(net.norm(y, f"{name}_norm"))

    parts = [activate(net.conv(x, "point"), "point")]
    for i, rate in enumerate((2, 4)):
        parts.append(activate(net.conv(x, f"rate_{i}", rate), f"rate_{i}"))
    pool = activate(net.conv(net.f.adaptive_avg_pool2d(x, 1), "pool"), "pool")
    parts.append(pool.expand(-1, -1, *x.shape[-2:]))
    return net.conv(activate(net.conv(net.torch.cat(parts, 1), "project"), "project"), "score")


REFERENCES = {
    "gated": (nn.CCL(5, dilations=(2, 4), width=6, use_bias=True), _contrasts),
    "summed": (
        nn.CCL(5, dilations=(2, 4), width=6, fusion="sum", use_bias=True),
        functools.partial(_contrasts, gated=False),
    ),
    "single": (
        nn.CCL(5, dilations=(3,), width=6, use_bias=True),
        functools.partial(_contrasts, dilations=(3,), gated=False),
    ),
    "v2": (nn.ASPP(5, rates=(1, 3, 5), use_bias=True), _pyramid_v2),
    "v3": (nn.ASPP(5, variant="v3", rates=(2, 4), width=6, use_bias=True), _pyramid_v3),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_scores_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    layer, network = REFERENCES[name]
    x = _map()
    variables = _randomised(layer, x)
    wanted = Torch(torch, variables).run(network, x)
    found = jax.jit(layer.apply)(variables, x)
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))


# -- what the options do ---------------------------------------------------------------------------


def test_gates_start_as_the_plain_sum():
    x = _map()
    gated, plain = (nn.CCL(5, dilations=(2, 3), width=6, fusion=f) for f in ("gated", "sum"))
    variables = _init(gated, x)
    np.testing.assert_allclose(gated.apply(variables, x), plain.apply(variables, x), atol=1e-5)


def test_one_contrast_has_nothing_to_weigh():
    assert not any("gate" in name for name in _init(nn.CCL(5, width=4), _map())["params"])


def test_a_contrast_sees_nothing_where_context_is_what_is_local():
    """Kernels of equal sums cancel on constants, away from the border."""
    layer = nn.CCL(2, dilations=(2,), width=4, normalize=False)
    x = jnp.ones((1, 9, 9, 3))
    variables = _init(layer, x)
    params = variables["params"] | {"context_0": variables["params"]["local_0"]}
    y = layer.apply({"params": params}, x)
    np.testing.assert_allclose(y[:, 2:-2, 2:-2], 0.0, atol=1e-5)
    assert "batch_stats" not in variables


def test_a_blur_is_that_of_the_context_alone():
    x = _map()
    layer = nn.CCL(2, dilations=(3,), width=4, normalize=False, blur=0.5)
    variables = _init(layer, x)
    kernel = {name: leaf["kernel"] for name, leaf in variables["params"].items()}
    context = rfjax.blurred_dilated_conv(x, kernel["context_0"], dilation=3, blur=0.5)
    local = rfjax.blurred_dilated_conv(x, kernel["local_0"], dilation=1, blur=None)
    wanted = jax.nn.relu(local - context) @ kernel["score_0"][0, 0]
    np.testing.assert_allclose(layer.apply(variables, x), wanted, atol=1e-4)


def test_branches_of_a_pyramid_are_blurred_in_proportion():
    x = _map()
    layer = nn.ASPP(2, rates=(2, 4), blur=2 / 3)
    variables = _init(layer, x)
    wanted = sum(
        rfjax.blurred_dilated_conv(
            x, variables["params"][f"rate_{i}"]["kernel"], dilation=rate, blur=2 / 3
        )
        for i, rate in enumerate((2, 4))
    )
    np.testing.assert_allclose(layer.apply(variables, x), wanted, atol=1e-4)


LAYERS = [
    nn.BlurredDilatedConv(5),
    nn.CCL(5, dilations=(2, 3), width=4),
    nn.ASPP(5, rates=(2, 3)),
    nn.ASPP(5, variant="v3", rates=(2, 3), width=4),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_constructor_is_that_of_every_layer(layer):
    built = layer.clone(kernel_size=5, stride=2, dilation=2, use_bias=True, dtype=jnp.bfloat16)
    x = _map()
    y, variables = jax.eval_shape(built.init_with_output, jax.random.key(0), x)
    assert (y.shape, y.dtype) == ((2, 5, 6, 5), jnp.bfloat16)
    flat = traverse_util.flatten_dict(variables["params"])
    assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype(jnp.float32)}
    sizes = {leaf.shape[:2] for path, leaf in flat.items() if path[-1] == "kernel"}
    assert (5, 5) in sizes and sizes <= {(1, 1), (5, 5)}


@pytest.mark.parametrize("layer", LAYERS[1:])
def test_a_dilation_multiplies_all_rates(layer):
    x = _map()
    variables = _init(layer, x)
    # Taps an even number of pixels apart read one pixel of each 2x2 block.
    fine = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    found = layer.clone(dilation=2).apply(variables, fine)
    np.testing.assert_allclose(found[:, ::2, 1::2], layer.apply(variables, x), atol=1e-4)


# -- training --------------------------------------------------------------------------------------


def _train(layer, variables, x):
    rngs = {"dropout": jax.random.key(0)}
    return layer.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)


@pytest.mark.parametrize("layer", LAYERS[1:])
def test_everything_has_a_gradient(layer):
    x = _map()
    variables = _randomised(layer, x)

    def loss(params):
        return jnp.sum(_train(layer, variables | {"params": params}, x)[0] ** 2)

    flat = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(variables["params"]))
    for path, leaf in flat.items():
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


def test_training_normalises_by_the_batch():
    layer = nn.CCL(5, dilations=(2,), width=4)
    x = 3.0 + _map()
    variables = _init(layer, x)
    y, updated = _train(layer, variables, x)
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    found = updated["batch_stats"]["norm_0"]
    np.testing.assert_allclose(found["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * variance, rtol=1e-4)
    batch = {"norm_0": {"mean": mean, "var": variance}}
    wanted = layer.apply({"params": variables["params"], "batch_stats": batch}, x)
    np.testing.assert_allclose(y, wanted, atol=1e-4)


def test_dropout_is_for_training_and_as_told():
    x = _map()
    layer = nn.ASPP(5, variant="v3", rates=(2,), width=4)
    variables = _init(layer, x)
    half, none = (layer.clone(dropout=rate) for rate in (0.5, 0.0))
    np.testing.assert_array_equal(half.apply(variables, x), none.apply(variables, x))
    assert not jnp.allclose(_train(half, variables, x)[0], _train(none, variables, x)[0])


@pytest.mark.parametrize("layer, message", [
    (nn.CCL(5, dilations=()), r"dilations must be one or more positive integers; got \(\)"),
    (nn.CCL(5, dilations=(6, 0)), "dilations must be"),
    (nn.CCL(5, fusion="mean"), "fusion is one of gated, sum; got 'mean'"),
    (nn.CCL(5, width=0), "width must be a positive integer; got 0"),
    (nn.ASPP(5, variant="v1"), "variant is one of v2, v3; got 'v1'"),
    (nn.ASPP(5, rates=6), "rates must be one or more positive integers; got 6"),
    (nn.ASPP(5, rates=(1.5,)), "rates must be"),
    (nn.ASPP(5, width=8), "width is an option of v3"),
    (nn.ASPP(5, variant="v3", dropout=1.0), "dropout must be at least 0 and below 1; got 1.0"),
    (nn.ASPP(5, dropout=0.5), "dropout is an option of v3"),
    (nn.ASPP(5, blur=-1.0), "blur must be positive"),
    (nn.CCL(5, kernel_size=2), "kernel_size must be odd"),
])  # fmt: skip
def test_errors(layer, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(layer.init, jax.random.key(0), _map())
