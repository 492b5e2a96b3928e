"""An episodic task: an image is segmented by what was marked in other images."""

import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax import data, models, tasks


class Episodes(tasks.Segmentation):
    pictures = ()

    def check(self, dataset):
        tasks.Task.check(self, dataset)

    def row(self, example, rng=None, augmentation=None):
        return {name: example[name] for name in ("support", "marks", "query", "label")}

    def inputs(self, batch):
        return batch["support"], batch["marks"], batch["query"]

    predictor, draw = tasks.Task.predictor, tasks.Task.draw


class Guided(linen.Module):
    """Scores are products of the query's features with the mean of those that were marked."""

    stride: int = 1

    @linen.compact
    def __call__(self, support, marks, query, train=False):
        encode = linen.Conv(8, (3, 3), name="encoder")
        weights = marks / jnp.maximum(jnp.sum(marks, (1, 2, 3), keepdims=True), 1.0)
        guide = jnp.einsum("nshwc,nshw->nc", encode(support), weights)
        product = jnp.einsum("nhwc,nc->nhw", encode(query), guide)
        bias = self.param("bias", linen.initializers.zeros, ())
        return jnp.stack([jnp.zeros_like(product), product + bias], -1)


class Built:
    def network(self, **options):
        return Guided()


def load(split, data_dir):
    def episode(index):
        rng = np.random.default_rng(index)
        color, other = rng.normal(size=(2, 3)).astype(np.float32)
        masks = rng.random((3, 12, 12)) < 0.5
        images = np.where(masks[..., None], color, other).astype(np.float32)
        support, query = (images[:2], masks[:2].astype(np.float32)), images[2]
        label = masks[2].astype(np.int32)
        return {"support": support[0], "marks": support[1], "query": query, "label": label}

    examples = [episode(index) for index in range(10)]
    return data.Dataset("toy_episodes", split, examples, num_classes=2, class_names=("no", "yes"))


def register():
    tasks.register("toy_episodes", Episodes)
    models.register("toy_guided", Built)
    data.register("toy_episodes", load)
