"""Mistakes on the command lines of all programs: one line, soon, before JAX is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from rfjax import _names, data, models, tasks
from rfjax.data.normalization import SCHEMES
from rfjax.models import heads, registry
from rfjax.receptive_field import published
from rfjax.search import engine
from rfjax.search.population import FAMILIES
from rfjax.training import config as configs
from tests import programs

ROOT = Path(__file__).resolve().parents[1]

TRAIN = "train.py --config=configs/quickstart.py --workdir=W/run "
SEARCH = "rfjax.search --config=configs/search.py --workdir=W/run "
MISTAKES = {
    "train.py": "flag --config=None: needed, as --config=quickstart",
    "rfjax.train --config=quickstart": "flag --workdir=None: needed",
    "train.py --config=nose:dog --workdir=W": "'nose' is no file, and none of rfjax's configs cam",
    "train.py --config=configs/quickstart.py": "flag --workdir=None: needed",
    "train.py --config=configs/none.py --workdir=W": "configs/none.py: No such file",
    "train.py --config=W/syntax.py --workdir=W": "invalid syntax",
    "train.py --config=W/raises.py --workdir=W": "boom (RuntimeError at W/raises.py:2)",
    "train.py --config=W/empty.py --workdir=W": "has no function get_config",
    "train.py --config=configs/quickstart.py:nose --workdir=W": "'nose' is no model",
    "train.py --config=configs/quickstart.py --workdir=W/empty.py": "W/empty.py: File exists",
    TRAIN + "more": "unexpected arguments more",
    TRAIN + "--config.optimizr.x=1": "no key 'optimizr'; did you mean 'optimizer'?",
    TRAIN + "--config.stepz=3": "the config has no key 'stepz'; did you mean 'steps'?",
    TRAIN + "--config.model.hed=conv3": "no key 'model.hed'; did you mean 'model.head'?",
    TRAIN + "--config.model.zzz 3": "the config has no key 'model.zzz'",
    TRAIN + "--config.steps.x=3": "the config has no key 'steps.x'",
    TRAIN + "--config.data.name.x=3": "the config has no key 'data.name.x'",
    TRAIN + "--config.steps=many": "flag --config.steps=many: invalid literal",
    TRAIN + "--config.steps=1000000000000": "steps: got 1000000000000; want an integer from 1 to",
    TRAIN + "--config.optimizer.momentum=7.0": "optimizer.momentum: got 7.0; want",
    TRAIN + "--config.optimizer.learning_rate=nan": "optimizer.learning_rate: got nan",
    TRAIN + "--config.data.augmentation.scale=('a','b')": "data.augmentation.scale: got ('a'",
    TRAIN + "--config.data.options.size=-4": "data.options.size: got -4",
    TRAIN + "--config.data.name=camvid --config.data.options.size=4": "camvid takes enlargement,",
    TRAIN + "--config.model.head=conv3 --config.model.head_options.sigma=1": "takes dilation; got",
    TRAIN + "--config.optimizer.average=1.0": "got 1.0; want a finite number of at least 0 and be",
    TRAIN + "--config.task.class_weights=measured": "got 'measured'; want median_frequency, or",
    TRAIN + "--config.task.hard_examples=1.5": "task.hard_examples: got 1.5; want",
    TRAIN + "--config.optimizer.accumulation=sum": "got 'sum', which nothing reads while",
    TRAIN + "--config.stop_after=-1": "stop_after: got -1; want an integer from 0",
    TRAIN + "--seeds=1": "flag --seeds=1: 1 is not integer >= 2",
    TRAIN + "--num_processes=2": "given together or not at all",
    SEARCH + "--config.optimizr.x=1": "the config has no key 'optimizr'",
    SEARCH + "--config.population.sigma=(-1.0,)": "population.sigma: got (-1.0,)",
    SEARCH + "--config.training.steps=1000000000000": "steps: got 1000000000000",
    SEARCH + "--config.halving.rungs=(1000,)": "rungs must come before the last of 1000 steps",
    SEARCH + "--workdir=W/torn": "W/torn/config.json is damaged",
    "rfjax.studies blurring --table=99 --workdir=W": "invalid choice: '99'",
    "rfjax.studies blurring --table=4 --scale=paper --workdir=W": "no scale 'paper'",
    "rfjax.studies blurring --table=4 --seeds=0 --workdir=W": "must be at least 1; got 0",
    "rfjax.studies scales --run=W/none --workdir=W": "W/none is not a directory",
    "rfjax.studies figures --workdir=W/empty.py": "W/empty.py: File exists",
    "rfjax.predict --workdir=W/none --output=W a.png": "W/none is not a directory",
    "rfjax.predict --workdir=W --output=W a.png": "W holds no checkpoints/",
    "rfjax.predict --workdir=W --output=W": "arguments are required: IMAGE",
    "rfjax.export --workdir=W/none --format=npz --output=W/a": "W/none is not a directory",
    "rfjax.export --workdir=W --format=npz --output=W/a": "W holds no checkpoints/",
    "rfjax.export --workdir=W --format=onnx --output=W/a": "--format=onnx wants --size",
    "rfjax.export --workdir=W --format=npz": "arguments are required: --output",
    "rfjax.video --workdir=W/none --output=W a": "W/none is not a directory",
    "rfjax.video --workdir=W --output=W a": "W holds no checkpoints/",
    "rfjax.video --workdir=W --output=W": "arguments are required: CLIP",
    "rfjax.studies clockwork --table=99 --workdir=W": "invalid choice: '99'",
    "rfjax.studies clockwork --table=all --run=W/none --workdir=W": "W/none is not a directory",
    "rfjax.studies guided --table=dots --weights=W/none --workdir=W": "--weights: W/none is not",
    "rfjax.studies clockwork --table=3.6 --data=camvid --workdir=W": "invalid choice: 'camvid'",
    "rfjax.receptive_field --model=vgg": "--model is one of resnet_18",
    "rfjax.receptive_field --model=resnet_tiny --head=none": "--head is one of score",
    "rfjax.receptive_field --model=resnet_tiny --image=W/a.png": "W/a.png is not a file",
    "rfjax.receptive_field --workdir=W": "W holds no checkpoints/",
    "rfjax.native --fast": "unrecognized arguments: --fast",
    "rfjax.receptive_field --table --step=3": "--table does not take --step",
}


def test_mistakes_are_one_line_before_jax_is_imported(tmp_path):
    (tmp_path / "syntax.py").write_text("def get_config(:\n")
    (tmp_path / "raises.py").write_text("def get_config():\n    raise RuntimeError('boom')\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"key": 0, "enl')
    begin = "from absl import app; from ml_collections import config_flags"
    outcomes = programs.run(MISTAKES, tmp_path, imports=begin, timeout=120)
    for (line, wanted), (status, said) in zip(MISTAKES.items(), outcomes, strict=True):
        said = said.strip()
        assert wanted in said, (line, said)
        assert "error: " in said and len(said.splitlines()) == 1, (line, said)
        assert status in (1, 2), line


@pytest.mark.parametrize(
    ("program", "asked"),
    [("import rfjax", "rfjax"), ("from rfjax import search", "search"),
     ("from rfjax.training import config", "config.base()")],
)  # fmt: skip
def test_imports_are_lazy(program, asked):
    code = f"import sys; {program}; {asked}; print('jax' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"


def test_names_are_those_of_the_code():
    """The tables by which command lines are checked, against what the names stand for."""
    config = configs.base()
    assert tuple(_names.NETWORKS) == models.names()
    for name, options in _names.NETWORKS.items():
        for option in config.model.backbone_options:
            try:
                registry.architecture(name, {option: None})
                takes = True
            except (ValueError, TypeError) as error:
                takes = f"got {option}" not in str(error)
            assert takes == (option in options), (name, option)
    assert tuple(_names.HEADS) == tuple(heads.HEADS)
    for name, options in _names.HEADS.items():
        keys = set(heads.head_options(name)) & set(config.model.head_options)
        assert keys == set(options), name
    assert tuple(_names.DATA_SETS) == data.names()
    assert tuple(_names.TASKS) == tasks.names()
    assert ("dataset", *SCHEMES) == _names.SCHEMES
    assert tuple(engine.MAPPINGS) == _names.MAPPINGS
    assert tuple(FAMILIES) == _names.FAMILIES
    assert tuple(published.NETWORKS) == _names.PUBLISHED
