"""What is installed without extras is enough for the primitives; the rest says what it needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The parts that need an extra, and what each misses first.
PARTS = {
    "nn": "flax",
    "models": "flax",
    "data": "cv2",
    "training": "flax",
    "search": "optax",
    "studies": "flax",
    "predict": "PIL",
    "visualize": "matplotlib",
}
# Every module is hidden but Python's own and those that `pip install rfjax` brings.
BARE = """
import importlib, json, sys

BASE = {"rfjax", "jax", "jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy"}

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in BASE | sys.stdlib_module_names or top.startswith("_"):
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Bare, sys.meta_path)
"""


@pytest.fixture(scope="module")
def said():
    """By part, the message of its import where no extra is installed."""
    code = f"""{BARE}
import jax.numpy as jnp, rfjax
from rfjax import receptive_field

blur = lambda x: rfjax.gaussian_blur(x, jnp.zeros(1))
assert blur(jnp.ones((9, 9, 1))).shape == (9, 9, 1)
assert receptive_field.theoretical(blur, (None, None, 1)).size == (5, 5)
for name in rfjax.__all__:
    getattr(rfjax, name)
said = {{}}
for part in {list(PARTS)}:
    try:
        importlib.import_module("rfjax." + part)
    except ModuleNotFoundError as error:
        said[part] = str(error)
print(json.dumps(said))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", PARTS)
def test_parts_name_the_extra(said, part):
    assert said[part].startswith(f"rfjax.{part} needs {PARTS[part]}")
    assert said[part].endswith(": pip install 'rfjax[train]'")
