"""Wrong uses of the programs by real people: one line says what was given and what is wanted.

Here are those that are found with the data, the weights or the run in hand; `test_commands` has
those of the command line alone.
"""

import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import models
from rfjax.models import weight_files
from rfjax.training import config as configs
from rfjax.training import optimizers, state
from rfjax.training.checkpoints import Checkpoints
from tests import programs

# What all of them read, and no thread yet, as they run in forks.
BEGIN = """
import rfjax.data, rfjax.models, rfjax.nn, rfjax.tasks, rfjax.visualize
from absl import app
from ml_collections import config_flags
from rfjax.data import folder, tfds
from rfjax.training import loop, runs, windows
"""

# W is the folder of `prepare`. TRAIN stops before the network is compiled.
TRAIN = "train.py --config=configs/folder.py:resnet_tiny --workdir=W/new "
OWN = TRAIN + "--config.data.augmentation.crop=(16,16) --config.data.dir=W/"
PREDICT = "rfjax.predict --workdir=W/run --output=W/out "
EXPORT = "rfjax.export --workdir=W/run --format="
WRONG = {
    # folders of pictures
    OWN + "nothing": ("W/nothing", "want train/images and train/masks, or images/train"),
    OWN + "swapped": ("masks", "are no masks of classes", "or lie where the images should"),
    OWN + "unmasked": ("1 of 4 images in W/unmasked have no mask of their name", "PNG"),
    OWN + "sizes": ("has 24x24 pixels", "its label 20x24"),
    OWN + "outside": ("W/outside/masks/0.png has 7", "no classes; known are 0, 1"),
    OWN + "torn": ("W/torn/images/0.png is not a readable image (damaged", "replace the file"),
    OWN + "deep": ("W/deep/images/0.tif", "more than 16 bits: convert them to 8 or 16"),
    OWN + "listed": ("W/listed/classes.txt", "two classes share the name 'ground'"),
    OWN + "good --config.data.options.images=images/*.jpg": ("told both or not at all",),
    OWN + "good --config.data.options.ignore=black": ("ignore is a value", "got 'black'"),
    OWN + "good --config.data.options.holdout=1.5": ("data.options.holdout: got 1.5; want",),
    TRAIN + "--config.data.dir=W/good --config.data.augmentation.crop=(0,0) "
    "--config.data.pad=(16,16) --config.data.augmentation.scale=(1,1)": (
        "24x24 pixels; want at most pad=16x16",
    ),
    TRAIN + "--config.data.dir=W/mixed --config.data.augmentation.crop=(0,0) "
    "--config.data.augmentation.scale=(1,1)": ("has 20x30 pixels", "train with a crop, or pad"),
    # settings
    OWN + "good --config.optimizer.schedule=cosin": ("optimizer.schedule: got 'cosin'; want one",),
    OWN + "good --config.optimizer.learning_rat=1": ("no key", "learning_rat"),
    OWN + "good --config.model.dtype=float12": ("model.dtype: got 'float12'; want", "bfloat16"),
    OWN + "good --config.parallel=pmapp": ("parallel: got 'pmapp'; want one of pmap, shard_map",),
    OWN + "good --config.steps=-5": ("steps: got -5; want an integer from 1",),
    OWN + "good --config.batch_size=7": ("batch_size: got 7; want a multiple of the 8 devices",),
    OWN + "good --config.trainable=haed/*": ("'haed/*' selects no parameter", "backbone/", "head/"),
    OWN + "good --config.model.composed.patterns=(\"layer9_*\",)": ("layer9_*", "layer1_"),
    OWN + "good --config.optimizer.rates=(\"*/bais=2\",)": ("*/bais",),
    OWN + "good --config.data.name=tfds:pets": ("W/good holds no pets; want it prepared there",),
    OWN + "good --config.task.class_weights=(1,2)": ("class_weights wants 3 numbers", "(1, 2)"),
    OWN + "good --workdir=W/file/new": ("W/file/new: Not a directory",),
    OWN + "good --workdir=/proc/new": ("/proc/new: No such file",),
    # weights
    OWN + "good --config.model.weights=W/none.pth": ("model.weights: there is no W/none.pth",),
    OWN + "good --config.model.weights=W/pointer.pth": ("W/pointer.pth cannot be read", "no .npz"),
    OWN + "good --config.model.weights=W/other.npz": ("W/other.npz", "backbone/"),
    OWN + "good --config.model.weights=W/good": ("W/good",),
    # predictions, of a run
    PREDICT + "W/none.png": ("W/none.png: there is no such file",),
    PREDICT + "W/clip.mp4": ("W/clip.mp4: not a picture that can be read (of no known format)",),
    PREDICT + "W/empty.png": ("W/empty.png: not a picture that can be read (the file is empty)",),
    PREDICT + "W/classes": ("W/classes: there are no pictures (.png, .jpg",),
    PREDICT + "--step=99 W/good/images": ("99",),
    PREDICT + "--window=0 W/good/images": ("--window", "must be at least 1; got 0"),
    PREDICT + "--output=W/file W/good/images": ("--output=W/file: a file of this name is in",),
    PREDICT + "W/one.png:W/one.png": ("takes single pictures; got pairs of pictures",),
    "rfjax.predict --workdir=W/damaged --output=W/out W/one.png": ("W/damaged", "damaged"),
    "rfjax.evaluate --workdir=W/run --data.dir=W/nothing": ("W/nothing",),
    "rfjax.evaluate --workdir=W/run --split=vall": ("'vall' (choose from 'val', 'test'",),
    "rfjax.guide --workdir=W/run --click=+4,4 W/one.png --output=W/out": ("guided", "W/run"),
    "rfjax.video --workdir=W/run --schedule=sometimes W/good/images --output=W/out": (
        "sometimes", "adaptive:THETA",
    ),
    EXPORT + "stablehlo --output=W/run.hlo --size=0x4": ("as 480x640; got '0x4'",),
    EXPORT + "npz --output=W/file": ("--output=W/file is there already; want a new file",),
    "rfjax.models.convert W/pointer.pth W/out.npz": ("W/pointer.pth",),
    "rfjax.data W/outside --output=W/examples.png": ("W/outside/masks/0.png has 7",),
}  # fmt: skip


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def put_set(root, shape=(24, 24), mask_shape=None, count=4, sizes=None):
    """Pictures and masks of the classes 0, 1, 2."""
    rng = np.random.default_rng(0)
    for number in range(count):
        own = sizes[number % len(sizes)] if sizes else shape
        save(root / f"images/{number}.png", rng.integers(0, 256, (*own, 3), dtype=np.uint8))
        mask = np.arange(np.prod(mask_shape or own)).reshape(mask_shape or own) % 3
        save(root / f"masks/{number}.png", mask.astype(np.uint8))


def prepare(root):
    """What people have when they do something wrong."""
    for name in ("good", "unmasked", "outside", "torn", "deep", "listed"):
        put_set(root / name)
    put_set(root / "sizes", mask_shape=(20, 24))
    put_set(root / "mixed", sizes=[(24, 24), (20, 30)])
    put_set(root / "swapped")
    (root / "swapped/images").rename(root / "swapped/other")
    (root / "swapped/masks").rename(root / "swapped/images")
    (root / "swapped/other").rename(root / "swapped/masks")
    (root / "unmasked/masks/0.png").unlink()
    (root / "outside/classes.txt").write_text("a\nb\n")
    for path in (root / "outside/masks").iterdir():
        save(path, np.full((24, 24), 7 if path.name == "0.png" else 1, np.uint8))
    torn = root / "torn/images/0.png"
    torn.write_bytes(torn.read_bytes()[:700])
    (root / "deep/images/0.png").unlink()
    save(root / "deep/images/0.tif", np.zeros((24, 24), np.float32))
    (root / "listed/classes.txt").write_text("ground\nground\ntree\n")
    (root / "file").write_text("a file\n")
    (root / "empty.png").write_text("")
    (root / "classes").mkdir()
    (root / "clip.mp4").write_bytes(bytes(range(256)))
    (root / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    save(root / "one.png", np.zeros((1, 1, 3), np.uint8))
    put_run(root / "run")
    shutil.copytree(root / "run", root / "damaged")
    for path in (root / "damaged").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            os.truncate(path, path.stat().st_size // 2)
    other = models.create("vgg_tiny", num_classes=3, head="fcn_32s")
    shapes = jax.eval_shape(other.init, jax.random.key(0), np.zeros((1, 32, 32, 3), "f4"))
    flat = jax.tree_util.tree_flatten_with_path(shapes)[0]
    arrays = {"/".join(k.key for k in path): np.zeros(a.shape, a.dtype) for path, a in flat}
    weight_files.write(root / "other.npz", arrays, form="npz")


def put_run(workdir):
    """A trained run of a segmentation of three classes."""
    config = configs.base()
    config.model.backbone_options.width = 4
    config.data.name, config.data.dir = "folder", str(workdir.parent / "good")
    model = models.create("resnet_tiny", num_classes=3, backbone_options={"width": 4})
    variables = state.initial_variables(model, jax.random.key(0), np.zeros((1, 32, 32, 3), "f4"))
    facts = {
        "name": "folder", "num_classes": 3, "class_names": ("a", "b", "c"),
        "palette": [[0, 0, 0]] * 3, "mean": [0.5] * 3, "std": [0.2] * 3,
    }  # fmt: skip
    with Checkpoints(workdir) as checkpoints:
        made = state.create(variables, optimizers.sgd(lambda t: 0.1))
        meta = {"config": config.to_dict(), "dataset": facts}
        checkpoints.save(made.replace(step=np.int32(1)), meta=meta, score=0.5)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What every wrong use has said, and its status."""
    root = tmp_path_factory.mktemp("wrong")
    prepare(root)
    told = programs.run(WRONG, root, imports=BEGIN, errors_alone=True)
    return dict(zip(WRONG, told, strict=True))


@pytest.mark.parametrize("line", WRONG)
def test_one_line_says_what_is_wrong(outcomes, line):
    status, said = outcomes[line]
    errors = [text for text in said.splitlines() if "error:" in text]
    assert status in (1, 2) and "Traceback" not in said, said
    assert len(errors) == 1 and said.splitlines()[-1] == errors[0], said
    assert all(part in errors[0] for part in WRONG[line]), errors[0]
    assert len(errors[0]) < 700, errors[0]
