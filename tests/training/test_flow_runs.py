"""Flow learns real pairs by heart; the short form of what docs/flow.md measures."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax import data, models, tasks
from rfjax.training import state, steps


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("RFJAX_DATA_DIR"), reason="needs RFJAX_DATA_DIR/flying_chairs"
)
def test_a_network_learns_real_pairs_by_heart():
    """Two pairs at a quarter of their size, 300 steps: a fifth of how far things move, or less."""
    folder = Path(os.environ["RFJAX_DATA_DIR"]) / "flying_chairs"
    pairs = data.load("flying_chairs", "train", data_dir=str(folder), reduction=4)
    task = tasks.create("flow", pairs.facts)
    rows = [task.row(pairs.source[index]) for index in range(2)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    model = task.model(lambda channels: models.create("flownet_thin", num_classes=channels))
    optimizer = optax.adam(5e-4)
    step = jax.jit(steps.make_train_step(model, optimizer, task=task, axis_name=None))
    variables = state.initial_variables(model, jax.random.key(0), *task.inputs(batch))
    with jax.numpy_dtype_promotion("standard"):
        now = state.create(variables, optimizer)
        for _ in range(300):
            now, metrics = step(now, jax.tree.map(jnp.asarray, batch))
    scores = task.summarize(jax.device_get(metrics["measures"]))
    # 0.07 of 1.30 px when this was written; without having learned the pairs, about all of it.
    assert scores["end_point_error_fine"] < 0.2 * scores["motion"]
