"""Your own pictures and masks, in folders; see `rfjax.data.folder`.

    python -m rfjax.data DIR
    python train.py --config=configs/folder.py --workdir=runs/own --config.data.dir=DIR

Trains a ResNet-18 with a composed output layer on crops of 256x256. On a CPU begin small:
`folder.py:resnet_tiny` with --config.data.augmentation.crop='(96, 96)' and --config.steps=300.

A variant is a model, a head, or both joined by "+" in any order, as folder.py:resnet_34+dog.
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 5000
    config.batch_size = 8
    config.eval_batch_size = 4

    config.eval_every = 500
    config.checkpoint_every = 250
    config.log_every = 50

    config.data.name = "folder"
    config.data.augmentation.scale = (0.75, 1.5)
    config.data.augmentation.crop = (256, 256)
    config.data.augmentation.color = 0.2
    config.data.augmentation.flip = True

    config.model.name = "resnet_18"
    config.model.head = "composition"

    config.optimizer.learning_rate = 0.02
    config.optimizer.poly_power = 0.9
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 1e-4
    return variants.apply(config, variant)
