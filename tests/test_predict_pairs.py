"""The flow of pairs of pictures from the command line, with a network that says their colors."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from PIL import Image

from rfjax import evaluate, models, predict, visualize
from rfjax.data.flow_files import read_flow
from rfjax.training import config as configs
from rfjax.training import optimizers, state
from rfjax.training.checkpoints import Checkpoints
from tests import toys

FACTS = {"num_classes": 2, "class_names": ["a", "b"], "palette": [],
         "mean": [0.0] * 3, "std": [1.0] * 3}  # fmt: skip
SIZE = (5, 7)


class Reds(linen.Module):
    """Right as far as the first picture is red, and down as the second is, times a gain."""

    @linen.compact
    def __call__(self, first, second, train=False):
        gain = self.param("gain", linen.initializers.ones, ())
        return {"flow": gain * jnp.stack([first[..., 0], second[..., 0]], -1), "levels": ()}


class Built:
    def network(self, **options):
        return Reds()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directories of a run of flow and of one of segmentation."""
    folder = tmp_path_factory.mktemp("runs")
    with toys.registered():
        models.register("reds", Built)
        for task, network in (("flow", "reds"), ("segmentation", "resnet_tiny")):
            config = configs.base()
            config.task.name, config.model.name = task, network
            variables = {"params": {"gain": np.float32(10)}}
            made = state.create(variables, optimizers.sgd(lambda t: 0.1))
            with Checkpoints(folder / task) as checkpoints:
                meta = {"config": config.to_dict(), "dataset": FACTS}
                checkpoints.save(made.replace(step=np.int32(1)), meta=meta, score=0.5)
        yield folder


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two pictures of one size, and one of another; the folder is the current one."""
    rng = np.random.default_rng(0)
    for name, width in (("one", SIZE[1]), ("two", SIZE[1]), ("wide", 9)):
        image = rng.integers(0, 256, (SIZE[0], width, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(workdir, *arguments):
    return predict.main([*arguments, f"--workdir={workdir}", "--output=out"])


def test_a_pair_becomes_a_file_of_flow_and_its_colors(runs, pictures, capsys):
    assert run(runs / "flow", "one.png:two.png", "two.png:one.png", "one.png:two.png") == 0
    reds = [np.asarray(Image.open(f"{name}.png"))[..., 0] / 25.5 for name in ("one", "two")]
    for name, wanted in (("one", reds), ("two", reds[::-1])):
        flow = read_flow(f"out/{name}_flow.flo")
        np.testing.assert_allclose(flow, np.stack(wanted, -1), rtol=1e-5)
        colors = np.asarray(Image.open(f"out/{name}_flow.png"))
        np.testing.assert_array_equal(colors, visualize.flow_colors(flow))
    wheel = np.asarray(Image.open("out/legend.png"))
    np.testing.assert_array_equal(wheel, visualize.flow_wheel())
    _, first, second = capsys.readouterr().out.splitlines()
    lengths = np.hypot(*reds)
    said = f"motion {lengths.mean():.2f} px, at most {lengths.max():.2f} px"
    assert first == f"one.png:two.png: {said}, out/one_flow.png, out/one_flow.flo"
    assert second.startswith("two.png:one.png: ")


def test_nothing_is_overwritten(runs, pictures):
    for _ in range(2):
        assert run(runs / "flow", "one.png:two.png") == 0
    names = {path.name for path in (pictures / "out").iterdir()}
    assert names == {
        "legend.png",
        *(f"one{n}_flow.{s}" for n in ("", "_2") for s in ("flo", "png")),
    }


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("flow", ["one.png"], "'flow' takes pairs of pictures, FIRST:SECOND; got single pictures"),
        ("flow", ["."], "'flow' takes pairs of pictures, FIRST:SECOND; got single pictures"),
        ("flow", ["one.png:two.png", "one.png"], "single pictures or pairs FIRST:SECOND; got both"),
        ("flow", ["one.png:"], "want FIRST:SECOND, two pictures; got 'one.png:'"),
        ("flow", ["one.png:none.png"], "none.png: there is no such file"),
        ("flow", ["one.png:wide.png"], "wide.png has 5x9 pixels, one.png has 5x7"),
        ("flow", ["one.png:two.png", "--window=4"], "are those of a segmentation"),
        ("segmentation", ["one.png:two.png"], "takes single pictures; got pairs of pictures"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(runs, pictures, capsys, task, arguments, message):
    assert run(runs / task, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(pictures.glob("out/*_*"))


def test_colons_and_patterns_in_names(pictures):
    (pictures / "one.png").rename("one:1.png")
    (pictures / "two.png").rename("[2].png")
    found, failures = predict._all_pictures(["one:1.png", "[2].png:wide.png", "*:1.png"])
    assert found == [(Path("one:1.png"),), (Path("[2].png"), Path("wide.png"))] and not failures


def test_a_flow_has_no_label_pictures(runs, tmp_path):
    trained = predict.load(runs / "flow", pictures=2)
    with pytest.raises(evaluate.EvaluationError, match="does not give a class to every pixel"):
        evaluate._write_labels(tmp_path / "labels", trained, [])
    assert not (tmp_path / "labels").exists()


def test_the_number_of_pictures_is_told(runs):
    trained = predict.load(runs / "flow", pictures=2)
    with pytest.raises(ValueError, match="the task takes first, second; got 1 pictures"):
        trained(np.zeros((4, 4, 3), np.uint8))
