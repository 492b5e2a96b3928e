"""Digit scenes, a small network, two minutes on two CPU cores.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Draws 64x64 scenes with handwritten digits of 20-48 pixels (once, about ten seconds), and trains a
residual network whose own receptive field is 31 pixels wide. Expected mean IU over 11 classes after
1,500 steps, in %, with the learned sigma in cells of 4 pixels:

    quickstart.py:score         30   the plain 1x1 head
    quickstart.py:conv3         44   a 3x3 head
    quickstart.py:composition   60   the default; sigma grows from 0.5 to 1.8
    quickstart.py:dog           60   center 1.5, surround 3.4

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
