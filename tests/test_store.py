"""Damaged checkpoints are found, told in one line, and the newest sound one is taken."""

import errno
import json
import os
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rfjax import _store, predict
from rfjax.receptive_field import networks
from rfjax.training import checkpoints, config, optimizers, state
from rfjax.training.checkpoints import CheckpointError, Checkpoints
from tests.training.damage import DAMAGES, files


@pytest.fixture(scope="module")
def blank():
    params = {"head": {"kernel": jnp.arange(400.0), "covariance": jnp.array([0.5])}}
    optimizer = optimizers.sgd(optimizers.poly_schedule(0.1, steps=9), weight_decay=0.1)
    return state.create({"params": params, "batch_stats": {"bn": {"mean": jnp.ones(2)}}}, optimizer)


def at(blank, step):
    params = jax.tree.map(lambda leaf: leaf * step, blank.params)
    return blank.replace(step=np.int32(step), params=params)


def is_of(restored, blank, step):
    chex.assert_trees_all_equal(restored, at(blank, step))
    return True


@pytest.fixture(scope="module")
def saved(tmp_path_factory, blank):
    """A run with the checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved")
    with Checkpoints(workdir) as written:
        for step in (1, 2):
            written.save(at(blank, step), meta={"step": step}, score=0.1 * step)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def resumed(workdir, blank, step, capsys):
    """What is said when `workdir` is opened and stands at `step`."""
    with Checkpoints(workdir) as read:
        assert read.latest_step == step
        assert is_of(read.restore(blank), blank, step)
        assert read.meta(step) == {"step": step}
    return capsys.readouterr().err.splitlines()


def test_a_flipped_bit_in_any_file_is_found(saved, blank, tmp_path, capsys):
    """Without sums, one in optimizer/ocdbt.process_0/d/ came back as other numbers."""
    names = files(saved / "checkpoints" / "2")
    assert len(names) > 10
    for number, name in enumerate(names):
        workdir = shutil.copytree(saved, tmp_path / str(number))
        DAMAGES["flip"](workdir / "checkpoints" / "2" / name)
        (line,) = resumed(workdir, blank, 1, capsys)
        assert (
            "step 2 (" in line
            and "put aside as damaged-2; the newest sound one is that of step 1" in line
        )


@pytest.mark.parametrize("damage", ["truncate", "zero", "delete"])
@pytest.mark.parametrize("name", ["meta/metadata", "metrics/metrics", "variables/manifest.ocdbt"])
def test_other_damages_are_found_as_well(name, damage, workdir, blank, capsys):
    DAMAGES[damage](workdir / "checkpoints" / "2" / name)
    (line,) = resumed(workdir, blank, 1, capsys)
    assert f"step 2 ({name} is " in line


def test_what_was_added_is_found(workdir, blank, capsys):
    (workdir / "checkpoints" / "2" / "variables" / "more").write_text("")
    (line,) = resumed(workdir, blank, 1, capsys)
    assert "variables/more was not there when it was saved" in line


def test_the_step_of_a_damaged_checkpoint_is_saved_again(workdir, blank, capsys):
    for _ in range(2):
        DAMAGES["flip"](workdir / "checkpoints" / "2" / "meta" / "metadata")
        with Checkpoints(workdir) as written:
            written.save(at(blank, 2), meta={"step": 2})
        capsys.readouterr()
        assert resumed(workdir, blank, 2, capsys) == []
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert kept == {"1", "2", "damaged-2", "damaged-2.2"}


def test_none_is_sound(workdir):
    """Nothing is moved: the next start must not begin anew as if there had been no run."""
    for step in ("1", "2"):
        DAMAGES["truncate"](workdir / "checkpoints" / step / "optimizer" / "_METADATA")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"is sound: step 1 \(.*; step 2 \(.*") as fault:
            Checkpoints(workdir)
        assert len(str(fault.value).splitlines()) == 1
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"1", "2"}


def test_the_best_is_not_chosen_by_a_damaged_score(workdir, capsys):
    """Readers take the best sound checkpoint, and touch nothing."""
    path = workdir / "checkpoints" / "1" / "metrics" / "metrics"
    path.write_text(path.read_text().replace("0.1", "0.9"))
    before = sorted(map(str, workdir.rglob("*")))
    assert checkpoints.load(workdir)[2] == 2
    with pytest.raises(CheckpointError, match=r"step 1 .* is damaged"):
        checkpoints.load(workdir, step=1)
    assert "step 1 (metrics/metrics is not what was saved)" in capsys.readouterr().err
    assert sorted(map(str, workdir.rglob("*"))) == before


@pytest.mark.parametrize("read", [predict.load, networks.load_run])
def test_readers_say_so_in_one_line(read, workdir, capsys):
    for step in ("1", "2"):
        DAMAGES["flip"](workdir / "checkpoints" / step / "variables" / "manifest.ocdbt")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is sound"):
        read(workdir)
    assert capsys.readouterr().err == ""


def legacy(workdir, blank, steps=(1, 2)):
    """Checkpoints as orbax's own manager saves them, as runs did before there were sums."""
    options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics["mean_iu"])
    items = ("variables", "optimizer", "meta")
    with ocp.CheckpointManager(workdir / "checkpoints", options=options, item_names=items) as made:
        for step in steps:
            host = at(blank, step)
            args = ocp.args.Composite(
                variables=ocp.args.StandardSave(host.variables),
                optimizer=ocp.args.StandardSave({"step": host.step, "state": host.opt_state}),
                meta=ocp.args.JsonSave({"step": step}),
            )
            made.save(step, args=args, metrics={"mean_iu": 0.1})


def test_checkpoints_without_sums_are_read(tmp_path, blank, capsys):
    legacy(tmp_path, blank)
    assert resumed(tmp_path, blank, 2, capsys) == []
    DAMAGES["truncate"](tmp_path / "checkpoints" / "2" / "optimizer" / "manifest.ocdbt")
    (line,) = resumed(tmp_path, blank, 1, capsys)
    assert "the newest sound one is that of step 1" in line


def test_leftovers_of_two_runs_are_no_checkpoints(tmp_path, blank, capsys):
    """Two runs that shared a directory left half-written steps, at which resuming failed."""
    folder = tmp_path / "checkpoints"
    for name in ("4", "6.orbax-checkpoint-tmp/optimizer.orbax-checkpoint-tmp", "8.tmp", "2.delete"):
        (folder / name / "d").mkdir(parents=True)
    (folder / "4" / _store._COMMIT).write_text(json.dumps({"commit_timestamp_nsecs": None}))
    with Checkpoints(tmp_path) as written:
        assert written.latest_step is None
        written.save(at(blank, 4), meta={"step": 4})
    capsys.readouterr()
    assert resumed(tmp_path, blank, 4, capsys) == []
    assert {path.name for path in folder.iterdir()} == {"4", "damaged-4"}


def test_a_save_that_fails_keeps_the_others(workdir, blank, monkeypatch, capsys):
    def refuse(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    words = r"step 3 cannot .*3\.tmp/.*: No space left .*step 2"
    with pytest.raises(CheckpointError, match=words), Checkpoints(workdir) as written:
        written.save(at(blank, 3), meta={"step": 3})
    monkeypatch.undo()
    assert resumed(workdir, blank, 2, capsys) == []
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"1", "2"}


def test_a_file_system_that_reserves_nothing_is_written_to(workdir, blank, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with Checkpoints(workdir) as written:
        written.save(at(blank, 3), meta={"step": 3})
    monkeypatch.undo()
    with Checkpoints(workdir) as read:
        assert is_of(read.restore(blank), blank, 3)


def test_a_deleted_run_does_not_come_back(workdir, blank):
    words = "No such file or directory"
    with pytest.raises(CheckpointError, match=words), Checkpoints(workdir) as written:
        shutil.rmtree(workdir)
        written.save(at(blank, 3), meta={"step": 3})
    assert not workdir.exists()


def test_what_is_saved_is_what_was_given(tmp_path, blank):
    """The caller may go on with the arrays while they are written."""
    mean = np.ones(2, np.float32)
    with Checkpoints(tmp_path) as written:
        written.save(
            at(blank, 1).replace(collections={"batch_stats": {"bn": {"mean": mean}}}), meta={}
        )
        mean[...] = 7.0
    with Checkpoints(tmp_path) as read:
        assert read.variables(1)["batch_stats"]["bn"]["mean"].tolist() == [1.0, 1.0]


def test_a_damaged_config_of_weights_is_one_line(tmp_path):
    from rfjax.training import weights

    path = tmp_path / "a.npz"
    np.savez(path, kernel=np.ones((3, 3, 4, 4), np.float32))
    for damage in DAMAGES.values():
        copy = shutil.copy(path, tmp_path / "b.npz")
        damage(tmp_path / "b.npz")
        settings = config.base()
        settings.model.weights = str(copy)
        with pytest.raises(config.ConfigError, match=r"model\.weights: .*b\.npz") as fault:
            weights.load(settings, {"params": {}}, num_classes=3)
        assert len(str(fault.value).splitlines()) == 1
