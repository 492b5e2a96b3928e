"""Optical flow: digits and their ground, which move by known amounts; or FlyingChairs.

    python train.py --config=configs/flow.py --workdir=runs/flow
    python train.py --config=configs/flow.py:flownet_s --workdir=runs/chairs \
        --config.data.name=flying_chairs --config.data.dir=FOLDER \
        --config.data.augmentation.crop='(320, 448)' --config.steps=300000

A variant is a model. What sees further behind its third convolution is
`--config.model.backbone_options.context=lsdfn` or `adadr`.
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 3000
    config.batch_size = 8
    config.eval_batch_size = 8

    config.eval_every = 1000
    config.checkpoint_every = 1000
    config.log_every = 100

    config.task.name = "flow"
    config.data.name = "digit_flow"

    config.model.name = "flownet_thin"

    config.optimizer.rule = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 4e-4
    config.optimizer.decays = ("*/bias=0",)
    return variants.apply(config, variant)
