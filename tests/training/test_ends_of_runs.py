"""When a run ends: early, where its score no longer rises, or later, by more steps."""

import itertools
import json

import numpy as np
import pytest

from rfjax import training
from rfjax.training import config as configs
from rfjax.training import interruption, loop, optimizers, pictures, reporting, scoring
from tests.training.runs import arrays, assert_identical, tiny_config

SCORES = (0.1, 0.3, 0.2, 0.25, 0.28, 0.9, 0.9, 0.9)  # of the evaluations, one after each step


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Evaluations without figures, which take longer than these runs."""
    monkeypatch.setattr(pictures.Pictures, "draw", lambda *_, **__: {})


@pytest.fixture
def scored(monkeypatch):
    """Evaluations whose scores are `SCORES`."""
    calls = itertools.count()

    def evaluate(step, variables, batches, *, task):
        score = SCORES[next(calls)]
        return {"loss": 1.0, **dict.fromkeys(("mean_iu", "pixel_accuracy"), score)}

    monkeypatch.setattr(scoring, "evaluate", evaluate)
    return calls


def stopped_at(monkeypatch, step, config, workdir):
    """A session that is asked to stop after a step."""
    with monkeypatch.context() as patch:
        reached = lambda self, now: 15 if now == step else None
        patch.setattr(interruption.Interruption, "reached", reached)
        with pytest.raises(training.Interrupted):
            training.train(config, workdir)


def test_a_run_ends_early_and_remembers_how_long_it_has_waited(
    scored, data_dir, tmp_path, monkeypatch, capfd
):
    """0.3 is not exceeded by three evaluations, one of them before it was stopped."""
    settings = {"eval_every": 1, "log_every": 1, "model__head": "score"}
    config = tiny_config(data_dir, **settings, stop_after=3)
    stopped_at(monkeypatch, 3, config, tmp_path)
    capfd.readouterr()
    result = training.train(config, tmp_path)
    assert (result["step"], result["mean_iu"]) == (5, 0.28)
    assert result["best"] == {"step": 2, "mean_iu": 0.3}
    said = capfd.readouterr().err
    line = "stopped at step 5: the last 3 evaluations were not above mean IU 30.00 % of step 2"
    assert f"{line} (stop_after=3)" in said

    again = training.train(config, tmp_path)
    assert again == result
    assert line in capfd.readouterr().err

    longer = training.train(tiny_config(data_dir, **settings, stop_after=0), tmp_path)
    assert (longer["step"], longer["best"]["step"]) == (8, 8)
    assert [r["step"] for r in reporting.read_records(tmp_path) if r["split"] == "val"] == [
        *range(1, 9)
    ]


def test_evaluations_without_labels_say_nothing_about_the_score(data_dir, tmp_path, monkeypatch):
    nothing = {"loss": float("nan"), "mean_iu": float("nan"), "pixel_accuracy": float("nan")}
    monkeypatch.setattr(scoring, "evaluate", lambda *_, **__: dict(nothing))
    config = tiny_config(data_dir, eval_every=1, stop_after=2, steps=4, model__head="score")
    result = training.train(config, tmp_path)
    assert (result["step"], result["best"]) == (4, {})


def test_a_longer_run_says_which_learning_rate_it_has(scored, data_dir, tmp_path, capfd):
    """From where it stands the rates are those of the longer run."""
    settings = {"optimizer__schedule": "cosine", "model__head": "score", "log_every": 1}
    training.train(tiny_config(data_dir, steps=4, **settings), tmp_path)
    capfd.readouterr()
    config = tiny_config(data_dir, steps=8, **settings)
    assert training.train(config, tmp_path)["step"] == 8
    _, rate = optimizers.from_config(config, lambda path: False)
    assert (
        f"8 steps, where 4 were planned: from here on the learning rate is that of 8 steps by "
        f"cosine, {float(rate(4)):.3g} and not 0" in capfd.readouterr().err
    )
    records = [r for r in reporting.read_records(tmp_path) if r["split"] == "train"]
    assert [r["step"] for r in records] == [*range(1, 9)]
    found = [r["learning_rate"] for r in records if r["step"] > 4]
    np.testing.assert_allclose(found, [float(rate(t)) for t in range(4, 8)], rtol=1e-6)
    with pytest.raises(training.ConfigError, match="steps: 8 -> 6"):
        training.train(tiny_config(data_dir, steps=6, **settings), tmp_path)


def test_a_run_of_a_former_version_goes_on_and_becomes_longer(
    scored, data_dir, tmp_path, monkeypatch
):
    """With a constant rate bit for bit the longer run; what its config lacks is off."""
    settings = {"optimizer__rule": "adam", "model__head": "score"}
    constant = {"optimizer__schedule": "constant"}
    config = tiny_config(data_dir, steps=4, optimizer__poly_power=0.0, **settings)
    former = loop.Run.meta

    def meta(self, batches, waited):
        found = json.loads(json.dumps(former(self, batches, waited)))
        own = found["config"]
        del found["waited"], own["stop_after"], own["task"]["hard_examples"]
        del own["optimizer"]["average"], own["optimizer"]["schedule"]
        own["optimizer"]["adaptive"] = own["optimizer"].pop("rule") == "adam"
        return found

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "meta", meta)
        stopped_at(patch, 3, config, tmp_path / "old")
    longer = tiny_config(data_dir, steps=6, **settings, **constant)
    for folder in ("old", "whole"):
        training.train(longer, tmp_path / folder)
    assert_identical(arrays(tmp_path / "old"), arrays(tmp_path / "whole"))


def test_what_makes_a_run_longer(tmp_path):
    old, new = configs.base(), configs.base()
    new.steps = 2 * old.steps
    for schedule in ("poly", "cosine"):
        old.optimizer.schedule = new.optimizer.schedule = schedule
        configs.check_compatible(old, new, tmp_path)
        assert configs.lengthened(old, new)
        assert not configs.lengthened(new, old)
        assert [str(each) for each in configs.incompatible(old, new)] == ["steps: 1500 -> 3000"]
    old.optimizer.schedule = new.optimizer.schedule = "constant"
    assert not configs.lengthened(old, new)
    assert not configs.incompatible(old, new)
