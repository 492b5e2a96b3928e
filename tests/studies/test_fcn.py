"""The study of fully convolutional networks: its tables, its oracle and its runs."""

import json
import sys

import numpy as np
import pytest

from rfjax.studies import __main__ as program
from rfjax.studies import fcn, oracle, scales
from tests.training.runs import start

RUNS = {spec for table in fcn.FCN.values() for spec in table.specs}
PRINTED = {
    ("2.2", "accumulated (20, p .9)", "same rate"): 51.9,
    ("2.3", "8s staged", "mean IU"): 65.5,
    ("2.3", "pool3 alone", "mean IU"): 9.2,
    ("2.8", "reference, background alone", "mean IU"): 19.8,
    ("2.8", "shape", "mean IU"): 29.1,
}


@pytest.mark.parametrize("place", PRINTED, ids=str)
def test_the_paper_is_quoted(place):
    name, *cell = place
    assert fcn.FCN[name].cells[tuple(cell)].paper == PRINTED[place]


def test_runs_are_told_apart_by_their_names():
    assert len({spec.name for spec in RUNS}) == len(RUNS)
    assert all(set("/ '()").isdisjoint(spec.name) for spec in RUNS)


def test_networks_start_from_a_classifier_but_one():
    roots = {spec.lineage[0].name for spec in RUNS}
    others = {"classifier-resnet", "classifier-drn"}
    assert roots == {"classifier", "32s-scratch", *others}


def test_claims_are_about_cells_that_there_are():
    for table in fcn.FCN.values():
        values = {cell: np.arange(3.0) for cell in table.cells}

        def read(row, column, values=values):
            return values[row, column]

        for claim in table.claims:
            assert np.shape(claim.lower(read, read)) == np.shape(claim.higher(read, read)) == (3,)


def test_rows_of_learning_take_as_many_gradients_of_one_sequence():
    scale = scales.find("digit_scenes", "cpu", scales.FCN_SCALES)
    table = fcn.FCN["2.2"]
    runs = [scales.run_config(cell.spec, scale, seed=2) for cell in table.cells.values()]
    assert {(run.seed, run.steps, run.batch_size, run.task.normalize) for run in runs} == {
        (2, scale.config().steps, 1, "none")
    }
    assert {(run.optimizer.accumulate, run.optimizer.momentum) for run in runs} == {
        (20, 0.9),
        (1, 0.9),
        (1, 0.99),
    }


def test_labels_at_coarse_resolution():
    label = np.array([[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 2, 2], [2, 2, 2, 2]])
    np.testing.assert_array_equal(oracle.coarse(label, 1), label)
    assert oracle.coarse(label, 2)[0].tolist() == [0, 0, 1, 1]
    assert np.unique(oracle.coarse(label, 128)).tolist() == [0]
    assert oracle.mean_iu([label], 3, 1) == 1.0
    # Of 7 + 8 valid pixels 4 are right: IU 4 / 15 of class 0, and none of the others.
    assert oracle.mean_iu([label], 3, 4) == pytest.approx(4 / 15 / 3)


def test_void_that_is_predicted_is_wrong():
    label = np.array([[255, 1, 1, 1], [1, 1, 1, 1]])
    assert oracle.mean_iu([label], 2, 2) == pytest.approx(4 / 7)


def test_the_oracle_is_a_command(tmp_path, capsys, data_dir):
    arguments = ["fcn", "--table=oracle", "--scale=quick", "--seeds=2", f"--data_dir={data_dir}"]
    assert program.main([*arguments, f"--workdir={tmp_path}"]) == 0
    assert "| factor | mean IU | paper |" in capsys.readouterr().out
    lines = (tmp_path / "digit_scenes-quick" / "table_oracle.md").read_text().splitlines()
    cells = [line.split("|")[2] for line in lines if line.startswith("| ")]
    scores = [float(cell.split("±")[0]) for cell in cells[1:]]
    assert len(scores) == len(oracle.FACTORS)
    assert scores[0] > 90 and scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_a_table_is_a_command(tmp_path, data_dir):
    """Trained, evaluated behind masks, and written; on one device, since batches are of one."""
    command = [sys.executable, "-m", "rfjax.studies", "fcn", "--table=2.8", "--scale=quick"]
    command += ["--seeds=1", "--steps=6", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    process = start(command)
    told, _ = process.communicate(timeout=900)
    assert process.returncode == 0, told
    assert "[5/5] 32s-without-" in told
    found = json.loads((tmp_path / "digit_scenes-quick" / "table_2.8.json").read_text())
    rows = {cell["row"]: cell["mean"] for cell in found["cells"]}
    assert len(rows) == 6 and all(0 <= value <= 100 for value in rows.values())
