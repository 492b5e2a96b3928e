"""Search is a library: it needs no networks, no data, no configs, no files and no drawing."""

import subprocess
import sys

from tests.training.runs import ROOT

HEAVY = ["cv2", "grain", "orbax", "tensorboardX", "tensorflow_datasets", "matplotlib", "sklearn"]
HEAVY += ["flax", "ml_collections", "rfjax.data", "rfjax.models", "rfjax.training", "rfjax.studies"]
PROGRAM = f"""
import sys
import jax, jax.numpy as jnp
import rfjax
from rfjax import search

def loss(params, batch):
    blurred = rfjax.gaussian_blur(batch, params["covariance"])
    return jnp.mean((blurred - batch) ** 2)

problem = search.Problem(lambda key, candidate: {{"covariance": candidate.covariance()}}, loss)
starts = search.grid(sigma=[1.0, 2.0], seed=[0])
batches = lambda step: jnp.ones((1, 8, 8, 1))
search.run(jax.random.key(0), problem, starts, batches, steps=2)
search.enumerate(jax.random.key(0), problem, starts, batches, values=[1.0], steps=2)
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_a_search_imports_only_what_it_needs():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[]\n"
