"""Training: configs, steps, the loop, checkpoints and reports."""

from rfjax import _extras, _lazy

if fault := _extras.missing(__name__, "flax", "optax", "orbax"):
    raise fault

__all__ = _lazy.install(
    __name__,
    {
        "cache": ("use_compilation_cache",),
        "checkpoints": ("CheckpointError",),
        "config": ("ConfigError", "base", "validate"),
        "interruption": ("Interrupted",),
        "loop": ("TrainingFailed", "train"),
        "reporting": (),
        "scoring": ("evaluate",),
    },
)
