"""The study of guided networks: what it trains, asks and says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rfjax.studies import __main__ as studies
from rfjax.studies import frozen, scales
from rfjax.studies.clockwork.schedules import NETWORKS
from rfjax.studies.guided import measuring, networks, report, tables
from rfjax.training import config as configs

OF_DIGITS = {name: t for name, t in tables.TABLES.items() if t.data == networks.DATA}
EVERY = [(name, place) for name, table in OF_DIGITS.items() for place in table.cells]


DIGITS = networks.SCALES[networks.DATA]


@pytest.mark.parametrize("name", [name for name in networks.SPECS if name not in networks.OF_CLIPS])
def test_every_network_of_digits_can_be_trained(name):
    encoder, spec = networks.SPECS[name].lineage
    for one in (encoder, spec):
        configs.validate(scales.run_config(one, DIGITS, seed=0))
    config = scales.run_config(spec, DIGITS, seed=0)
    assert config.task.name == "guided" and config.steps == networks.config().steps
    held_out = scales.run_config(encoder, DIGITS, seed=0).data.options.held_out
    assert held_out == config.data.options.held_out  # the encoder has not seen them either


@pytest.mark.parametrize("name", networks.OF_CLIPS)
def test_every_network_of_clips_can_be_trained(name):
    before, spec = networks.SPECS[name].lineage
    assert before == NETWORKS["davis"]["fcn_8s"]  # that of the study of clocks
    config = scales.run_config(spec, networks.SCALES[networks.CLIPS], seed=0)
    configs.validate(config)
    assert config.task.name == "guided" and config.data.options.of == "davis"
    assert config.data.cache.map == frozen.MAPS and "conv4" not in config.trainable


def test_what_is_asked_is_drawn_of_held_out_digits():
    config = networks.config()
    config.data.options.val_scenes = 128
    for question in {tables.TABLES[name].cells[place].question for name, place in EVERY}:
        dataset = measuring.episodes(config, question, count=1)
        marks = dataset.source[0]["label/support"]
        assert marks.shape == (question.shots * (question.ways - 1), 64, 64), question
        assert set(dataset.source._members) <= {1, 2, 11, 12, 21, 22, 31, 32}


def answer(workdir, question, iu):
    """What a run of a study has been asked before."""
    path = workdir / "guided" / f"{question.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"positive_iu": iu}))


def test_a_table_says_what_holds(tmp_path):
    """From answers that lie there, better with more shots and with many points."""
    table = tables.TABLES["annotation"]
    workdirs = {
        name: [tmp_path / f"{name}{seed}" for seed in range(3)]
        for name in (networks.GUIDED, networks.FOREGROUND)
    }
    for cell in table.cells.values():
        question, guided = cell.question, cell.network == networks.GUIDED
        more = 0.3 + 0.2 * (question.points in (0, 100)) + 0.05 * question.shots
        for seed, workdir in enumerate(workdirs[cell.network]):
            answer(workdir, question, 0.2 + 0.01 * seed + more * guided)
    filled = report.Filled("annotation", table, workdirs)
    verdicts = [claim["verdict"] for claim in filled.claims()]
    assert verdicts == ["holds", "holds", "fails", "holds"]
    np.testing.assert_allclose(filled.values["1 shot", "dense"], [75, 76, 77])
    markdown, data, picture = filled.write(tmp_path)
    assert "76.0 ± 1.0" in markdown.read_text()
    assert len(json.loads(data.read_text())["cells"]) == len(table.cells)
    assert picture.stat().st_size > 1000


@pytest.mark.slow
def test_a_table_of_two_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "EPISODES", 2)
    few = {
        place: replace(cell, question=replace(cell.question, tuned=2 * (cell.question.tuned > 0)))
        for place, cell in tables.TABLES["many"].cells.items()
    }
    many = replace(tables.TABLES["many"], cells=few)
    monkeypatch.setattr(tables, "TABLES", {"many": many})
    arguments = ["guided", "--table=many", "--seeds=1", "--steps=2", f"--workdir={tmp_path}"]
    assert studies.main(arguments) == 0
    found = json.loads((tmp_path / "digit_episodes-cpu" / "table_many.json").read_text())
    assert len(found["cells"]) == 2 * len(tables.MANY)
    assert all(0 <= cell["positive_iu"][0] <= 100 for cell in found["cells"])
