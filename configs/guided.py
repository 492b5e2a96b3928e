"""Guided segmentation of digit episodes: which digit is meant is told by marks in another scene.

    python train.py --config=configs/guided.py --workdir=runs/guided

Two of the ten digits are held out: training has neither scenes nor tasks of them, and validation
has tasks of them alone. A variant is a form of fusion, as `guided.py:early`, or "interactive",
where the marks are in the query itself; or both, joined by "+".
"""

from ml_collections import ConfigDict

from rfjax.training.config import base


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.task.name = "guided"
    config.data.name = "digit_episodes"
    config.steps = 1000
    config.batch_size = 16
    config.eval_batch_size = 32
    config.eval_every = 250
    config.checkpoint_every = 250
    config.log_every = 50

    config.model.name = "resnet_tiny"
    config.model.backbone_options.depth = 4
    config.model.backbone_options.output_stride = 8
    config.optimizer.learning_rate = 0.05
    config.optimizer.poly_power = 0.9
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 5e-4
    for part in filter(None, variant.split("+")):
        if part == "interactive":
            config.data.options.kind = part
        else:
            config.task.fusion = part
    return config
