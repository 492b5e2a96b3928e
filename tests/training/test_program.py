"""The program itself, as a process: signals, kills, flags, several processes."""

import json
import random
import signal
import socket
import time

import pytest

from rfjax import training
from rfjax.training import config as configs
from rfjax.training import reporting
from tests.training.runs import arrays, assert_identical, command, start


def flags(steps=400):
    """Long enough to be hit by a signal, short enough to wait for."""
    return (
        f"--config.steps={steps}",
        "--config.eval_every=1000",
        "--config.checkpoint_every=20",
        "--config.log_every=10",
    )


def wait_for_line(process, text):
    """Reads what a process says until `text` appears in a line."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")


def finish(process, status=0):
    """What a process still says, after it ended with `status`."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def test_a_stopped_and_killed_run_ends_bit_identically(data_dir, tmp_path):
    """As a process it is stopped, goes on, and is killed; in this process it goes on to its end."""
    workdir = tmp_path / "run"
    arguments = command(workdir, data_dir, *flags(steps=100))
    stopped = start(arguments, devices=None)
    wait_for_line(stopped, "step 30/100")
    stopped.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in finish(stopped, 128 + signal.SIGTERM)
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert saved >= 30

    killed = start(arguments, devices=None)
    wait_for_line(killed, f"resuming at step {saved}:")
    wait_for_line(killed, f"step {saved // 10 * 10 + 20}/100")
    killed.kill()
    killed.communicate()
    assert not (workdir / "result.json").exists()

    config = configs.from_dict(json.loads((workdir / "config.json").read_text()))
    whole = tmp_path / "whole"
    for folder in (workdir, whole):
        training.train(config, folder)
    assert_identical(arrays(workdir), arrays(whole))
    mine, theirs = (json.loads((path / "result.json").read_text()) for path in (workdir, whole))
    assert mine["class_iu"] == theirs["class_iu"]
    records = [(r["step"], r["split"]) for r in reporting.read_records(workdir)]
    assert len(records) == len(set(records))


@pytest.mark.slow
def test_ten_kills_at_random_moments(data_dir, tmp_path):
    undisturbed, killed = (command(tmp_path / name, data_dir, *flags()) for name in ("a", "b"))
    finish(start(undisturbed))
    rng = random.Random(0)
    for _ in range(10):
        process = start(killed)
        time.sleep(rng.uniform(2.0, 14.0))
        process.kill()
        process.communicate()
    finish(start(killed))
    assert_identical(arrays(tmp_path / "a"), arrays(tmp_path / "b"))


def test_a_mistake_that_the_command_line_does_not_show_is_a_message(data_dir, tmp_path):
    """Others are in test_loop.py, and those that the command line shows in test_commands.py."""
    flags = "--config.trainable=structure", "--config.model.head=score"
    output = finish(start(command(tmp_path, data_dir, *flags)), 1)
    assert "train.py: error: " in output
    assert "selects no parameter" in output
    assert "Traceback" not in output


def free_port():
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        return bound.getsockname()[1]


def start_two(workdir, data_dir, *more):
    """Two processes of one run, with two fake devices each."""
    port = free_port()
    return [
        start(
            command(
                workdir, data_dir, *more, f"--coordinator=localhost:{port}", "--num_processes=2",
                f"--process_id={index}",
            ),
            devices=2,
        )
        for index in range(2)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_two_processes_agree_with_one(data_dir, tmp_path, parallel):
    for process in start_two(tmp_path / "two", data_dir, f"--config.parallel={parallel}"):
        finish(process)
    finish(start(command(tmp_path / "one", data_dir), devices=4))
    two, one = arrays(tmp_path / "two"), arrays(tmp_path / "one")
    assert two.keys() == one.keys()
    for name in one:  # rows are dealt to other devices, so sums round otherwise
        assert abs(two[name] - one[name]).max() <= 1e-5, name
    scores = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("one", "two")]
    assert abs(scores[0]["pixel_accuracy"] - scores[1]["pixel_accuracy"]) < 1e-2
    logs = list((tmp_path / "two").glob("events.out.tfevents.*"))
    assert len(logs) == 1  # process 0 alone writes


@pytest.mark.slow
def test_two_processes_stop_at_one_step_and_one_goes_on(data_dir, tmp_path):
    more = flags(steps=1000)
    first, second = start_two(tmp_path, data_dir, *more)
    wait_for_line(first, "step 10/1000")
    second.send_signal(signal.SIGTERM)
    output = finish(first, 128 + signal.SIGTERM)
    finish(second, 128 + signal.SIGTERM)
    step = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"stopped by SIGTERM at step {step}" in output
    alone = start(command(tmp_path, data_dir, *more), devices=2)
    wait_for_line(alone, f"resuming at step {step}:")
    wait_for_line(alone, f"step {step // 10 * 10 + 20}/1000")
    alone.kill()
    alone.communicate()
