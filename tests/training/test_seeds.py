"""One config trained with several seeds: folders, resuming, and the table."""

import json

import numpy as np
import pytest

from rfjax import tasks, training
from rfjax.training import config as configs
from rfjax.training import loop, seeds

IU = {0: 0.5, 1: 0.7, 2: 0.6}


@pytest.fixture
def trained(monkeypatch):
    """The (seed, folder) of every run, of which none computes anything."""
    runs = []

    def train(config, workdir):
        runs.append((config.seed, workdir.name))
        if config.seed not in IU:
            raise loop.TrainingFailed("the loss is nan at step 3")
        best = {"step": 4, "mean_iu": IU[config.seed] + 0.1}
        return {"step": 8, "loss": 1.5, "mean_iu": IU[config.seed], "class_iu": [0.1], "best": best,
                "sigmas": {}, "images_per_second": 9.0, "seconds": 3.0}  # fmt: skip

    monkeypatch.setattr(loop, "train", train)
    return runs


def test_runs_differ_in_their_seeds_alone(trained, tmp_path):
    config = configs.base()
    found = seeds.train(config, tmp_path, 3)
    assert trained == [(0, "seed0"), (1, "seed1"), (2, "seed2")]
    assert config.seed == 0
    assert list(found["scores"]) == ["loss", "mean_iu", "best_mean_iu"]
    own = found["scores"]["mean_iu"]
    np.testing.assert_allclose(
        [own[part] for part in ("mean", "deviation", "low", "high")], [0.6, 0.1, 0.5, 0.7]
    )
    assert own["of_each"] == [0.5, 0.7, 0.6]
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    page = (tmp_path / "scores.md").read_text()
    assert "| mean_iu | 0.6000 ± 0.1000 | 0.5000 | 0.7000 | 0.5000 | 0.7000 | 0.6000 |" in page
    assert "| best_mean_iu | 0.7000 ± 0.1000 |" in page
    said = seeds.headline(found, tasks.create("segmentation", {}))
    assert said == "mean IU 60 ± 10 % over 3 seeds"


def test_the_first_seed_is_that_of_the_config_and_one_that_diverges_ends_no_other(
    trained, tmp_path, capfd
):
    config = configs.base()
    config.seed = 2
    found = seeds.train(config, tmp_path, 3)
    assert trained == [(2, "seed2"), (3, "seed3"), (4, "seed4")]
    assert (found["seeds"], found["diverged"]) == ([2, 3, 4], [3, 4])
    assert found["scores"]["mean_iu"]["of_each"] == [0.6, None, None]
    assert found["scores"]["mean_iu"]["mean"] == 0.6
    assert "seed 3: the loss is nan at step 3" in capfd.readouterr().err
    assert "| 0.6000 | none | none |" in (tmp_path / "scores.md").read_text()
    assert "over 1 seeds" in seeds.headline(found, tasks.create("segmentation", {}))


def test_nothing_is_scored_where_all_diverge(trained, tmp_path):
    config = configs.base()
    config.seed = 7
    found = seeds.train(config, tmp_path, 2)
    assert found["scores"] == {}
    assert seeds.headline(found, tasks.create("segmentation", {})) == "nothing was scored"


def test_a_single_run_is_not_mixed_with_them(trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(training.ConfigError, match="--seeds: a single run lies in"):
        seeds.train(configs.base(), tmp_path, 2)
    assert not trained
