"""What may go wrong around a run ends it in one line, or does not end it."""

import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest

from rfjax import data, tasks, training, visualize
from rfjax._lock import InUse, held
from rfjax.training import feed, loop, pictures, reporting
from tests.training.runs import arrays, assert_identical, tiny_config


class Damaged:
    """Scenes of which one cannot be read."""

    def __init__(self, source, bad):
        self._source, self._bad = source, bad

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        if index == self._bad:
            raise ZeroDivisionError(f"scene {index} cannot be\nread")
        return self._source[index]


def damaged(monkeypatch, split, bad):
    """Lets the example `bad` of `split` be one that cannot be read."""
    load = data.load

    def loaded(name, wanted, **options):
        found = load(name, wanted, **options)
        if wanted == split:
            object.__setattr__(found, "source", Damaged(found.source, bad))
        return found

    monkeypatch.setattr(data, "load", loaded)


# Of 24 scenes the first look reads the tenth, and not the second.
@pytest.mark.parametrize(("split", "bad"), [("train", 9), ("train", 1), ("val", 3)])
def test_a_fault_of_the_data_is_one_line(split, bad, data_dir, tmp_path, monkeypatch, capfd):
    damaged(monkeypatch, split, bad)
    before = threading.active_count()
    with pytest.raises(feed.DataError) as fault:
        training.train(tiny_config(data_dir), tmp_path)
    assert str(fault.value) == f"data: scene {bad} cannot be; read"
    assert "Traceback" not in capfd.readouterr().err
    assert threading.active_count() <= before + 1  # the pool of a reader may still be ending


def test_what_the_first_look_finds_comes_before_the_first_step(data_dir, tmp_path, monkeypatch):
    damaged(monkeypatch, "val", 4)
    monkeypatch.setattr(loop, "build", None)  # which would come first
    with pytest.raises(feed.DataError, match="scene 4"):
        training.train(tiny_config(data_dir), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros((3, 4), np.uint8)}, "image has shape"),
        ({"image": np.zeros((32, 32), np.uint8)}, "image has shape"),
        ({"label": np.full((32, 32), 77, np.uint8)}, r"label values \[77\] outside the classes"),
    ],
)
def test_the_first_look_reads_pairs_and_labels(change, message, data_dir):
    options = tiny_config(data_dir).data.options
    dataset = data.load(
        "digit_scenes", "val", data_dir=str(data_dir), **loop.configs.options(options)
    )
    data.check(dataset)
    examples = [dataset.source[0] | change]
    object.__setattr__(dataset, "source", examples)
    with pytest.raises(ValueError, match=message):
        data.check(dataset)
    object.__setattr__(dataset, "source", [])
    with pytest.raises(ValueError, match="the val split of digit_scenes is empty"):
        data.check(dataset)


def test_nothing_was_scored(data_dir, tmp_path, monkeypatch, capfd):
    load = data.load

    def loaded(name, split, **options):
        found = load(name, split, **options)
        if split == "val":
            void = [found.source[i] | {"label": np.full((32, 32), 255, np.uint8)} for i in range(2)]
            object.__setattr__(found, "source", void)
        return found

    monkeypatch.setattr(data, "load", loaded)
    result = training.train(tiny_config(data_dir, steps=2), tmp_path)
    task = tasks.Segmentation()
    assert not task.is_scored(result)
    assert not task.is_scored(json.loads((tmp_path / "result.json").read_text()))
    assert "nothing was scored, since every label is void" in capfd.readouterr().err
    assert len(arrays(tmp_path)) > 10  # the network is saved nevertheless


def test_two_runs_in_one_directory(data_dir, tmp_path):
    taken, release = threading.Event(), threading.Event()

    def other():
        with held(tmp_path):
            taken.set()
            release.wait()

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait()
    with pytest.raises(InUse, match=f"in use by process {os.getpid()} on"):
        training.train(tiny_config(data_dir), tmp_path)
    release.set()
    thread.join()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_deleted_directory_ends_the_run(data_dir, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    tell = reporting.Reporter._tell

    def delete(self, step, *measured):
        if step == 4:
            shutil.rmtree(workdir)
        tell(self, step, *measured)

    monkeypatch.setattr(reporting.Reporter, "_tell", delete)
    with pytest.raises(OSError, match=r"No such file or directory: '.*/run/metrics.jsonl'"):
        training.train(tiny_config(data_dir, eval_every=8, checkpoint_every=8), workdir)
    assert not workdir.exists()


def test_several_signals_save_once(data_dir, tmp_path, capfd, monkeypatch):
    """The second one used to end the process at once, without saving."""
    whole = training.train(tiny_config(data_dir), tmp_path / "whole")
    push = reporting.Reporter.push

    def interrupted(self, step, metrics, **more):
        if step == 3:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
        push(self, step, metrics, **more)

    monkeypatch.setattr(reporting.Reporter, "push", interrupted)
    with pytest.raises(training.Interrupted, match="stopped by SIGTERM at step 3, which is saved"):
        training.train(tiny_config(data_dir), tmp_path / "stopped")
    monkeypatch.undo()
    said = capfd.readouterr().err
    assert said.count("SIGTERM: stopping and saving after the step that is under way") == 1
    assert said.count(": still saving; SIGKILL would lose what came since") == 2
    resumed = training.train(tiny_config(data_dir), tmp_path / "stopped")
    assert resumed["mean_iu"] == whole["mean_iu"]
    assert_identical(arrays(tmp_path / "stopped"), arrays(tmp_path / "whole"))


def test_a_figure_that_fails_ends_nothing(data_dir, tmp_path, monkeypatch, capfd):
    def fail(*arguments, **options):
        raise MemoryError("Unable to allocate 6.5 GiB\nfor an array")

    monkeypatch.setattr(visualize, "covariance_ellipses", fail)
    monkeypatch.setattr(pictures.Pictures, "_examples", fail)
    training.train(tiny_config(data_dir, steps=2), tmp_path)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "not drawn" in line]
    assert line == "not drawn: examples, covariances (Unable to allocate 6.5 GiB; for an array)"
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"curves.png", "sigmas.png"}


def test_records_survive_what_a_disk_does_to_them(tmp_path):
    good = {"step": 1, "split": "train"}
    lines = [
        json.dumps(good).encode(),
        b'{"step": 2, "spl',
        b"7",
        b'{"split": "val"}',
        b"\xff\xfe{",
    ]
    (tmp_path / reporting.METRICS_FILE).write_bytes(b"\n".join(lines) + b"\n")
    assert reporting.read_records(tmp_path) == [good]
