"""What is trained. As the encoders of the paper come from ImageNet, those here come from a plain
segmentation of the digits that are not held out."""

from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from rfjax.studies.scales import Scale
from rfjax.studies.specs import Spec
from rfjax.training import config as configs

DATA = "digit_episodes"
_NETWORK = "resnet"

ENCODER = Spec(_NETWORK, settings=(("task.name", "segmentation"), ("data.options.kind", "dense")))
_KNOWS_ALL = ("data.options.held_out", False)


def _guided(parent: Spec = ENCODER, **settings: Any) -> Spec:
    """A network that learns from episodes, in the steps of a full training."""
    chosen = (
        ("task.name", "guided"),
        *((key.replace("__", "."), v) for key, v in settings.items()),
    )
    return Spec(_NETWORK, parent=parent, settings=chosen, share=1.0)


GUIDED, FOREGROUND, ORACLE = "late global", "foreground", "oracle"
SEPARATE, EARLY, INTERACTIVE = "separate encoders", "early", "interactive"
SPECS = {
    GUIDED: _guided(),
    SEPARATE: _guided(task__shared=False),
    EARLY: _guided(task__fusion="early"),
    "masked": _guided(task__fusion="masked"),
    "prototypes": _guided(task__fusion="prototypes"),
    "marks alone, others negative": _guided(data__options__missing="negative"),
    FOREGROUND: _guided(task__fusion="foreground"),
    ORACLE: _guided(
        replace(ENCODER, settings=(*ENCODER.settings, _KNOWS_ALL)), data__options__held_out=False
    ),
    INTERACTIVE: _guided(data__options__kind="interactive"),
}


def config() -> ConfigDict:
    """Of a training: the encoder's, and that from episodes."""
    made = configs.base()
    made.steps = 1200
    made.batch_size = 16
    made.eval_batch_size = 32
    made.data.name = DATA
    made.data.options.min_scale = 20.0
    made.data.options.max_scale = 36.0
    made.data.options.folds = 3  # of which the first holds four digits
    made.data.options.val_episodes = 128
    made.optimizer.learning_rate = 0.1
    made.optimizer.warmup_steps = 50
    made.optimizer.weight_decay = 5e-4
    return made


SCALE = Scale(
    {_NETWORK: ("resnet_tiny", {"width": 16, "depth": 4, "output_stride": 8})}, config, 1.0, {}
)
