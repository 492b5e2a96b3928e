"""Small runs for the tests of this directory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rfjax.training import config as configs
from rfjax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[2]

# A network and scenes so small that compiling takes longer than training.
SETTINGS = {
    "steps": 8,
    "batch_size": 8,
    "eval_batch_size": 8,
    "eval_every": 4,
    "checkpoint_every": 2,
    "log_every": 2,
    "data.options.size": 32,
    "data.options.min_scale": 8.0,
    "data.options.max_scale": 14.0,
    "data.options.train_scenes": 24,
    "data.options.val_scenes": 5,
    "model.head": "composition",
    "model.backbone_options.width": 4,
    "optimizer.learning_rate": 0.1,
}


def set_key(config: Any, key: str, value: Any) -> None:
    """Sets a dotted key."""
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


def tiny_config(data_dir: Path, **changes: Any) -> Any:
    """A config of seconds; changes are given with "__" for the dots of a key."""
    config = configs.base()
    settings = SETTINGS | {"data.dir": str(data_dir)}
    for key, value in (settings | {k.replace("__", "."): v for k, v in changes.items()}).items():
        set_key(config, key, value)
    return config


def command(workdir: Path, data_dir: Path, *flags: str) -> list[str]:
    """The command line of the run that `tiny_config` describes."""
    settings = [
        f"--config.{key}={value}" for key, value in (SETTINGS | {"data.dir": data_dir}).items()
    ]
    base = [sys.executable, "train.py", "--config=configs/quickstart.py", f"--workdir={workdir}"]
    return [*base, *settings, *flags]


def start(arguments: list[str], *, devices: int | None = 1) -> subprocess.Popen:
    """The process of a command line, on fake CPU devices; None: compiled as in this process."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    if devices is not None:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of a run's newest checkpoint, by its path."""
    import jax

    with Checkpoints(workdir, read_only=True) as checkpoints:
        step, stored = checkpoints.latest_step, checkpoints._store
        restored = {item: stored.arrays(step, item) for item in ("variables", "optimizer")}
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_identical(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    """Fails unless two sets of arrays agree bit by bit."""
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(
            left[name].reshape(-1).view(np.uint8),
            right[name].reshape(-1).view(np.uint8),
            err_msg=name,
        )
