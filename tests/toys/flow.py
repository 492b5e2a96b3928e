"""A task of two inputs: how far every pixel moves from one frame to the next."""

import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax import data, models, tasks


class Flow(tasks.Task):
    score, title, percent, followed = "closeness", "closeness", False, ("error",)

    def row(self, example, rng=None, augmentation=None):
        return {name: example[name] for name in ("first", "second", "flow", "valid")}

    def model(self, build):
        return build(2)

    def inputs(self, batch):
        return batch["first"], batch["second"]

    def loss(self, outputs, batch, key=None):
        error = jnp.sum(jnp.abs(outputs - batch["flow"]), -1)
        return jnp.sum(error * batch["valid"]), jnp.sum(batch["valid"])

    def measure(self, outputs, batch):
        error = jnp.sqrt(jnp.sum((outputs - batch["flow"]) ** 2, -1) + 1e-12)
        return {"error": jnp.sum(error * batch["valid"]), "count": jnp.sum(batch["valid"])}

    def summarize(self, totals):
        error = float(totals["error"] / totals["count"])
        return {"error": error, "closeness": -error}


class Net(linen.Module):
    features: int
    stride: int = 1

    @linen.compact
    def __call__(self, first, second, train=False):
        x = jnp.concatenate([first, second], -1)
        x = linen.relu(linen.Conv(8, (5, 5))(x))
        return linen.Conv(self.features, (3, 3))(x)


class Built:
    def network(self, *, num_classes, **options):
        return Net(num_classes)


def load(split, data_dir):
    def pair(index):
        rng = np.random.default_rng(index)
        first, move = rng.normal(size=(16, 16, 3)).astype(np.float32), rng.integers(-1, 2, 2)
        flow = np.broadcast_to(move.astype(np.float32), (16, 16, 2))
        second = np.roll(first, tuple(move), (0, 1))
        return {"first": first, "second": second, "flow": flow, "valid": np.ones((16, 16), "f4")}

    return data.Dataset("toy_pairs", split, [pair(index) for index in range(12)])


def register():
    tasks.register("toy_flow", Flow)
    models.register("toy_flow", Built)
    data.register("toy_pairs", load)
