"""FCN-8s on networks by their names: trained, evaluated, and predicting at any size."""

import cv2
import numpy as np
import pytest

from rfjax import evaluate, predict
from rfjax.training import loop
from tests.training.runs import tiny_config

NETWORKS = [
    "vgg_tiny",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet_18", "drn_d_22")),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_fcn_8s_by_name(name, data_dir, tmp_path):
    config = tiny_config(
        data_dir,
        model__name=name,
        model__head="fcn_8s",
        model__backbone_options__width=None,
        steps=2,
        eval_every=2,
    )
    run, labels, out = tmp_path / "run", tmp_path / "labels", tmp_path / "out"
    loop.train(config, run)
    assert evaluate.main([f"--workdir={run}", f"--labels={labels}"]) == 0
    written = [predict.Image.open(path) for path in sorted(labels.glob("val_*.png"))]
    assert len(written) == config.data.options.val_scenes
    assert all((image.mode, image.size) == ("P", (32, 32)) for image in written)
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert predict.main([str(tmp_path / "a.png"), f"--workdir={run}", f"--output={out}"]) == 0
    classes = predict.Image.open(out / "a_classes.png")
    assert (classes.mode, classes.size) == ("P", (47, 33))
    assert classes.getpalette()[:33] == list(np.ravel(written[0].getpalette())[:33])
