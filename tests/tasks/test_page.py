"""The page on tasks of one's own runs, and what it registers is forgotten."""

import re
from pathlib import Path

import jax
import numpy as np

from tests import toys

PAGE = (Path(__file__).parents[2] / "docs/tasks.md").read_text()


def test_the_page_runs(tmp_path):
    names: dict = {}
    with toys.registered(), jax.numpy_dtype_promotion("standard"):
        for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(example, names)
        moved = names["learn"](tmp_path)
    assert moved.shape == (2,) and np.isfinite(moved).all()
