"""The figures of the paper are drawn, and show what they are named after."""

import numpy as np
import pytest

from rfjax.studies import figures, scale_maps
from rfjax.studies.runs import StudyError


@pytest.mark.parametrize("name", [n for n in figures.FIGURES if n != "3_learning_to_blur"])
def test_every_figure_has_panels(name):
    figure = figures.FIGURES[name]()
    assert len(figure.axes) >= 3
    assert sum(bool(axes.images or axes.lines) for axes in figure.axes) >= 3


def test_special_cases_of_the_gaussian():
    identity, near, average = (
        np.asarray(axes.images[0].get_array()) for axes in figures.special_cases().axes
    )
    assert identity.max() == 1.0
    assert np.count_nonzero(identity) == 1
    assert 0.5 < near.max() < 1.0
    np.testing.assert_allclose(average, 1 / average.size, rtol=1e-3)


def test_an_optimisation_recovers_the_covariance(monkeypatch):
    crop = figures._photograph()[40:88, 40:88]
    monkeypatch.setattr(figures, "_photograph", lambda: crop)
    images, covariances = figures._recover(figures.rfjax.from_ellipse(2.0, 1.0, 0.4), (0, 128))
    assert len(images) == len(covariances) == 3
    np.testing.assert_allclose(covariances[1], covariances[2], atol=0.02)


class Seeing:
    """A predictor whose scale map is the truth, or its opposite, at stride 4."""

    def __init__(self, scenes, sign):
        self.scenes, self.sign = scenes, sign

    def __call__(self, image):
        scene = next(s for s in self.scenes if s["image"] is image)
        scales = np.concatenate([[0.0], scene["scales"]])[scene["instances"]]
        return scene["label"], {"head": self.sign * scales[::4, ::4]}


class Scenes:
    name, palette = "digit_scenes", np.zeros([11, 3], np.uint8)

    def __init__(self, source):
        self.source = source


def scenes(count=4):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        instances = np.zeros([32, 32], np.uint8)
        instances[:16], instances[16:] = 1, 2
        image = rng.integers(0, 255, [32, 32, 3], np.uint8)
        label = (instances - 1).astype(np.uint8)
        scale = rng.uniform(4, 40, 2).astype(np.float32)
        found.append({"image": image, "label": label, "instances": instances, "scales": scale})
    return found


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_correlation_of_scales(sign):
    source = scenes()
    found = scale_maps.measure(Seeing(source, sign), Scenes(source))
    assert (len(found.true), found.layer) == (8, "head")
    assert found.correlation == pytest.approx(sign)
    assert len(scale_maps.panels(Seeing(source, sign), Scenes(source)).axes) == 17


def test_scales_need_a_dynamic_layer():
    source = scenes(1)
    with pytest.raises(StudyError, match="no dynamic layer"):
        scale_maps.measure(lambda image: (image[..., 0], {}), Scenes(source))
