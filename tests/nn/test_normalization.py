"""Running statistics: those of a NumPy loop, of PyTorch's kind or Flax's, on one device or many."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.sharding import Mesh, PartitionSpec

from rfjax import models, nn


def batches(*shape, seed=0, steps=5):
    rng = np.random.default_rng(seed)
    return rng.normal(1.0, 2.0, (steps, *shape)).astype(np.float32)


def reference(xs, *, unbiased=True, momentum=0.9, epsilon=1e-5):
    """The last output and the running statistics after batches [steps, ..., C]."""
    channels = xs.shape[-1]
    mean, var = np.zeros(channels), np.ones(channels)
    for x in xs.astype(np.float64):
        rows = x.reshape(-1, channels)
        seen = rows.mean(0), rows.var(0, ddof=0)
        kept = rows.var(0, ddof=1) if unbiased and len(rows) > 1 else seen[1]
        mean, var = momentum * mean + 0.1 * seen[0], momentum * var + 0.1 * kept
    return (x - seen[0]) / np.sqrt(seen[1] + epsilon), mean, var


def updated(layer, xs, apply=None):
    """The same by a layer, of which `apply` is a function of (variables, x)."""
    apply = apply or (lambda v, x: layer.apply(v, x, mutable=["batch_stats"]))
    variables = layer.init(jax.random.key(0), xs[0])
    for x in xs:
        y, new = jax.jit(apply)(variables, x)
        variables = variables | new
    return y, variables["batch_stats"]["mean"], variables["batch_stats"]["var"]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 4, 5), (2, 1, 1, 5), (1, 1, 1, 5), (6, 5)])
def test_running_statistics_are_those_of_a_loop(shape, unbiased):
    """Two values a channel double the variance; one has none and divides by no zero."""
    xs = batches(*shape)
    layer = nn.BatchNorm(use_running_average=False, unbiased=unbiased)
    for found, wanted in zip(updated(layer, xs), reference(xs, unbiased=unbiased), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_without_the_factor_it_is_flax():
    xs = batches(3, 4, 4, 5)
    ours = updated(nn.BatchNorm(use_running_average=False, unbiased=False), xs)
    flax = updated(linen.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5), xs)
    for found, wanted in zip(ours, flax, strict=True):
        np.testing.assert_array_equal(found, wanted)


def pmapped(layer):
    call = lambda v, x: layer.apply(v, x, mutable=["batch_stats"])
    parallel = jax.pmap(call, axis_name="devices", in_axes=(None, 0), out_axes=(0, None))

    def apply(v, x):
        y, new = parallel(v, x.reshape(4, -1, *x.shape[1:]))
        return y.reshape(x.shape), new

    return apply


def mapped(layer):
    mesh, data = Mesh(np.array(jax.devices()[:4]), ("devices",)), PartitionSpec("devices")
    call = lambda v, x: layer.apply(v, x, mutable=["batch_stats"])
    specs = {"in_specs": (PartitionSpec(), data), "out_specs": (data, PartitionSpec())}
    return jax.shard_map(call, mesh=mesh, **specs)


@pytest.mark.parametrize("parallel", [pmapped, mapped])
@pytest.mark.parametrize("shape", [(4, 1, 1, 3), (8, 3, 2, 3)])
def test_values_are_counted_over_all_devices(parallel, shape):
    """One value a channel on each of four devices: n is 4."""
    xs = batches(*shape)
    layer = nn.BatchNorm(use_running_average=False, axis_name="devices")
    for found, wanted in zip(updated(layer, xs, parallel(layer)), reference(xs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_statistics_of_bfloat16_are_float32():
    xs = jnp.asarray(batches(3, 4, 4, 5), jnp.bfloat16)
    layer = nn.BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    y, mean, var = updated(layer, xs)
    _, *wanted = reference(np.asarray(xs, np.float32))
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose((mean, var), wanted, rtol=1e-5)


def test_masked_values_do_not_count():
    x = batches(6, 4, steps=1)
    mask = np.array([1, 1, 0, 1, 0, 0], bool)[:, None]
    layer = nn.BatchNorm(use_running_average=False)
    apply = lambda v, x: layer.apply(v, x, mask=mask, mutable=["batch_stats"])
    _, *found = updated(layer, x, apply)
    _, *wanted = reference(x[:, mask[:, 0]])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("axis", [1, -3, (1, 2)])
def test_channels_may_be_another_axis(axis):
    x = batches(3, 2, 4, 5, steps=1)
    layer = nn.BatchNorm(use_running_average=False, axis=axis)
    biased = nn.BatchNorm(use_running_average=False, axis=axis, unbiased=False)
    n = 3 * 5 if isinstance(axis, tuple) else 3 * 4 * 5
    var, without = updated(layer, x)[2], updated(biased, x)[2]
    np.testing.assert_allclose(var - 0.9, (without - 0.9) * n / (n - 1), rtol=1e-4)


HEADS = {
    "score": {},
    "aspp": {"variant": "v3", "rates": (2,), "width": 4},
    "ccl": {"dilations": (2,), "width": 4},
}


@pytest.mark.parametrize("unbiased", [None, True, False])
@pytest.mark.parametrize(
    "name, head", [("resnet_tiny", "aspp"), ("drn_tiny", "ccl"), ("dla_tiny", "score")]
)
def test_networks_are_pytorchs_unless_told(name, head, unbiased):
    """In the backbone and in the head."""
    norm = None if unbiased is None else partial(nn.BatchNorm, unbiased=unbiased)
    model = models.create(name, num_classes=2, head=head, head_options=HEADS[head], norm=norm)
    seen = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, linen.BatchNorm):
            seen[context.module.path] = context.module
        return call(*args, **kwargs)

    with linen.intercept_methods(record):
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert {layer.unbiased for layer in seen.values()} == {unbiased is not False}
    normalized = jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
    assert len(normalized) == 2 * len(seen)
    assert {path[0] for path in seen} == set(variables["batch_stats"])
