"""The program: digit scenes from a config to a report, and going on where it stands."""

import json
import subprocess
import sys

import numpy as np
import pytest

from rfjax import search
from rfjax.search import adapter, report, study
from rfjax.training import ConfigError, Interrupted
from tests.training.runs import ROOT, SETTINGS, set_key

LINES: list[str] = []


def tiny(data_dir):
    """A study of seconds."""
    config = study.base()
    for key, value in (SETTINGS | {"data.dir": str(data_dir), "steps": 4}).items():
        set_key(config.training, key, value)
    config.population.seed = (0, 1)
    config.enumeration.sigma = (0.5, 2.0)
    config.checkpoint_every = 2
    return config


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A study that was stopped once, and its directory."""
    workdir = tmp_path_factory.mktemp("study")
    stop = lambda step: 15 if step == 3 else None
    with pytest.raises(Interrupted):
        study.run(tiny(data_dir), workdir, say=LINES.append, stop=stop)
    assert not (workdir / "result.json").exists()
    return study.run(tiny(data_dir), workdir, say=LINES.append), workdir


def test_a_study_writes_its_report(finished):
    summary, workdir = finished
    assert json.loads((workdir / "result.json").read_text()) == json.loads(json.dumps(summary))
    text = (workdir / "report.md").read_text()
    assert "## Against enumeration" in text and "| search | 8 | 8 |" in text
    assert {p.name for p in (workdir / "figures").iterdir()} == {"trajectories.png", "scores.png"}
    assert any(line.startswith("x1 enumeration: step 4/4, sigma 0.50-2.00") for line in LINES)
    part = summary["enlargements"]["1"]
    assert part["comparison"]["compute_ratio_steps"] == 0.5
    assert part["search"]["candidates"][0]["receptive_field"][0] > 31
    assert set(part["search"]["candidates"][0]["sigmas"]) == {"head"}


def test_fixed_and_searched_candidates_share_their_start(finished):
    _, workdir = finished
    searched = search.load(workdir / "x1" / "search.npz")
    enumerated = search.load(workdir / "x1" / "enumeration.npz")
    np.testing.assert_array_equal(searched.losses[:, 0], enumerated.losses[:2, 0])
    assert np.all(searched.losses[:, 3] != enumerated.losses[:2, 3])


def test_another_config_is_refused(finished, data_dir):
    config = tiny(data_dir)
    config.population.sigma = (0.7,)
    with pytest.raises(ConfigError, match=r"population.sigma: \(0.5,\) -> \(0.7,\)"):
        study.run(config, finished[1])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("mapping", "pmap", "mapping is one of"),
        ("population.sigma", (), "population.sigma: got .*want a tuple"),
        ("enumeration.sigma", (-1.0,), "enumeration.sigma: got .*want positive"),
        ("population.family", ("round",), "population.family is one of own"),
        ("chunk", -1, "chunk: got -1"),
        ("training.steps", 0, "steps: got 0"),
        ("training.trainable", "structure", "trains all parameters"),
    ],
)
def test_configs_are_checked(key, value, message, data_dir, tmp_path):
    config = tiny(data_dir)
    set_key(config, key, value)
    with pytest.raises(ConfigError, match=message):
        study.run(config, tmp_path)


def test_batches_can_be_asked_for_again():
    made = []

    def source():
        made.append(0)
        return iter({"image": step, "label": -step} for step in range(10))

    batches = adapter._Replayed(source)
    asked = (0, 1, 4, 2)
    assert [batches(step)["image"] for step in asked] == list(asked) and len(made) == 2


def result(sigmas, scores, values=None):
    """Candidates of these final sigmas, three seeds of each."""
    count = len(sigmas)
    covariances = np.zeros((count, 3, 1, 3), np.float32)
    covariances[..., [0, 2]] = np.square(sigmas)[:, None, None, None]
    return search.Result(
        population=search.population(seed=np.arange(count) % 3),
        layers=("head",),
        losses=np.ones((count, 2), np.float32),
        covariances=covariances,
        scores=np.asarray(scores, np.float32)[:, None],
        score_steps=np.array([2]),
        diverged_at=np.full(count, -1),
        dropped_at=np.full(count, -1),
        gradient_steps=np.full(count, 2),
        seconds=np.ones(count),
        compile_seconds=0.0,
        values=values,
    )


@pytest.mark.parametrize(
    "sigmas, scores, follows, fine",
    [
        ([2.1, 2.2, 2.3], [0.6, 0.6, 0.6], True, True),  # within 15 % of 2
        ([3.9, 3.9, 3.9], [0.57, 0.57, 0.57], True, True),  # within the flat top, 2 to 4
        ([1.2, 1.2, 1.2], [0.5, 0.5, 0.5], False, False),
        ([6.0, 6.0, 6.0], [0.7, 0.7, 0.7], False, True),
    ],
)
def test_verdicts(sigmas, scores, follows, fine):
    values = np.repeat([1.0, 2.0, 4.0, 8.0], 3)
    grid = [0.4, 0.4, 0.4, 0.56, 0.6, 0.64, 0.55, 0.55, 0.55, 0.1, 0.1, 0.1]
    verdict = report.compare(result(sigmas, scores), result(values, grid, values))
    assert verdict["optimum"] == 2.0 and verdict["flat_top"] == [2.0, 4.0]
    assert verdict["sigma_follows"] == follows and verdict["score_within_spread"] == fine
    assert verdict["compute_ratio_steps"] == 0.25 and not verdict["within_budget"]


def test_a_wrong_flag_ends_the_program_with_a_message(tmp_path):
    flags = ["--config=configs/search.py", f"--workdir={tmp_path}", "--config.sigmas=3"]
    command = [sys.executable, "-m", "rfjax.search", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "rfjax.search: error: the config has no key 'sigmas'\n"
