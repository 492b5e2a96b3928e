"""Digit scenes, a small network, two minutes on two CPU cores.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Draws 64x64 scenes with handwritten digits of 20-48 pixels (once, about ten seconds), and trains a
residual network whose own receptive field is 31 pixels wide. Measured mean IU over 11 classes after
1,500 steps, in %, with the learned sigma in cells of 4 pixels; one run each, with seed 0:

    quickstart.py:score          49   the plain 1x1 head
    quickstart.py:conv3          61   a 3x3 head
    quickstart.py:composition    73   the default; sigma grows from 0.5 to 1.5
    quickstart.py:dog            72   center 1.2, surround 3.4
    quickstart.py:gauss_deform   71   a sigma for every pixel, up to 2.2
    quickstart.py:deform         79   free-form offsets for every pixel
    quickstart.py:dynamic        82   a mean and a sigma for every pixel, and a static blur

A variant is the name of a head, or of a model and a head joined by "+".
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 1500
    config.batch_size = 16
    config.eval_batch_size = 32

    config.eval_every = 500
    config.checkpoint_every = 250
    config.log_every = 50

    config.data.name = "digit_scenes"

    config.model.name = "resnet_tiny"
    config.model.head = "composition"

    config.optimizer.learning_rate = 0.1
    config.optimizer.poly_power = 0.9
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 1e-4
    return variants.apply(config, variant)
