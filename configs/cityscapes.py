"""Cityscapes with the protocol of the paper: crops of 800, batches of 16, 240 epochs.

    python train.py --config=configs/cityscapes.py --workdir=runs/cityscapes --config.data.dir=DIR \
        --config.model.weights=drn_a_34.npz

Mean IU in % on the 500 validation images that the paper reports for ImageNet-pretrained backbones
(these are its numbers, the targets of this config, not measurements of this code):

    cityscapes.py:drn_a_34+score           72.4
    cityscapes.py:drn_a_34+conv3           72.9
    cityscapes.py:drn_a_34+composition     73.5   the default
    cityscapes.py:drn_a_34+dog             74.1
    cityscapes.py:resnet_34+score          64.8
    cityscapes.py:resnet_34+composition    68.1
    cityscapes.py:resnet_34+dog            71.4

Fine-tuning the output stage of a finished run for 20 epochs, everything else frozen:

    python train.py --config=configs/cityscapes.py:resnet_34+composition --workdir=runs/tuned \
        --config.model.weights=runs/plain --config.trainable=last_stage --config.steps=3700

A variant is a model, a head, or both joined by "+" in any order. `--config.model.dtype=bfloat16`
and `--config.model.remat=True` save memory.
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base, street_augmentation

STEPS_PER_EPOCH = 185  # 2,975 images in batches of 16, rounded down


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 240 * STEPS_PER_EPOCH  # 44,400
    config.batch_size = 16
    config.eval_batch_size = 8

    config.eval_every = 20 * STEPS_PER_EPOCH
    config.checkpoint_every = 2 * STEPS_PER_EPOCH
    config.log_every = 50

    config.data.name = "cityscapes"
    street_augmentation(config, crop=(800, 800))

    config.model.name = "drn_a_34"
    config.model.head = "composition"

    config.optimizer.learning_rate = 0.01
    config.optimizer.poly_power = 0.9
    config.optimizer.weight_decay = 1e-4
    return variants.apply(config, variant)
