"""The tables say what the paper's do, and every run of theirs can be built."""

import pytest

from rfjax.studies import registry, report, scales, tables
from rfjax.studies.specs import Spec
from rfjax.training import config as configs

RUNS = {spec for table in tables.BLURRING.values() for spec in table.specs}

# Mean IU on Cityscapes, by table, row and column, as printed (tables 5.1 to 5.5 of the thesis).
PRINTED = {
    ("1", "+Composition", "mean IU"): 73.5,
    ("1", "DLA-34 +Composition", "mean IU"): 78.2,
    ("2", "ResNet-34", "+Blur-Resample"): 68.1,
    ("2", "ResNet-34", "+DoG Blur-Resample"): 71.4,
    ("3", "CCL", "+Blur (σ = d/2)"): 74.0,
    ("4", "+DoG (last stage)", "2× input"): 62.7,
    ("4", "+DoG, end to end", "1× input"): 71.4,
    ("5", "+Gauss. Deformation", "ResNet-34"): 74.2,
    ("5", "+Free-form Deformation", "DRN-A"): 76.6,
}


@pytest.mark.parametrize("place", PRINTED, ids=str)
def test_the_paper_is_quoted(place):
    name, *cell = place
    assert tables.BLURRING[name].cells[tuple(cell)].paper == PRINTED[place]


def test_runs_are_told_apart_by_their_names():
    assert len({spec.name for spec in RUNS}) == len(RUNS)
    assert all(set("/ '()").isdisjoint(spec.name) for spec in RUNS)


def test_parents_come_before_their_children():
    for table in tables.BLURRING.values():
        for number, spec in enumerate(table.specs):
            assert spec.parent is None or spec.parent in table.specs[:number]


def test_claims_are_about_cells_that_there_are():
    import numpy as np

    for table in tables.BLURRING.values():
        values = {cell: np.arange(3.0) for cell in table.cells}

        def read(row, column, values=values):
            return values[row, column]

        for claim in table.claims:
            assert np.shape(claim.lower(read, read)) == np.shape(claim.higher(read, read)) == (3,)


@pytest.mark.parametrize("place", scales.SCALES, ids="-".join)
def test_every_run_has_a_valid_config_at_every_scale(place):
    scale = scales.find(*place)
    for spec in RUNS:
        config = scales.run_config(spec, scale, seed=3, steps=48)
        configs.validate(config)
        assert config.seed == 3
        assert config.steps == (max(1, round(48 * scale.fine_tuning)) if spec.parent else 48)
        assert config.optimizer.learning_rate == pytest.approx(
            scale.config().optimizer.learning_rate * spec.learning_rate
        )


@pytest.mark.parametrize("name", ["1", "3", "5"])
def test_every_network_of_a_table_can_be_built(name):
    scale = scales.find("digit_scenes", "cpu")
    for spec in tables.BLURRING[name].specs:
        config = scales.run_config(spec, scale, seed=0)
        counts = report.count_parameters(config, num_classes=11)
        assert counts.total > 10_000
        assert (counts.trained == counts.total) == (spec.trainable == "all")
        plain = spec.head in ("score", "conv3", "ccl", "aspp") and spec.composed is None
        assert (counts.structure == 0) == plain


def test_a_scale_that_there_is_not():
    with pytest.raises(ValueError, match="no scale 'paper' for 'camvid'; there are digit_scenes"):
        scales.find("camvid", "paper")


def test_settings_and_share_of_a_spec_reach_its_config():
    settings = (("task.name", "classification"), ("data.name", "digit_images"), ("batch_size", 4))
    spec = Spec("drn", head="classify", settings=settings, share=0.25)
    scale = scales.find("digit_scenes", "cpu")
    config = scales.run_config(spec, scale, seed=0, steps=48)
    assert (config.steps, config.batch_size) == (12, 4)
    assert (config.task.name, config.data.name) == ("classification", "digit_images")
    assert spec.name == "drn-classify-0.25steps-name=classification-name=digit_images-batch_size=4"


@pytest.mark.parametrize("name", registry.STUDIES)
def test_every_study_has_tables_and_scales(name):
    study = registry.STUDIES[name]
    for data, scale in study.scales:
        chosen = scales.find(data, scale, study.scales)
        for spec in {spec for table in study.tables.values() for spec in table.specs}:
            config = scales.run_config(spec, chosen, seed=1, steps=40)
            if spec.weights == "wanted":
                config.model.weights = "trunk.npz"
            configs.validate(config)
