"""Studies train what they lack and nothing else, in the right order, however they were stopped."""

import fcntl
import json
import pickle
import subprocess
import sys
import time
from dataclasses import replace

import chex
import pytest

from rfjax import training
from rfjax.studies import __main__ as program
from rfjax.studies import camvid, registry, runs, specs, tables
from rfjax.studies.clockwork import schedules
from rfjax.studies.guided import networks
from rfjax.training import checkpoints
from tests.training.runs import ROOT

SCORE = specs.Spec("resnet")
TUNED = replace(SCORE, head="conv3", trainable="last_stage", parent=SCORE)


def test_names_of_runs_are_names_of_folders():
    of_tables = [t for study in registry.STUDIES.values() for t in study.tables.values()]
    every = [spec for table in of_tables for spec in table.specs]
    every += [spec for each in schedules.NETWORKS.values() for spec in each.values()]
    every += networks.SPECS.values()
    every.append(replace(SCORE, trainable="backbone/conv5_*, head/*"))
    for spec in every:
        assert set("/*\\ ':").isdisjoint(spec.name), spec.name


def plan(root, scale, seeds=1, **options):
    return runs.plan((SCORE, TUNED), root=root, scale=scale, seeds=seeds, **options)


def execute(generations):
    said = []
    runs.execute(generations, say=said.append)
    return said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scale):
    """The folder of a study that ran to its end, its generations, and what it said."""
    root = tmp_path_factory.mktemp("undisturbed")
    generations = plan(root, scale)
    return root, generations, execute(generations)


def test_children_start_from_their_parents_and_nothing_is_trained_twice(undisturbed, scale):
    root, generations, said = undisturbed
    parent, child = generations[0][0], generations[1][0]
    assert [line.split(":")[0] for line in said] == [
        "[1/2] resnet-score, seed 0",
        "[2/2] resnet-conv3-last_stage, seed 0",
    ]
    assert (parent.outcome()["step"], child.outcome()["step"]) == (8, 4)
    given, _, _ = checkpoints.load(parent.workdir)
    tuned, _, _ = checkpoints.load(child.workdir)
    for tree in ("params", "batch_stats"):  # frozen bit by bit
        chex.assert_trees_all_equal(given[tree]["backbone"], tuned[tree]["backbone"])
    assert execute(plan(root, scale)) == []


def test_a_stopped_study_gives_the_table_of_an_undisturbed_one(
    undisturbed, tmp_path, tiny, monkeypatch
):
    whole, halved = undisturbed[1], plan(tmp_path, tiny)
    untouched = training.train

    def stopped(config, workdir):
        monkeypatch.setattr(training, "train", untouched)
        shorter = training.config.from_dict(config.to_dict())
        with monkeypatch.context() as patch:
            patch.setattr(training.loop.Interruption, "reached", lambda self, step: step == 3)
            untouched(shorter, workdir)

    monkeypatch.setattr(training, "train", stopped)
    with pytest.raises(training.Interrupted):
        execute(halved)
    assert not halved[0][0].done
    execute(halved)
    for left, right in zip(whole, halved, strict=True):
        assert left[0].outcome()["mean_iu"] == right[0].outcome()["mean_iu"]


def test_what_runs_start_from(tmp_path):
    scale = camvid.SCALES["camvid", "quick"]
    specs = camvid.TABLES["trunks"].specs
    with pytest.raises(runs.StudyError, match="32s starts from a trained trunk: --weights, with"):
        runs.plan(specs, root=tmp_path, scale=scale, seeds=1)
    planned = runs.plan(specs, root=tmp_path, scale=scale, seeds=2, weights=tmp_path / "given")
    found = {run.title: run.config for generation in planned for run in generation}
    starts = {title: config["model"]["weights"] for title, config in found.items()}
    assert starts["32s, seed 1"] == str(tmp_path / "given/vgg_16.npz")
    assert starts["8s, seed 1"] == str(tmp_path / "runs/16s/seed1")
    assert starts["random-32s, seed 0"] == ""
    maps = {title: config["data"]["cache"]["dir"] for title, config in found.items()}
    assert maps["8s, seed 1"] == maps["32s, seed 0"] == str(tmp_path / "maps/trained")
    assert maps["random-8s, seed 1"] == str(tmp_path / "maps/seed1")
    assert {config["model"]["anew"] for config in found.values()} == {"", "backbone/conv5_*"}


def test_a_folder_of_another_study_is_refused(undisturbed, scale):
    with pytest.raises(runs.StudyError, match=r"other settings \(old -> new\): steps: 8 -> 9"):
        plan(undisturbed[0], scale, steps=9)


def test_what_starts_from_a_diverged_run_has_diverged(tmp_path, tiny):
    generations = plan(tmp_path, tiny)
    parent, child = generations[0][0], generations[1][0]
    parent.workdir.mkdir(parents=True)
    (parent.workdir / runs.FAILURE).write_text(json.dumps({"message": "loss is NaN"}))
    assert execute(generations) == [f"[1/1] {child.title}: diverged, 0 s; about 0:00:00 left"]
    assert child.outcome() is None


def test_a_run_is_trained_by_one_study_at_a_time(tmp_path, tiny):
    generations = plan(tmp_path, tiny)
    run = generations[0][0]
    run.workdir.mkdir(parents=True)
    with (run.workdir / ".lock").open("a") as lock:  # as another process has it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(runs.StudyError, match=f"{run.workdir} is in use by another process"):
            execute(generations)


@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_torn_files_of_a_run_are_told_in_one_line(name, tmp_path, tiny):
    run = plan(tmp_path, tiny)[0][0]
    run.workdir.mkdir(parents=True)
    (run.workdir / name).write_text('{"mean_iu": 0.')
    read = run.outcome if name == "result.json" else run.check
    with pytest.raises(runs.StudyError, match=rf"{name} is damaged \(.*delete it"):
        read()


def test_a_run_without_scores_is_told(tmp_path, tiny):
    run = plan(tmp_path, tiny)[0][0]
    run.workdir.mkdir(parents=True)
    (run.workdir / runs.RESULT).write_text('{"mean_iu": null}')
    with pytest.raises(runs.StudyError, match="nothing was scored in"):
        run.outcome()


def test_an_interruption_is_passed_between_processes():
    stopped = pickle.loads(pickle.dumps(training.Interrupted(15, 7)))
    assert (stopped.signum, stopped.step) == (15, 7)


@pytest.mark.slow
def test_a_killed_study_gives_the_table_of_an_undisturbed_one(tmp_path):
    command = [sys.executable, "-m", "rfjax.studies", "blurring", "--table=2", "--seeds=1"]
    command += ["--steps=40", "--jobs=2"]
    whole, killed = (["--workdir", str(tmp_path / name)] for name in ("whole", "killed"))
    subprocess.run([*command, *whole], check=True, cwd=ROOT)
    for seconds in (8, 15, 22):  # in the middle of something
        process = subprocess.Popen([*command, *killed], cwd=ROOT)
        time.sleep(seconds)
        process.kill()
        process.wait()
        time.sleep(2)  # workers notice within a second
    subprocess.run([*command, *killed], check=True, cwd=ROOT)
    tables = [tmp_path / name / "digit_scenes-cpu" / "table_2.md" for name in ("whole", "killed")]
    assert tables[0].read_text() == tables[1].read_text()


def test_a_missing_data_set_ends_the_study(tmp_path, tiny):
    generations = plan(tmp_path, tiny, data_dir=str(tmp_path / "file" / "x"))
    (tmp_path / "file").write_text("")
    with pytest.raises(runs.StudyError, match="resnet-score, seed 0"):
        execute(generations)


def test_the_program(tmp_path, tiny, capsys, data_dir, monkeypatch):
    small = replace_cells(tables.BLURRING["2"], ("ResNet-34",), ("base", "+Blur-Resample"))
    monkeypatch.setitem(tables.BLURRING, "2", small)
    arguments = ["blurring", "--table=2", "--seeds=1", f"--data_dir={data_dir}"]
    assert program.main([*arguments, f"--workdir={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert "[2/2] resnet-composition, seed 0: mean IU" in told
    assert "| ResNet-34 | +Blur-Resample |" in told
    assert (tmp_path / "digit_scenes-cpu" / "table_2.json").exists()
    assert program.main([*arguments, f"--workdir={tmp_path}", "--data=cityscapes"]) == 1
    assert "no scale 'cpu' for 'cityscapes'" in capsys.readouterr().err


def replace_cells(table, rows, columns):
    """The part of a table, without its claims."""
    cells = {(r, c): cell for (r, c), cell in table.cells.items() if r in rows and c in columns}
    return replace(table, cells=cells, claims=())
