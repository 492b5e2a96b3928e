"""What is trained, on digits and on the clips of DAVIS. As the encoders of the paper come from
ImageNet, those of digits come from a plain segmentation of the digits that are not held out."""

from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from rfjax.studies import frozen
from rfjax.studies.scales import Scale
from rfjax.studies.specs import Spec
from rfjax.training import config as configs

DATA, CLIPS = "digit_episodes", "davis"
_NETWORK = "resnet"

ENCODER = Spec(
    _NETWORK,
    settings=(("task.name", "segmentation"), ("data.options.kind", "dense")),
    share=3.0,  # it has 32 classes to learn
)
_KNOWS_ALL = ("data.options.held_out", False)


def _guided(parent: Spec = ENCODER, **settings: Any) -> Spec:
    """A network that learns from episodes, in the steps of a full training."""
    chosen = (
        ("task.name", "guided"),
        *((key.replace("__", "."), v) for key, v in settings.items()),
    )
    return Spec(_NETWORK, parent=parent, settings=chosen, share=1.0, learning_rate=0.5)


GUIDED, FOREGROUND, ORACLE = "late global", "foreground", "oracle"
SEPARATE, EARLY, INTERACTIVE = "separate encoders", "early", "interactive, late global"
LOCAL, EARLY_INTERACTIVE = "interactive, late local", "interactive, early"
BY_FRAMES, BY_CLICKS = "guided, by other frames", "guided, by the frame itself"
ALONE = "foreground of clips"


def _of_clips(label: str, kind: str, fusion: str = "late_global") -> Spec:
    """A network that learns from episodes of clips, on a frozen trunk.

    It starts from FCN-8s, which has learned to tell objects from what is around them.
    """
    settings = (
        ("task.name", "guided"),
        ("task.map", "fc6"),
        ("task.fusion", fusion),
        ("eval_batch_size", 2),
        ("data.name", "episodes"),
        ("data.options.of", CLIPS),
        ("data.options.kind", kind),
        ("data.options.folds", 1),
        ("data.options.val_episodes", 64),
        # Steps of one size: scores start at zero, and what they read has a norm of about 100.
        ("optimizer.rule", "adam"),
        ("optimizer.learning_rate", 3e-4),
        ("optimizer.weight_decay", 0.0),
        ("optimizer.rates", ()),
    )
    learns = "backbone/conv5_*, backbone/fc6*, fusion/*, head/*"
    of_episodes = {"trainable": learns, "settings": settings, "label": label, "share": 2.0}
    return frozen.spec("score", parent=frozen.AT_ONCE, **of_episodes)


OF_CLIPS = (BY_FRAMES, BY_CLICKS, ALONE)
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
    LOCAL: _guided(data__options__kind="interactive", task__fusion="late_local"),
    EARLY_INTERACTIVE: _guided(data__options__kind="interactive", task__fusion="early"),
    BY_FRAMES: _of_clips("by-frames", "video"),
    BY_CLICKS: _of_clips("by-clicks", "interactive"),
    ALONE: _of_clips("foreground", "interactive", "foreground"),
}


def config() -> ConfigDict:
    """Of a training: the encoder's, and that from episodes."""
    made = configs.base()
    made.steps = 1200
    made.batch_size = 16
    made.eval_batch_size = 32
    made.data.name = DATA
    made.data.options.turns = 4
    made.data.options.val_episodes = 128
    made.optimizer.learning_rate = 0.1
    made.optimizer.warmup_steps = 50
    made.optimizer.weight_decay = 5e-4
    return made


_DIGITS = {_NETWORK: ("resnet_tiny", {"width": 16, "depth": 4, "output_stride": 8})}
SCALES = {
    DATA: Scale(_DIGITS, config, 1.0, {}),
    CLIPS: frozen.CLIPS,
}
