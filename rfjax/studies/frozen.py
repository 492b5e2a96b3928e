"""VGG-16 on real images and two cores: conv1 to conv4 are frozen, and run once for all runs.

Their maps, pool3 and pool4, are kept on disk. conv5, fc6, fc7 and what reads them learn. conv5 is
drawn anew, as the trunk that comes with the weights may know nothing there, and so are fc6 and fc7,
which are narrower than the paper's.
"""

from typing import Any

from ml_collections import ConfigDict

from rfjax.studies.scales import Scale
from rfjax.studies.specs import Spec
from rfjax.training import config as configs

MAPS = "pool3, pool4"
LEARNS = "backbone/conv5_*, backbone/fc*, head/*"
NEW = (("model.anew", "backbone/conv5_*"),)


def network(light: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """That of a scale, whose fc6 and fc7 have so many channels."""
    return {"vgg": ("vgg_16", {"border": 0, "light": light})}


def spec(head: str, **fields: Any) -> Spec:
    """A run that starts from the trunk of the study's weights."""
    return Spec("vgg", head, **{"trainable": LEARNS, "settings": NEW, "weights": "wanted"} | fields)


AT_ONCE = spec("fcn_8s", label="8s-at-once")


def truncated(head: str, **fields: Any) -> Spec:
    """A run of a network that ends at pool3 or pool4, of which only the scores learn."""
    settings = {"fcn_pool3": (("data.cache.map", "pool3"),), "fcn_pool4": ()}[head]
    return spec(head, trainable="head/*", settings=settings, **fields)


def config(data: str, *, batch: int, steps: int) -> ConfigDict:
    """Of a training on whole images, as the network of Caffe wants them."""
    config = configs.base()
    config.batch_size, config.steps = batch, steps
    config.eval_batch_size = 8
    config.data.name = data
    config.data.normalization = "caffe"
    config.data.cache.map = MAPS
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 5e-4
    # Scores read features of a norm of about 100, on which they would outrun all other layers.
    config.optimizer.rates = ("head/*=0.1",)
    return config


# Objects in the clips of DAVIS; the studies of clocks and of guidance share its networks.
CLIPS = Scale(network(256), lambda: config("davis", batch=4, steps=400), 0.5, {})
