"""Trials of the program against disks, kills and each other; minutes, so they run with -m slow.

Each asserts the same: nothing that was saved is lost, a run that failed says so in at most five
lines and soon, and the same command, started again, ends where an undisturbed run ends, bit by bit.
"""

import random
import resource
import shutil
import signal
import subprocess
import time

import pytest

from rfjax.training.checkpoints import Checkpoints
from tests.training.damage import DAMAGES, files
from tests.training.runs import arrays, assert_identical, command, start

pytestmark = pytest.mark.slow
PATIENCE = 240  # seconds; a start takes ten of them on a loaded machine
STEPS = 40


def flags(steps=STEPS):
    return (
        f"--config.steps={steps}",
        "--config.eval_every=20",
        "--config.checkpoint_every=5",
        "--config.log_every=10",
    )


def finish(process):
    """The status and the lines of a process, which must end."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it hangs: {process.communicate()[0]}") from None
    return process.returncode, output.splitlines()


def complaints(lines):
    """The lines that are no progress."""
    progress = ("step ", "training ", "resuming ", "mean IU ", "preparing ")
    return [line for line in lines if not line.startswith(progress)]


def completes(arguments, workdir, undisturbed, **options):
    """Starts the run again, which must end as the undisturbed one; returns what it complains of."""
    status, lines = finish(start(arguments, **options))
    assert status == 0, lines
    assert_identical(arrays(workdir), arrays(undisturbed))
    return complaints(lines)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("undisturbed")
    status, lines = finish(start(command(workdir, data_dir, *flags())))
    assert status == 0 and complaints(lines) == []
    return workdir


@pytest.fixture(scope="module")
def half(tmp_path_factory, data_dir):
    """A run that was stopped half way."""
    workdir = tmp_path_factory.mktemp("half")
    process = start(command(workdir, data_dir, *flags()))
    for line in process.stdout:
        if line.startswith("step 20/"):
            process.send_signal(signal.SIGTERM)
            break
    assert finish(process)[0] == 128 + signal.SIGTERM
    return workdir


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_checkpoint(damage, half, tmp_path, capsys):
    """Read in this process: a start of the program for each file would take an hour."""
    newest, before = sorted(map(int, names_of_steps(half)), reverse=True)[:2]
    older = shutil.copytree(half, tmp_path / "older")
    shutil.rmtree(older / "checkpoints" / str(newest))
    states = {newest: arrays(half), before: arrays(older)}
    harmless = 0
    for name in files(half / "checkpoints" / str(newest)):
        workdir = shutil.copytree(half, tmp_path / "run")
        DAMAGES[damage](workdir / "checkpoints" / str(newest) / name)
        with Checkpoints(workdir) as opened:
            step = opened.latest_step
        harmless += step == newest
        said = capsys.readouterr().err.splitlines()
        assert len(said) == (step != newest) and all("damaged" in line for line in said)
        assert_identical(arrays(workdir), states[step])
        shutil.rmtree(workdir)
    # Without its sums a checkpoint is as good as those of the time before there were any.
    assert harmless == (damage == "delete")


def names_of_steps(workdir):
    return [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_of_the_program(damage, half, undisturbed, data_dir, tmp_path):
    workdir = shutil.copytree(half, tmp_path / "run")
    newest = workdir / "checkpoints" / max(names_of_steps(workdir), key=int)
    victim = random.Random(damage).choice(files(newest / "optimizer"))
    DAMAGES[damage](newest / "optimizer" / victim)
    said = completes(command(workdir, data_dir, *flags()), workdir, undisturbed)
    assert len(said) == 1 and "damaged checkpoints in" in said[0]


def test_twenty_kills(undisturbed, data_dir, tmp_path):
    arguments = command(tmp_path, data_dir, *flags())
    moments = random.Random(0)
    for _ in range(20):
        process = start(arguments)
        time.sleep(moments.uniform(1.0, 12.0))
        process.kill()
        assert len(complaints(process.communicate()[0].splitlines())) <= 1
    assert completes(arguments, tmp_path, undisturbed) == []


@pytest.mark.parametrize(
    ("moment", "delay"), [("training ", 0.0), ("step 20/", 0.0), ("step 20/", 0.2), ("step 30/", 0)]
)
def test_signals_while_it_compiles_evaluates_and_saves(
    moment, delay, undisturbed, data_dir, tmp_path
):
    arguments = command(tmp_path, data_dir, *flags())
    process = start(arguments)
    for line in process.stdout:
        if line.startswith(moment):
            break
    time.sleep(delay)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    status, lines = finish(process)
    assert status in (128 + signal.SIGTERM, 0) and len(complaints(lines)) <= 5, lines
    completes(arguments, tmp_path, undisturbed)


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a disk of so many KB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def mount(*options):
        made = subprocess.run(["mount", *options, mounted], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
        return mounted

    yield mount
    subprocess.run(["umount", mounted], capture_output=True)


@pytest.mark.parametrize("size", [20, 60, 150, 400, 700])
def test_a_full_disk(size, disk, undisturbed, data_dir):
    workdir = disk("-t", "tmpfs", "-o", f"size={size}k", "tmpfs") / "run"
    arguments = command(workdir, data_dir, *flags())
    status, lines = finish(start(arguments))
    said = complaints(lines)
    assert status == 1 and len(said) <= 3, lines
    assert str(workdir) in said[-1] and "No space left on device" in said[-1]
    disk("-o", "remount,size=100m")
    assert completes(arguments, workdir, undisturbed) == []


def test_a_disk_that_becomes_read_only(disk, half, undisturbed, data_dir):
    workdir = disk("-t", "tmpfs", "-o", "size=100m", "tmpfs") / "run"
    shutil.copytree(half, workdir)
    disk("-o", "remount,ro")
    arguments = command(workdir, data_dir, *flags())
    status, lines = finish(start(arguments))
    assert (status, len(lines)) == (1, 1) and f"{workdir}/.lock: Read-only file system" in lines[0]
    disk("-o", "remount,rw")
    assert completes(arguments, workdir, undisturbed) == []


@pytest.mark.parametrize("limit", [1_000, 20_000, 100_000])
def test_a_limit_of_the_size_of_files(limit, undisturbed, data_dir, tmp_path):
    arguments = command(tmp_path, data_dir, *flags())
    limited = ["prlimit", f"--fsize={limit}", *arguments]
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not installed")
    status, lines = finish(start(limited))
    said = complaints(lines)
    assert status == 1 and len(said) <= 3 and "File too large" in said[-1], lines
    assert str(tmp_path) in said[-1]
    assert completes(arguments, tmp_path, undisturbed) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("delay", [0.0, 1.5, 8.0])
def test_two_runs_at_once(delay, undisturbed, data_dir, tmp_path):
    arguments = command(tmp_path, data_dir, *flags())
    first = start(arguments)
    time.sleep(delay)
    outcomes = [finish(start(arguments)), finish(first)]
    refused = [lines for status, lines in outcomes if status == 1]
    assert len(refused) <= 1  # the second may have come when the first had ended
    for lines in refused:
        assert len(lines) == 1 and "is in use by process" in lines[0]
    assert completes(arguments, tmp_path, undisturbed) == []
