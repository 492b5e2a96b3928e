"""Five steps of training are PyTorch's: losses, running statistics, and scores in evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax import models, nn

torch = pytest.importorskip("torch")

from tests.models import torch_networks  # noqa: E402  (it needs torch)
from tests.models.torch_networks import conv, stage  # noqa: E402

CLASSES, STEPS, RATE = 4, 5, 0.1


def network():
    """`resnet_tiny` and its score, whose last maps have 3 * 4 * 4 = 48 values a channel."""
    torch.manual_seed(0)
    net = torch_networks.Network()
    net.add_module("conv1", conv(3, 16, 3, 2))
    net.add_module("bn1", torch.nn.BatchNorm2d(16))
    net.add_module("relu", torch.nn.ReLU())
    net.add_module("layer1", stage(16, 32, 2, stride=2))
    net.add_module("seg", torch.nn.Conv2d(32, CLASSES, 1))
    return net


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        images = rng.normal(size=(3, 16, 16, 3)).astype(np.float32)
        yield images, rng.integers(0, CLASSES, (3, 16, 16))


def scores(net, images):
    """At the images' resolution, [N, K, H, W]."""
    small = net(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    interpolate = torch.nn.functional.interpolate
    return interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)


def trained_by_torch(net):
    """Losses, and the state after every step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    losses, states = [], []
    for images, labels in batches():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(scores(net, images), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        states.append({name: value.numpy().copy() for name, value in net.state_dict().items()})
    return losses, states


def trained_here(variables, **options):
    """Losses, and the variables after every step."""
    model = models.create("resnet_tiny", num_classes=CLASSES, **options)
    optimizer = optax.sgd(RATE, momentum=0.9)

    def loss_function(params, statistics, images, labels):
        everything = {"params": params, "batch_stats": statistics}
        logits, new = model.apply(everything, images, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), new["batch_stats"]

    @jax.jit
    def step(variables, moments, images, labels):
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, statistics), slope = gradient(*variables, images, labels)
        updates, moments = optimizer.update(slope, moments)
        return loss, (optax.apply_updates(variables[0], updates), statistics), moments

    state = variables["params"], variables["batch_stats"]
    moments, losses, states = optimizer.init(state[0]), [], []
    for images, labels in batches():
        loss, state, moments = step(state, moments, images, labels)
        losses.append(float(loss))
        states.append({"params": state[0], "batch_stats": state[1]})
    return losses, states


def imported(state):
    return models.import_torch("resnet_tiny", state, num_classes=CLASSES)


def evaluated(variables, images):
    model = models.create("resnet_tiny", num_classes=CLASSES)
    return np.asarray(jax.jit(model.apply)(variables, jnp.asarray(images)))


def furthest(ours, theirs):
    """The largest difference of any array, relative to the array's largest number."""
    relative = lambda a, b: np.max(np.abs(a - b)) / np.max(np.abs(b))
    return max(jax.tree.leaves(jax.tree.map(relative, ours, theirs)))


def test_five_steps_are_those_of_pytorch():
    net = network()
    start = imported(net.state_dict())
    losses, states = trained_by_torch(net)
    mine, variables = trained_here(start)
    np.testing.assert_allclose(mine, losses, rtol=1e-5)
    for ours, theirs in zip(variables, map(imported, states), strict=True):
        assert furthest(ours["batch_stats"], theirs["batch_stats"]) < 1e-5
    images, _ = next(batches())
    with torch.no_grad():
        wanted = scores(net.eval(), images).numpy().transpose(0, 2, 3, 1)
    assert furthest(evaluated(variables[-1], images), wanted) < 1e-5
    # Flax's variances leave the losses as they are, and show in evaluation.
    mine, biased = trained_here(start, norm=partial(nn.BatchNorm, unbiased=False))
    np.testing.assert_allclose(mine, losses, rtol=1e-5)
    assert furthest(evaluated(biased[-1], images), wanted) > 5e-4
