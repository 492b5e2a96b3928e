"""PASCAL VOC 2012, with SBD's annotations where they lie beside it, 21 classes.

    python train.py --config=configs/voc.py --workdir=runs/voc --config.data.dir=DIR \
        --config.model.weights=resnet_34.npz

Trains image by image as FCN does: at native sizes, which void pixels fill up to 512x512 so that
one program serves all of them, with the sum of the pixels' losses, momentum .99, and biases at
twice the rate without decay. The rate is for sums of some 200,000 pixels. No result is promised
without `model.weights`.

A variant is a model, a head, or both joined by "+" in any order, as voc.py:resnet_34+conv3.
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 100_000
    config.batch_size = 1
    config.steps_per_call = 20
    config.eval_batch_size = 1
    config.eval_every = 4000
    config.checkpoint_every = 2000
    config.log_every = 100

    config.task.normalize = "none"

    config.data.name = "voc"
    config.data.normalization = "caffe"
    config.data.pad = (512, 512)

    config.model.name = "resnet_34"

    config.optimizer.learning_rate = 1e-10
    config.optimizer.poly_power = 0.0
    config.optimizer.momentum = 0.99
    config.optimizer.rate_in_momentum = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.rates = ("*/bias=2",)
    config.optimizer.decays = ("*/bias=0",)
    return variants.apply(config, variant)
