"""Training: configs, steps, the loop, checkpoints and reports."""

from rfjax.training.cache import use_compilation_cache
from rfjax.training.checkpoints import CheckpointError
from rfjax.training.config import ConfigError, base, validate
from rfjax.training.interruption import Interrupted
from rfjax.training.loop import TrainingFailed, evaluate, train

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Interrupted",
    "TrainingFailed",
    "base",
    "evaluate",
    "train",
    "use_compilation_cache",
    "validate",
]
