"""A padded network of odd poolings, and a decoder that fuses two finer maps with the last one.

The last convolution is not padded, so the raised scores begin after the map "pool2": that is the
map which is cropped. The scores of "pool1" lose a border, so the raised ones are cropped.
"""

from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp
from flax import linen

from rfjax import models, nn
from rfjax.models.decoders import Decoder
from rfjax.models.resizing import TransposedBilinear, align
from rfjax.models.stages import Staged, chained
from rfjax.places import Place, common, in_sequence, window

PADDING = ((0, 0), (16, 16), (16, 16), (0, 0))
POOL = window(3, stride=2)
PLACES = in_sequence({"conv1": Place(1, -16), "pool1": POOL, "pool2": POOL, "pool3": POOL,
                      "fc": window(3, padding=0)})  # fmt: skip
SCORES = {"pool1": 5, "pool2": 1, "last": 1}  # sizes of the kernels
RAISED = partial(TransposedBilinear, aligned="index")
TWICE = RAISED(2)


class Backbone(Staged):
    places = property(lambda self: PLACES)

    def steps(self, train):
        return chained({"conv1": self.convolve, **dict.fromkeys(("pool1", "pool2", "pool3"), pool),
                        "fc": self.finish})  # fmt: skip

    def convolve(self, x, forward):
        return nn.call(self.conv(8, name="conv1"), jnp.pad(x, PADDING), forward)

    def finish(self, x, forward):
        return linen.Conv(8, (3, 3), padding="VALID", name="fc")(x), forward


def pool(x, forward):
    return linen.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)]), forward


class Skips(Decoder):
    READS = ("pool1", "pool2", "last")
    RESIZE = staticmethod(RAISED)
    features: int

    def place(self, places):
        place = places["last"]
        for name in ("pool2", "pool1"):
            place = common(own_place(name, places), TWICE.place(place))
        return place

    @linen.compact
    def __call__(self, maps, places):
        total, place = self.score(maps, "last"), places["last"]
        for name in ("pool2", "pool1"):
            coarse, fine = (TWICE.place(place), own_place(name, places))
            pair = align(RAISED(2)(total), coarse, self.score(maps, name), fine)
            total, place = sum(pair), common(coarse, fine)
        return total

    def score(self, maps, name):
        size = (SCORES[name], SCORES[name])
        return linen.Conv(self.features, size, padding="VALID", name=name)(maps[name])


def own_place(name, places):
    """Where the scores of a map lie."""
    return places[name].then(window(SCORES[name], padding=0))


def build():
    return SimpleNamespace(stride=8, features=8, build=Backbone)


def register():
    models.register("toy_skips", build)
    models.register_head("toy_skips", Skips)
