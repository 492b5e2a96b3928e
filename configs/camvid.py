"""CamVid: 367 street scenes of 360x480 for training, 101 for validation, 11 classes.

    python train.py --config=configs/camvid.py --workdir=runs/camvid --config.data.dir=DIR \
        --config.model.weights=drn_a_34.npz

Trains DRN-A-34 with a composed output layer on crops of 352x480, 300 epochs of 22 steps. The images
come from one drive in each light, so a network without pretrained weights stays far below one with
them; no result is promised without `model.weights`.

A variant is a model, a head, or both joined by "+" in any order, as camvid.py:resnet_34+dog.
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base, street_augmentation

STEPS_PER_EPOCH = 22  # 367 images in batches of 16, rounded down


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 300 * STEPS_PER_EPOCH
    config.batch_size = 16
    config.eval_batch_size = 8

    config.eval_every = 20 * STEPS_PER_EPOCH
    config.checkpoint_every = 5 * STEPS_PER_EPOCH
    config.log_every = STEPS_PER_EPOCH

    config.data.name = "camvid"
    street_augmentation(config, crop=(352, 480))

    config.model.name = "drn_a_34"
    config.model.head = "composition"

    config.optimizer.learning_rate = 0.01
    config.optimizer.poly_power = 0.9
    config.optimizer.weight_decay = 1e-4
    return variants.apply(config, variant)
