"""Tables are filled with what the runs gave, and no claim is decided within the spread."""

import json

import numpy as np
import pytest

from rfjax.studies import report, runs
from rfjax.studies.specs import Cell, Spec, Table, below
from rfjax.training import config as configs

SCORE, COMPOSED = Spec("drn"), Spec("drn", head="composition", evaluations=2)
TABLE = Table(
    "two heads",
    {
        ("plain", "IU"): Cell(SCORE, 70.0),
        ("composed", "IU"): Cell(COMPOSED, 72.5),
        ("composed", "half"): Cell(COMPOSED, at=0.5),
    },
    lambda *_: ("plain", "IU"),
    (
        below("composition helps", ("plain", "IU"), ("composed", "IU")),
        below("it helps at half time", ("plain", "IU"), ("composed", "half")),
        below("sigma is below itself", ("composed", "IU"), ("composed", "IU"), measure="sigma"),
    ),
    {"pixels": "pixel_accuracy"},
)

TABLE_OF_ONE = Table("one", {("plain", "IU"): Cell(SCORE)}, lambda *_: ("plain", "IU"))


def test_parameters_that_patterns_train_are_counted():
    config = configs.base()
    config.trainable = "last_stage"
    wanted = report.count_parameters(config, num_classes=3)
    config.trainable = "head/*, nothing/*"
    assert report.count_parameters(config, num_classes=3) == wanted
    assert 0 < wanted.trained < wanted.total


def finished(folder, spec, seed, mean_iu, *, sigma=None, half=None):
    """A run that ended with these scores."""
    folder.mkdir(parents=True)
    config = configs.base()
    config.model.head = spec.head
    sigmas = {"head": [sigma, sigma]} if sigma else {}
    scores = {"mean_iu": mean_iu, "class_iu": [mean_iu] * 3, "pixel_accuracy": mean_iu / 2}
    result = {"step": 100, "sigmas": sigmas, **scores}
    (folder / "result.json").write_text(json.dumps(result))
    records = [{"step": 50, "split": "val", "mean_iu": half or 0.0}]
    records.append({"step": 100, "split": "val", "mean_iu": mean_iu})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return runs.Run(spec, seed, folder, config.to_dict())


@pytest.fixture
def filled(tmp_path):
    every = [
        finished(tmp_path / "a", SCORE, 0, 0.5),
        finished(tmp_path / "b", SCORE, 1, 0.52),
        finished(tmp_path / "c", COMPOSED, 0, 0.6, sigma=1.0, half=0.51),
        finished(tmp_path / "d", COMPOSED, 1, 0.56, sigma=4.0, half=0.53),
    ]
    return report.Filled("T", TABLE, every, data="digit_scenes", scale="cpu")


def test_values_of_the_cells(filled):
    np.testing.assert_allclose(filled.iu("plain", "IU"), [50.0, 52.0])
    np.testing.assert_allclose(filled.iu("composed", "half"), [51.0, 53.0])
    np.testing.assert_allclose(filled.sigma("composed", "IU"), [1.0, 4.0])
    assert filled.sigmas("composed", "IU") == {"head": [2.5, 2.5]}


def test_other_scores_stand_beside(filled):
    np.testing.assert_allclose(filled.measure("plain", "IU", "pixel_accuracy"), [25.0, 26.0])
    heading, _, plain, *_ = filled.as_markdown().split("\n\n", 2)[2].splitlines()
    column = [cell.strip() for cell in heading.split("|")].index("pixels")
    assert plain.split("|")[column].strip() == "25.5"
    assert filled.as_json()["cells"][0]["pixel_accuracy"] == [25.0, 26.0]


def test_claims_are_judged_by_the_spread(filled):
    assert [claim["verdict"] for claim in filled.claims()] == ["holds", *2 * ["not resolved"]]
    assert filled.claims()[0]["difference"] == pytest.approx(7.0)


@pytest.mark.parametrize(
    "lower, higher, wanted",
    [
        ([1.0, 2.0], [2.1, 9.0], "holds"),
        ([2.1, 9.0], [1.0, 2.0], "fails"),
        ([1.0, 3.0], [2.0, 4.0], "not resolved"),
        ([1.0, np.nan], [2.0, 4.0], "not resolved"),
        ([1.0], [2.0], "not resolved"),
    ],
)
def test_verdicts(lower, higher, wanted):
    assert report.verdict(np.array(lower), np.array(higher)) == wanted


def test_pairs_are_compared_seed_by_seed():
    lower, higher = np.array([1.0, 3.0]), np.array([2.0, 4.0])
    assert report.verdict(lower, higher, paired=True) == "holds"
    assert report.verdict(lower, higher[::-1], paired=True) == "not resolved"
    assert report.verdict(higher, lower, paired=True) == "fails"


def test_the_table_for_people(filled):
    text = filled.as_markdown()
    assert "| plain | IU | 51.0 ± 1.4 | +0.0 | 70.0 | +0.0 |" in text
    assert "| composed | IU | 58.0 ± 2.8 | +7.0 | 72.5 | +2.5 |" in text
    assert "| composition helps | holds | +7.00 |" in text
    assert "| head 2.50 |" in text


def test_the_files(filled, tmp_path):
    paths = filled.write(tmp_path / "out")
    assert [path.name for path in paths] == ["table_T.md", "table_T.json", "table_T.png"]
    found = json.loads(paths[1].read_text())
    assert found["seeds"] == 2
    assert found["cells"][1]["mean_iu"] == pytest.approx([60.0, 56.0])
    cell = found["cells"][1]
    assert cell["structure_parameters"] == 1
    assert cell["trained_parameters"] == cell["parameters"] > 10_000
    assert cell["steps"] == [1500]
    assert paths[2].stat().st_size > 5_000


def test_what_a_run_trains_after_another(tmp_path):
    tuned = Spec("drn", head="composition", trainable="last_stage", parent=SCORE)
    table = Table("tuning", {("tuned", "IU"): Cell(tuned)}, lambda *_: ("tuned", "IU"))
    every = [finished(tmp_path / "a", SCORE, 0, 0.5), finished(tmp_path / "b", tuned, 0, 0.6)]
    config = configs.from_dict(every[1].config)
    config.steps, config.trainable = 300, tuned.trainable
    every[1].config.update(config.to_dict())
    (cell,) = report.Filled("T", table, every, data="digit_scenes", scale="cpu").as_json()["cells"]
    assert cell["steps"] == [1500, 300]
    assert cell["structure_parameters"] < cell["trained_parameters"] < cell["parameters"]


def test_a_training_that_diverged(tmp_path):
    good = [finished(tmp_path / f"a{i}", SCORE, i, 0.5) for i in range(2)]
    bad = [finished(tmp_path / "b", COMPOSED, 0, 0.6), finished(tmp_path / "c", COMPOSED, 1, 0.6)]
    (tmp_path / "b" / "result.json").unlink()
    (tmp_path / "b" / "failure.json").write_text('{"message": "loss is NaN"}')
    filled = report.Filled("T", TABLE, [*good, *bad], data="digit_scenes", scale="cpu")
    assert np.isnan(filled.iu("composed", "IU")).tolist() == [True, False]
    assert "| composed | IU | 60.0 ± 0.0 (1 of 2 diverged) | +10.0 |" in filled.as_markdown()
    assert filled.claims()[0]["verdict"] == "not resolved"
    filled.write(tmp_path / "out")


def test_parameters_of_two_heads_are_counted(tmp_path):
    """A head more, of as many classes, has the parameters of the first one."""
    every = [finished(tmp_path / "a", SCORE, 0, 0.5)]
    filled = report.Filled("T", TABLE_OF_ONE, every, data="digit_scenes", scale="cpu")
    config = configs.from_dict(every[0].config)
    counts = [report.count_parameters(config, num_classes=k).total for k in (3, 4)]
    assert filled.parameters("plain", "IU").total == counts[0]
    result = tmp_path / "a" / "result.json"
    scores = json.loads(result.read_text()) | {"geometric_class_iu": [0.5] * 3}
    result.write_text(json.dumps(scores))
    of_a_class = counts[1] - counts[0]
    assert filled.parameters("plain", "IU").total == counts[0] + 3 * of_a_class
