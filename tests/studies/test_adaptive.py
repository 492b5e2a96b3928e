"""The studies of receptive fields that adapt: tables, measures, costs and pictures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import visualize
from rfjax.studies import __main__ as program
from rfjax.studies import (
    adaptive,
    costs,
    inflation,
    lsdfn,
    measures,
    padnets,
    pictures,
    registry,
    report,
    runs,
    scales,
)
from rfjax.training import composed, loop, sigmas
from rfjax.training import config as configs
from rfjax.training.runs import Trained
from tests.training.runs import tiny_config

STUDIES = {
    "adaptive": adaptive.TABLES,
    "padnets": padnets.TABLES,
    "inflation": inflation.TABLES,
    "lsdfn": lsdfn.TABLES,
}
TABLES = [table for tables in STUDIES.values() for table in tables.values()]
RUNS = {spec for table in TABLES for spec in table.specs}
PRINTED = {
    ("padnets", "options", "{1, 2}", "mean IU"): 66.2,
    ("padnets", "layers", "block 2 + 3", "mean IU"): 66.1,
    ("padnets", "priors", "recurrent", "mean IU"): 65.3,
    ("padnets", "classification", "PAD", "64 pixels"): 93.5,
    ("lsdfn", "samples", "C' = 32", "s = 3"): 78.6,
    ("lsdfn", "stride", "C' = 16", "γ = 2, none"): 77.4,
    ("lsdfn", "residual", "C' = 32", "none, attention"): 68.7,
}


@pytest.mark.parametrize("place", PRINTED, ids=str)
def test_the_paper_is_quoted(place):
    study, name, *cell = place
    assert STUDIES[study][name].cells[tuple(cell)].paper == PRINTED[place]


def test_runs_are_told_apart_by_their_names():
    assert len({spec.name for spec in RUNS}) == len(RUNS)
    assert all(set("/ '()").isdisjoint(spec.name) for spec in RUNS)


@pytest.mark.parametrize("place", scales.ADAPTIVE_SCALES, ids="-".join)
def test_every_run_has_a_valid_config(place):
    scale = scales.find(*place, scales.ADAPTIVE_SCALES)
    for spec in RUNS:
        configs.validate(scales.run_config(spec, scale, seed=1))


def test_every_network_can_be_built():
    scale = scales.find("digit_scenes", "cpu", scales.ADAPTIVE_SCALES)
    for spec in RUNS:
        config = scales.run_config(spec, scale, seed=0)
        counts = report.count_parameters(config, num_classes=11)
        plain = spec.head in ("score", "conv3", "classify", "lsdfn", "lsdfn_concat")
        assert (counts.structure == 0) == (plain and not config.model.composed.patterns)


def test_dilations_that_are_chosen_cost_what_the_paper_says():
    """D numbers of each of 32 channels, and D biases, at both convolutions of a block."""
    scale = scales.find("digit_scenes", "cpu", scales.ADAPTIVE_SCALES)
    sizes = [
        report.count_parameters(scales.run_config(spec, scale, seed=0), num_classes=11).total
        for spec in (padnets.PLAIN, padnets.PAD)
    ]
    assert sizes[1] - sizes[0] == 2 * 3 * (32 + 1)


def test_claims_are_about_cells_that_there_are():
    for table in TABLES:
        values = {cell: np.arange(3.0) for cell in table.cells}

        def read(row, column, values=values):
            return values[row, column]

        for claim in table.claims:
            assert np.shape(claim.lower(read, read)) == np.shape(claim.higher(read, read)) == (3,)
        for place in table.cells:
            assert table.base(*place) in table.cells


def test_a_study_of_one_table_needs_no_name(capsys):
    options = program._parser().parse_args(["adaptive", "--workdir=x"])
    assert options.table == "comparison"
    assert registry.STUDIES["adaptive"].names == ("comparison",)


def test_times_are_compared_within_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = costs.interleave(functions, rounds=4)
    assert [len(times[name]) for name in "abc"] == [4, 4, 4]
    assert "".join(calls) == "aabbccbbccaaccaabbaabbccbbccaa"
    # A machine that halves its speed in the middle does no harm.
    assert costs.ratio([1.0, 1.0, 2.0], [2.0, 2.0, 4.0]) == 0.5


def test_a_step_is_made_again_and_again(data_dir, tmp_path):
    config = tiny_config(data_dir, model__head="conv3")
    step, size = costs.step_of(runs.Run(padnets.PLAIN, 0, tmp_path, config.to_dict()))
    step()
    step()
    assert size > 100_000  # bytes, of the maps that the gradient reads again
    assert not list(tmp_path.iterdir())


def test_the_comparison_names_every_mark():
    marks = {"plain": (1.0, 60.0, 58.0, 62.0), "adaptive": (1.5, 66.0, 65.0, 67.0)}
    image = np.zeros((8, 8, 3), np.uint8)
    field = np.zeros((8, 8))
    field[3:5, 3:5] = 0.25
    figure = visualize.comparison(
        marks, [image], [(4, 4)], {name: [field] for name in marks}, cost="time", score="mean IU, %"
    )
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert texts == set(marks)
    lit = figure.axes[-1].images[0].get_array()
    assert lit[4, 4].sum() > lit[0, 0].sum()


def test_maps_lie_beside_their_images():
    image, one = np.zeros((8, 8, 3), np.uint8), np.arange(64.0).reshape(8, 8)
    figure = visualize.maps_beside_images([image, image], {"a": [one, one + 1], "b": [one, one]})
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown[:3]] == ["", "a", "b"]
    assert len(shown) == 6
    assert shown[1].images[0].get_clim() == shown[4].images[0].get_clim() == (0.0, 64.0)


def test_factors_are_drawn_as_they_were_told(tmp_path):
    run = runs.Run(inflation.learned(2), 0, tmp_path, {})
    told = [
        {"step": 5, "split": "train", "head/inflated/factor": 0.9},
        {"step": 5, "split": "val"},
        {"step": 10, "split": "train", "head/inflated/factor": 0.8},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in told))
    steps, values = pictures._factors(run)
    assert steps.tolist() == [5, 10] and values.tolist() == [0.9, 0.8]
    (axes,) = visualize.number_curves({"learned": [(steps, values)] * 2}, number="factor").axes
    assert len(axes.lines) == 2 and axes.get_ylabel() == "factor"


PLACED = {"model__composed__patterns": ("backbone/*/conv2",), "model__composed__layer": "pad"}


def untrained(data_dir, **changes):
    """A network as a run would be loaded, its validation data, and its config."""
    config = tiny_config(data_dir, **{"model__head": "score"} | changes)
    dataset, held_out = loop.datasets(config)
    task = composed.create_task(config, composed.facts(config, dataset))
    model = composed.build(config, task)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return Trained(0, config, task, model, variables), held_out


def test_what_is_measured_of_dilations_that_are_chosen(data_dir):
    trained, dataset = untrained(data_dir, **PLACED)
    kernel = trained.variables["params"]["backbone"]["layer1_0"]["conv2"]["prior_input"]["kernel"]
    assert kernel.shape[-1] == 3
    found = measures.scales(trained, dataset)
    assert -1 <= found["scale_correlation"] <= 1 and 1 < found["scale_mean"] < 4
    hard = trained(dataset.source[0]["image"])[1]["backbone/layer1_0/conv2"]
    assert set(np.unique(hard)) <= {1.0, 2.0, 4.0}
    assert 0 < measures.sampling(trained, dataset)["sampling_variance"] < 0.25
    assert 0 <= measures.expected(trained, dataset)["expected_iu"] <= 1
    assert measures.factor(trained, dataset) == {}
    assert 0 < measures.field(trained, dataset)["field_sigma"] < 32


def test_networks_without_dilations_to_choose_have_no_variance(data_dir):
    trained, dataset = untrained(data_dir)
    assert measures._measured("sampling", trained, dataset) == {}
    assert measures._measured("scales", trained, dataset) == {}
    assert measures._measured("expected", trained, dataset) == {}


def test_a_factor_and_what_it_makes_of_a_dilation(data_dir):
    options = {"model__head_options__dilation": 2, "model__head_options__initial": 0.5}
    trained, dataset = untrained(data_dir, model__head="inflated_conv", **options)
    assert measures.factor(trained, dataset) == {"factor": 0.5, "reached_dilation": 4.0}
    declared = composed.declared(trained.model)
    numbers = sigmas.single_numbers(declared, trained.variables["params"])
    assert numbers == {"head/inflated/factor": 0.5}


@pytest.mark.parametrize(
    ("study", "table"), [("adaptive", "comparison"), ("inflation", "gradients")]
)
@pytest.mark.slow
def test_a_table_is_a_command(study, table, tmp_path, data_dir):
    """Trained, measured, and written with its pictures."""
    arguments = [study, f"--table={table}", "--scale=quick", "--seeds=1", "--steps=4"]
    assert program.main([*arguments, f"--data_dir={data_dir}", f"--workdir={tmp_path}"]) == 0
    root = tmp_path / "digit_scenes-quick"
    found = json.loads((root / f"table_{table}.json").read_text())
    assert all(0 <= cell["mean"] <= 100 for cell in found["cells"])
    for name in STUDIES[study][table].pictures:
        assert (root / f"table_{table}_{name}.png").exists()
    if STUDIES[study][table].costs:
        assert all(cell["step_mb"][0] > 0 for cell in found["cells"])
        assert found["cells"][0]["step_ratio"] == [1.0]
