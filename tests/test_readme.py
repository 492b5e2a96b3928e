"""The README's Python examples run, and give what they say."""

import re
from pathlib import Path

import jax
import numpy as np

import rfjax

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(example: str) -> dict:
    """The names that an example leaves; as a user's program runs, since optax promotes types."""
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):
        exec(example, names)
    return names


def test_there_are_seven_examples():
    assert len(EXAMPLES) == 7


def test_primitives():
    names = run(EXAMPLES[0])
    assert names["y"].shape == (8, 64, 64, 32) and names["z"].shape == (8, 64, 64, 16)
    np.testing.assert_allclose(names["y"], 1.0, atol=1e-5)


def test_sixteen_fits(capsys):
    names = run(EXAMPLES[1])
    fitted = np.stack(rfjax.to_ellipse(names["params"]), -1)
    np.testing.assert_allclose(fitted, np.tile([4.0, 1.5, 0.6], (16, 1)), rtol=0.02)
    assert capsys.readouterr().out


def test_network():
    assert run(EXAMPLES[2])["logits"].shape == (1, 96, 128, 19)


def test_search():
    sigmas = run(EXAMPLES[3])["result"].final_sigmas
    assert sigmas.shape == (4, 1, 2)
    # Both pairs of starts, 0.8 and 2.5, have moved towards the truth, 1.5.
    assert np.all(sigmas[:2] > 0.9) and np.all(sigmas[2:] < 2.3)


def test_video():
    names = run(EXAMPLES[4])
    assert names["output"].shape == (48, 48, 3)
    assert names["fired"].tolist() == [True, True, True]  # frames of noise


def test_guidance():
    guide = run(EXAMPLES[5])["guide"]
    assert guide["mean"].shape == (2, 64) and guide["count"].tolist() == [1, 1]


def test_receptive_fields():
    names = run(EXAMPLES[6])
    assert (names["field"].size, names["field"].stride) == ((9, 9), (2, 2))
    assert 0.5 < names["seen"].sigma < 3.0
