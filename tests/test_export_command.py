"""The network of a run as files, read back by training and by JAX without rfjax."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

import rfjax
from rfjax import export, models
from rfjax.models import weight_files
from rfjax.training import config as configs
from rfjax.training import optimizers, runs, state, weights
from rfjax.training.checkpoints import Checkpoints

FACTS = {
    "num_classes": 3, "class_names": ("ground", "left", "right"), "palette": [[0, 0, 0]] * 3,
    "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3],
}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 17, 22, 3), dtype=np.uint8)

# What a program without rfjax does.
RELOAD = """
import sys
import numpy as np
from jax import export
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
np.savez(sys.argv[3], *(program.call(images) for images in np.load(sys.argv[2]).values()))
assert not any(name.split(".")[0] in ("rfjax", "flax") for name in sys.modules)
"""


def make_config(weights=""):
    config = configs.base()
    config.model.head, config.model.weights = "composition", str(weights)
    config.model.backbone_options.width = 4
    return config


def drawn(seed):
    model = models.create(
        "resnet_tiny", num_classes=3, head="composition", backbone_options={"width": 4}
    )
    return state.initial_variables(model, jax.random.key(seed), np.zeros((1, 32, 32, 3), "f4"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run whose first checkpoint is better, and whose statistics are not those of the start."""
    workdir = tmp_path_factory.mktemp("run")
    rng, variables = np.random.default_rng(1), drawn(0)
    meta = {"config": make_config().to_dict(), "dataset": FACTS}
    with Checkpoints(workdir) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.1)):
            noise = lambda a: rng.uniform(-0.05, 0.05, a.shape).astype("f4")
            moved = jax.tree.map(lambda a: a + noise(a), variables)
            made = state.create(moved, optimizers.sgd(lambda t: 0.1))
            checkpoints.save(made.replace(step=np.int32(step)), meta=meta, score=score)
    return workdir


def run(workdir, form, output, *more):
    return export.main([f"--workdir={workdir}", f"--format={form}", f"--output={output}", *more])


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_training_starts_from_exported_weights_bit_for_bit(workdir, tmp_path, form, capsys):
    file = tmp_path / f"weights.{form}"
    assert run(workdir, form, file) == 0
    assert "checkpoint of step 1 " in capsys.readouterr().out  # the better one
    wanted = traverse_util.flatten_dict(runs.load(workdir).variables, sep="/")
    written, notes = weight_files.read(file)
    assert written.keys() == wanted.keys() and not notes
    loaded = weights.load(make_config(file), drawn(5), num_classes=3)
    for name, array in traverse_util.flatten_dict(loaded, sep="/").items():
        assert array.dtype == wanted[name].dtype, name
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_another_checkpoint_and_another_network(workdir, tmp_path):
    file = tmp_path / "second.npz"
    assert run(workdir, "npz", file, "--step=2") == 0
    wanted = runs.load(workdir, step=2).variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(np.load(file)["params/head/kernel"], wanted)
    config = make_config(file)
    config.model.backbone_options.width = 8
    fresh = jax.tree.map(lambda a: np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype), drawn(5))
    with pytest.raises(configs.ConfigError, match=r"second.npz: .* has shape .*this network wants"):
        weights.load(config, fresh, num_classes=3)


def test_jax_alone_runs_the_program_for_any_pictures(workdir, tmp_path):
    file, given, found = (tmp_path / name for name in ("net.stablehlo", "in.npz", "out.npz"))
    assert run(workdir, "stablehlo", file) == 0
    pictures = (IMAGES, IMAGES[:1, :16, :8])
    np.savez(given, *pictures)
    subprocess.run(
        [sys.executable, "-c", RELOAD, file, given, found], cwd=tmp_path, check=True, timeout=120
    )
    trained = runs.load(workdir)
    apply, scores = jax.jit(trained.model.apply), np.load(found)
    for images, again in zip(pictures, scores.values(), strict=True):
        wanted = apply(trained.variables, trained.task.normalization.on_device(images))
        assert again.shape == (*images.shape[:3], 3)
        np.testing.assert_allclose(again, wanted, atol=2e-5, rtol=0)
    classes, _ = trained(IMAGES[0])
    assert np.mean(scores["arr_0"][0].argmax(-1) == classes) > 0.99


def test_a_size_can_be_fixed(workdir):
    exported = export.program(runs.load(workdir), size=(17, 22))
    assert str(exported.in_avals[0]) == "uint8[n,17,22,3]"
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("form", "more", "message"),
    [
        ("onnx", (), "--format=onnx wants --size, height and width in pixels, as 480x640"),
        ("pth", (), "want one of stablehlo, npz, safetensors, onnx; got 'pth'"),
        ("npz", ("--size=4x4",), "--size is of --format=stablehlo or onnx; got --format=npz"),
        ("stablehlo", ("--size=4",), "want height and width in pixels, as 480x640; got '4'"),
        ("npz", ("--step=7",), "has no checkpoint of step 7; there are 1, 2"),
        ("npz", ("--output={folder}/taken",), "taken is there already; want a new file"),
        ("npz", ("--output={folder}/none/a.npz",), "none/a.npz: there is no "),
        ("npz", ("--workdir={folder}/none",), "none is not a directory"),
    ],
)
def test_mistakes_are_one_line(workdir, tmp_path, capsys, form, more, message):
    (tmp_path / "taken").write_text("of somebody")
    try:
        given = [argument.format(folder=tmp_path) for argument in more]
        status = run(workdir, form, tmp_path / "out", *given)
    except SystemExit as stopped:
        status = stopped.code
    (line,) = capsys.readouterr().err.splitlines()
    assert status in (1, 2) and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_another_program_runs_it_as_onnx(workdir, tmp_path):
    pytest.importorskip("jax2onnx", reason="pip install 'rfjax[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    trained = runs.load(workdir)
    wanted = np.asarray(export.program(trained).call(IMAGES[:1]))
    assert run(workdir, "onnx", tmp_path / "a.onnx", "--size=17x22") == 0
    session = runtime.InferenceSession(tmp_path / "a.onnx")
    scores = session.run(None, {session.get_inputs()[0].name: IMAGES[:1]})[0]
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    # Programs of afterwards choose by device again.
    assert "by_device" in str(jax.make_jaxpr(rfjax.gaussian_blur)(np.ones((9, 9, 1), "f4"), [0.0]))
