"""The program: digit scenes from a config to a report, and going on where it stands."""

import json
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from rfjax import models, search
from rfjax.models import heads
from rfjax.receptive_field import networks
from rfjax.receptive_field.layers import composed_reach
from rfjax.studies.search import adapter, report, study
from rfjax.training import ConfigError, Interrupted, composed
from tests.training.runs import ROOT, SETTINGS, set_key

LINES: list[str] = []


def tiny(data_dir):
    """A study of seconds."""
    config = study.base()
    for key, value in (SETTINGS | {"data.dir": str(data_dir), "steps": 4}).items():
        set_key(config.training, key, value)
    config.population.seed = (0, 1)
    config.enumeration.sigma = (0.5, 2.0)
    config.checkpoint_every = 2
    return config


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A study that was stopped once, and its directory."""
    workdir = tmp_path_factory.mktemp("study")
    stop = lambda step: 15 if step == 3 else None
    with pytest.raises(Interrupted):
        study.run(tiny(data_dir), workdir, say=LINES.append, stop=stop)
    assert not (workdir / "result.json").exists()
    return study.run(tiny(data_dir), workdir, say=LINES.append), workdir


def test_a_study_writes_its_report(finished):
    summary, workdir = finished
    assert json.loads((workdir / "result.json").read_text()) == json.loads(json.dumps(summary))
    text = (workdir / "report.md").read_text()
    assert "## Against enumeration" in text and f"| search | 8 | {8 * 32 * 32} |" in text
    assert {p.name for p in (workdir / "figures").iterdir()} == {"trajectories.png", "scores.png"}
    assert any(line.startswith("x1 enumeration: step 4/4, sigma 0.50-2.00") for line in LINES)
    part = summary["enlargements"]["1"]
    assert part["comparison"]["compute_ratio_steps"] == 0.5
    assert part["search"]["candidates"][0]["receptive_field"][0] > 31
    assert set(part["search"]["candidates"][0]["sigmas"]) == {"head"}


def test_fixed_and_searched_candidates_share_their_start(finished):
    _, workdir = finished
    searched = search.load(workdir / "x1" / "search.npz")
    enumerated = search.load(workdir / "x1" / "enumeration.npz")
    np.testing.assert_array_equal(searched.losses[:, 0], enumerated.losses[:2, 0])
    assert np.all(searched.losses[:, 3] != enumerated.losses[:2, 3])


def test_another_config_is_refused(finished, data_dir):
    config = tiny(data_dir)
    config.population.sigma = (0.7,)
    with pytest.raises(ConfigError, match=r"population.sigma: \(0.5,\) -> \(0.7,\)"):
        study.run(config, finished[1])


def test_a_study_of_a_version_with_fewer_keys_goes_on(tmp_path):
    config = study.base()
    values = config.to_dict()
    del values["halving"], values["training"]["parallel"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    study.check_same(config, tmp_path)
    config.halving.rungs = (3,)
    with pytest.raises(ConfigError, match=r"halving.rungs: \(\) -> \(3,\)"):
        study.check_same(config, tmp_path)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("mapping", "pmap", "mapping: got .*want one of auto"),
        ("population.sigma", (), "population.sigma: got .*want a tuple"),
        ("enumeration.sigma", (-1.0,), "enumeration.sigma: got .*above 0"),
        ("population.family", ("round",), "population.family: got .*each one of own"),
        ("chunk", -1, "chunk: got -1"),
        ("training.steps", 0, "steps: got 0"),
        ("training.trainable", "structure", "trains all parameters"),
        ("training.model.head", "score", "has no covariance to search; want composition or dog"),
        ("enlargements", (1.5,), "enlargements: got .*an integer from 1"),
        ("enlargements", (0,), "enlargements: got .*an integer from 1"),
        ("population.sigma", ((1.0, 2.0),), "population.sigma: got .*above 0"),
        ("population.seed", (-1,), "population.seed: got .*an integer from 0"),
        ("population.learning_rate", ("x",), "population.learning_rate: got .*above 0"),
        ("halving.rungs", (4,), "rungs must come before the last of 4 steps"),
    ],
)
def test_configs_are_checked(key, value, message, data_dir, tmp_path):
    config = tiny(data_dir)
    set_key(config, key, value)
    with pytest.raises(ConfigError, match=message):
        study.run(config, tmp_path)


def test_batches_can_be_asked_for_again():
    made = []

    def source():
        made.append(0)
        return iter({"image": step, "label": -step} for step in range(10))

    batches = adapter._Replayed(source)
    asked = (0, 1, 4, 2)
    assert [batches(step)["image"] for step in asked] == list(asked) and len(made) == 2


def result(sigmas, scores, values=None, **changes):
    """Candidates of these final sigmas, three seeds of each."""
    count = len(sigmas)
    covariances = np.zeros((count, 3, 1, 3), np.float32)
    covariances[..., [0, 2]] = np.square(sigmas)[:, None, None, None]
    arrays = dict(
        population=search.population(seed=np.arange(count) % 3),
        layers=("head",),
        losses=np.ones((count, 2), np.float32),
        covariances=covariances,
        scores=np.asarray(scores, np.float32)[:, None],
        score_steps=np.array([2]),
        diverged_at=np.full(count, -1),
        dropped_at=np.full(count, -1),
        gradient_steps=np.full(count, 2),
        seconds=np.ones(count),
        compile_seconds=0.0,
        values=values,
    )
    return search.Result(**arrays | {k: np.asarray(v) for k, v in changes.items()})


def test_the_best_was_trained_to_the_end():
    scores = [0.5, 0.6, 0.4, 0.9, 0.8, 0.3]  # seeds 0, 1, 2, 0, 1, 2
    made = result([1.0] * 6, scores, dropped_at=[-1, -1, 1, 1, 1, 1])
    assert made.best == 1 and report.chosen(made).tolist() == [0, 1, 2]
    made = result([1.0] * 6, scores, diverged_at=[-1, 1, 1, 1, -1, 1])
    assert made.best == 4 and report.chosen(made).tolist() == [0, 4]  # none of seed 2
    lost = result([1.0] * 3, [np.nan] * 3, diverged_at=[1, 1, 1])
    with pytest.raises(ValueError, match="3 of 3 diverged"):
        assert lost.best


def test_a_report_of_dropped_and_diverged_candidates(tmp_path):
    fields = np.full((3, 3, 2), np.nan)
    fields[:, :2] = 35.0
    searched = result([1.0] * 3, [0.5] * 3, dropped_at=[1, 1, -1], receptive_fields=fields)
    lost = result([1.0] * 3, [0.5] * 3, np.array([1.0] * 3), diverged_at=[1, 1, 1])
    found = {1: {"search": searched, "enumeration": lost}, 2: {"search": lost}}
    summary = report.summarize(found, config={}, areas={1: 10, 2: 30})
    report.write(summary, found, tmp_path)
    strict = {"parse_constant": lambda name: pytest.fail(f"{name} in result.json")}
    read = json.loads((tmp_path / "result.json").read_text(), **strict)
    one, two = (read["enlargements"][factor] for factor in "12")
    assert [row["receptive_field"] for row in one["search"]["candidates"]] == [[35.0, 35.0]] * 3
    assert one["enumeration"]["optimum"] is None and one["enumeration"]["mean"] == [None]
    assert not one["comparison"]["sigma_follows"] and two["search"]["best"] is None
    assert read["compute"]["search"]["pixel_steps"] == 6 * 10 + 6 * 30
    assert "| 1 | 1.00 (1.00-1.00) | - | - | 50.0 % | - |" in (tmp_path / "report.md").read_text()


def test_a_flat_top_is_open_towards_no_blur():
    values = np.repeat([0.25, 0.5, 1.0], 3)
    scores = [0.58, 0.58, 0.58, 0.56, 0.6, 0.64, 0.1, 0.1, 0.1]
    table = report.grid(result(values, scores, values))
    assert table["optimum"] == 0.5 and table["flat_top"] == [0.0, 0.5]
    smaller = report.compare(result([0.05] * 3, [0.6] * 3), result(values, scores, values))
    assert smaller["sigma_follows"]
    scores[:3] = [0.5, 0.5, 0.5]
    assert report.grid(result(values, scores, values))["flat_top"] == [0.5, 0.5]


@pytest.mark.parametrize("factor, crop, area", [(3, (0, 0), 96 * 96), (2, (24, 16), 24 * 16)])
def test_the_area_of_training_images(factor, crop, area, data_dir):
    config = tiny(data_dir)
    config.training.data.augmentation.crop = crop
    assert study._area(config, lambda: study._task(config, factor)) == area


@pytest.mark.parametrize(
    "options",
    [{}, {"kernel_size": 1}, {"dilation": 2, "mode": "absolute"}, {"resample": False, "rate": 3.0}],
)
def test_receptive_fields_are_those_of_the_layers(options):
    for sigma in (0.3, 2.0):
        wanted = networks.of_head("composition", options | {"sigma": sigma}).size
        reach = composed_reach(np.array([sigma, sigma]), **options)
        assert (1 + 2 * reach).tolist() == list(wanted)


@pytest.mark.parametrize("head, size", [("composition", 115 + 2 * 2 * 3), ("dog", 115 + 2 * 2 * 7)])
def test_receptive_fields_of_any_network(head, size):
    """A dla_tiny sees 115 pixels at stride 2; the widest Gaussian counts."""
    config = study.base().training
    config.model.name, config.model.head = "dla_tiny", head
    head_layer = heads.create_head(head, num_classes=3)
    sizes = adapter._receptive_field(config, head_layer)
    sigmas = np.array([[0.5, 0.5], [2.0, 2.0]])[: 2 if head == "dog" else 1]
    assert sizes(sigmas).tolist() == [size, size]
    config.model.composed.patterns = ("backbone/*",)
    assert adapter._receptive_field(config, head_layer) is None


def test_several_gaussians_start_from_different_sigmas():
    options = {"structure": "multiple", "sigma": 0.5}
    model = models.create("resnet_tiny", num_classes=2, head="composition", head_options=options)
    candidate = search.population(sigma=0.7)[0]
    inputs = (jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32),)
    start = partial(adapter._init, model, composed.declared(model), inputs)
    params, _ = jax.jit(start)(jax.random.key(0), candidate)
    sigmas = np.exp(params["head"]["covariance_components"])[:, 0]
    np.testing.assert_allclose(sigmas, [0.7, 1.4, 2.8], rtol=1e-5)
    assert np.all(params["head"]["covariance_mixture"] == 0)


@pytest.mark.parametrize(
    "sigmas, scores, follows, fine",
    [
        ([2.1, 2.2, 2.3], [0.6, 0.6, 0.6], True, True),  # within 15 % of 2
        ([3.9, 3.9, 3.9], [0.57, 0.57, 0.57], True, True),  # within the flat top, 2 to 4
        ([1.2, 1.2, 1.2], [0.5, 0.5, 0.5], False, False),
        ([6.0, 6.0, 6.0], [0.7, 0.7, 0.7], False, True),
    ],
)
def test_verdicts(sigmas, scores, follows, fine):
    values = np.repeat([1.0, 2.0, 4.0, 8.0], 3)
    grid = [0.4, 0.4, 0.4, 0.56, 0.6, 0.64, 0.55, 0.55, 0.55, 0.1, 0.1, 0.1]
    verdict = report.compare(result(sigmas, scores), result(values, grid, values))
    assert verdict["optimum"] == 2.0 and verdict["flat_top"] == [2.0, 4.0]
    assert verdict["sigma_follows"] == follows and verdict["score_within_spread"] == fine
    assert verdict["compute_ratio_steps"] == 0.25 and not verdict["within_budget"]


def test_a_wrong_flag_ends_the_program_with_a_message(tmp_path):
    flags = ["--config=configs/search.py", f"--workdir={tmp_path}", "--config.sigmas=3"]
    command = [sys.executable, "-m", "rfjax.search", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "rfjax.search: error: the config has no key 'sigmas'\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("rule", "adamw"), ("schedule", "cosine"), ("average", 0.9), ("accumulate", 2)],
)
def test_a_search_has_one_rule_and_schedule(key, value):
    config = study.base().training
    config.optimizer[key] = value
    with pytest.raises(ConfigError, match=rf"optimizer\.{key} of a search is .*; got {value!r}"):
        adapter.segmentation(config)
