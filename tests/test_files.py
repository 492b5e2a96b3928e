"""Files that are whole or not there, one run in a directory, and errors in one line."""

import errno
import json
import multiprocessing
import os
import threading

import numpy as np
import pytest

from rfjax import _faults, _files, _lock


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    _files.write_json(path, {"sigma": np.array([1.5, np.nan])})
    assert json.loads(path.read_text()) == {"sigma": [1.5, None]}
    with pytest.raises(RuntimeError), _files.replacing(path) as file:
        file.write(b"{")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"sigma": [1.5, None]}
    assert [child.name for child in tmp_path.iterdir()] == ["result.json"]


def test_errors_of_a_write_name_the_file(tmp_path):
    with pytest.raises(OSError) as caught, _files.naming(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert _faults.reason(caught.value) == f"{tmp_path}/a.txt: No space left on device"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\n  b\n"), "a; b"),
        (KeyError(), "KeyError"),
        (ValueError("write: Read-only file system [" + "x" * 999), "Read-only file system"),
        (_faults.Fault("No space left on device is what it said"),) * 2,
        (FileNotFoundError(2, "No such file or directory", "a", None, "b"),
         "a -> b: No such file or directory"),
    ],
)  # fmt: skip
def test_reasons_are_one_line(error, text):
    assert _faults.reason(error) == str(text)


def _hold(folder, taken, release):
    with _lock.held(folder):
        taken.set()
        release.wait()


def test_a_directory_is_held_once_and_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    taken, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, taken, release))
    other.start()
    assert taken.wait(60)
    words = rf"in use by process {other.pid} on .* since 2"
    with pytest.raises(_lock.InUse, match=words), _lock.held(tmp_path):
        raise AssertionError
    other.kill()
    other.join()
    with _lock.held(tmp_path), _lock.held(tmp_path):  # the same thread may enter again
        thread_saw = []

        def enter():
            with pytest.raises(_lock.InUse), _lock.held(tmp_path):
                raise AssertionError
            thread_saw.append(True)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert thread_saw


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(number, tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_lock.fcntl, "flock", flock)
    said = []
    with _lock.held(tmp_path, say=said.append):
        pass
    assert len(said) == 1 and "start no second run there" in said[0]
