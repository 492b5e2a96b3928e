"""Records on disk, and metrics that are fetched one step late."""

import json

import numpy as np
import pytest

from rfjax.tasks import Segmentation
from rfjax.training import reporting


class Metrics(dict):
    """Metrics of a step that note when they are looked at."""

    def __init__(self, step, loss, seen):
        super().__init__(
            loss=np.float32(loss),
            grad_norm=np.float32(1),
            sigmas={"head": np.array([0.5, 0.5])},
            measures=np.array([[3, 1], [0, 4]]),
        )
        self.step, self.seen = step, seen

    def items(self):
        self.seen.append(self.step)
        return super().items()


@pytest.fixture
def reporter(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting.jax, "device_get", lambda metrics: dict(metrics.items()))
    options = dict(start=0, steps=6, batch_size=4, log_every=2, schedule=lambda step: 0.1 * step)
    with reporting.Reporter(tmp_path, Segmentation(), **options) as made:
        yield made


def test_a_step_is_fetched_after_the_next_is_dispatched(reporter):
    seen = []
    for step in (1, 2, 3):
        reporter.push(step, Metrics(step, 0.5, seen))
        assert seen == list(range(1, step))
    reporter.flush()
    assert seen == [1, 2, 3]


def test_records_hold_the_mean_of_their_interval(reporter, tmp_path):
    for step in range(1, 7):
        reporter.push(step, Metrics(step, step, []))
    reporter.flush()
    records = reporting.read_records(tmp_path)
    assert [record["step"] for record in records] == [2, 4, 6]
    assert [record["loss"] for record in records] == [1.5, 3.5, 5.5]
    assert records[0]["mean_iu"] == (3 / 4 + 4 / 5) / 2
    np.testing.assert_allclose(records[1]["learning_rate"], 0.3)  # that of the update 3 -> 4
    assert records[0]["sigmas"] == {"head": [0.5, 0.5]}
    assert records[2]["images_per_second"] > 0


def test_a_loss_that_is_not_finite_stops_and_names_the_step(reporter):
    reporter.push(1, Metrics(1, 0.5, []))
    reporter.push(2, Metrics(2, np.nan, []))
    with pytest.raises(reporting.NonFiniteLoss, match="the loss is nan at step 2"):
        reporter.push(3, Metrics(3, 0.5, []))


def test_undone_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / reporting.METRICS_FILE
    lines = [json.dumps({"step": step, "split": "train"}) for step in (2, 4, 6)]
    path.write_text("\n".join(lines) + '\n{"step": 8, "spl')
    written = reporting.MetricsFile(tmp_path, start=4)
    written.write({"step": 5, "split": "val", "class_iu": [0.5, float("nan")]})
    written.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 2, "split": "train"},
        {"step": 4, "split": "train"},
        {"step": 5, "split": "val", "class_iu": [0.5, None]},
    ]


def test_only_the_first_process_writes(tmp_path, capsys):
    options = dict(start=0, steps=2, batch_size=4, log_every=1, schedule=lambda step: 0.1)
    with reporting.Reporter(tmp_path, Segmentation(), writes=False, **options) as silent:
        silent.say("hello")
        silent.evaluation(
            1, {"mean_iu": 0.5, "pixel_accuracy": 0.5, "loss": 1.0}, split="val", seconds=1
        )
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == ""


def test_plain_lines_hold_the_numbers(reporter, capsys):
    for step in (1, 2, 3, 4):
        reporter.push(step, Metrics(step, 0.25, []))
    reporter.flush()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("step 4/6  loss 0.2500  IU 77.5 %")
    assert "images/s  sigma head 0.50  ETA 0:00:00" in line


def test_clock_stands_still(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(reporting.time, "perf_counter", lambda: now[0])
    clock = reporting.Clock()
    clock.start()
    now[0] = 3.0
    clock.stop()
    now[0] = 10.0  # an evaluation
    clock.start()
    now[0] = 12.0
    assert clock.lap() == 5.0
    now[0] = 13.5
    assert clock.lap() == 1.5


def test_the_wait_for_data_is_a_share_of_the_time_of_steps(reporter, tmp_path, monkeypatch, capsys):
    now = [1.0]
    monkeypatch.setattr(reporting.time, "perf_counter", lambda: now[0])
    # The second batch comes while the first step compiles, which is no time of steps.
    for step, waited in enumerate((7.0, 7.0, 3.0, 0.1, 0.1), start=1):
        reporter.push(step, Metrics(step, 0.5, []), waited=waited)
        now[0] += 10.0
    records = reporting.read_records(tmp_path)
    np.testing.assert_allclose([record["data_wait"] for record in records], [0.3, 0.01])
    first, second = capsys.readouterr().err.splitlines()
    assert "images/s  data wait 30 %  sigma" in first
    assert "data wait" not in second  # 1 % is nothing to act on
