"""The networks of every study can be set up, whatever their heads and options."""

import jax
import jax.numpy as jnp
import pytest

from rfjax.studies import scales
from rfjax.studies.registry import STUDIES
from rfjax.training import composed

CHANNELS = {"depth": 1, "rgbd": 4}
SETS = {"semantic": 11, "geometric": 3}
FACTS = {"num_classes": 11, "class_names": [str(k) for k in range(11)], "label_sets": SETS}


def networks(study):
    """A config and the names of its runs for each network of a study."""
    scale = next(iter(study.scales.values()))
    found = {}
    for table in study.tables.values():
        for spec in table.specs:
            config = scales.run_config(spec, scale, seed=0, steps=240)
            key = config.model.to_json(sort_keys=True), config.task.name
            found.setdefault(key, (config, []))[1].append(spec.name)
    return found.values()


@pytest.mark.parametrize("name", STUDIES)
def test_every_network_can_be_set_up(name):
    for config, runs in networks(STUDIES[name]):
        task = composed.create_task(config, FACTS)
        try:
            model = composed.build(config, task)
            channels = CHANNELS.get(config.data.options.modality, 3)
            shape = 1, 64, 64, sum(config.model.late_fusion) or channels
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{name}: {', '.join(runs)}: {error}") from error
