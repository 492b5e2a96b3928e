"""Figures: the colors of label maps exactly, the rest by what they contain."""

import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Ellipse
from PIL import Image

from rfjax import covariance, visualize
from rfjax.visualize._files import LARGEST_AREA

PALETTE = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)


def test_colors_of_labels():
    colors = visualize.colorize(np.array([[0, 1], [255, 7]]), PALETTE)
    assert colors.dtype == np.uint8
    np.testing.assert_array_equal(
        colors, [[[10, 20, 30], [200, 100, 0]], [visualize.VOID_COLOR, visualize.VOID_COLOR]]
    )


def test_overlay_mixes_picture_and_colors():
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = visualize.overlay(image, [[0, 1]], PALETTE, opacity=0.5)
    np.testing.assert_array_equal(mixed, [[[55, 60, 65], [150, 100, 50]]])
    np.testing.assert_array_equal(visualize.overlay(image, [[0, 1]], PALETTE, opacity=0.0), image)


def records():
    train = [
        {"step": s, "split": "train", "loss": 2.0 / s, "mean_iu": 0.01 * s,
         "sigmas": {"head": [0.5, 0.5 + 0.1 * s], "dog": [1.0, 1.0]}}
        for s in (1, 2, 3)
    ]  # fmt: skip
    return [*train, {"step": 3, "split": "val", "loss": 1.5, "mean_iu": 0.02}]


def test_curves_show_every_split():
    loss, iu = visualize.training_curves(records()).axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[2.0, 1.0, 2.0 / 3], [1.5]]
    np.testing.assert_allclose(iu.lines[0].get_ydata(), [1.0, 2.0, 3.0])  # per cent
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "train: 0.667",
        "val: 1.5",
    ]


def test_curves_skip_undefined_values():
    undefined = [{"step": 1, "split": "val", "loss": None, "mean_iu": None}]
    loss, _ = visualize.training_curves(undefined).axes
    assert not loss.lines


def test_sigma_curves_dash_x_where_it_differs():
    (axes,) = visualize.sigma_curves(records()).axes
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", "-"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.6, 0.7, 0.8])


TABLE = {
    "values": [0.5, 1.0, 2.0], "mean": [0.5, 0.6, 0.55], "low": [0.4, 0.5, 0.5],
    "high": [0.6, 0.7, 0.6], "optimum": 1.0, "flat_top": [0.0, 2.0],
}  # fmt: skip


def test_trajectories_are_thin_where_a_candidate_ended():
    sigmas = np.array([[[0.5], [0.6]], [[2.0], [1.5]]])
    paths = visualize.Paths(sigmas, np.array([0, 1]), np.array([False, True]))
    first, second = visualize.trajectories({1: paths, 2: paths}, {2: TABLE}).axes
    assert [line.get_linewidth() for line in first.lines] == [1.6, 0.8]
    np.testing.assert_array_equal(first.lines[1].get_ydata(), [2.0, 1.5])
    assert len(second.lines) == 3 and second.lines[0].get_linestyle() == "--"


def test_scores_mark_the_optimum_of_the_enumeration():
    ends = np.array([0.9, 1.1]), np.array([0.58, 0.61])
    (axes,) = visualize.scores_against_sigma({1: ends}, {1: TABLE}).axes
    enumerated, optimum, searched = axes.lines
    np.testing.assert_allclose(enumerated.get_ydata(), [50.0, 60.0, 55.0])
    np.testing.assert_allclose(optimum.get_xydata(), [[1.0, 60.0]])
    np.testing.assert_allclose(searched.get_xydata(), [[0.9, 58.0], [1.1, 61.0]])


def test_ellipses_have_the_axes_of_the_covariance():
    """Major axis 3 at 30 degrees from x towards y (down), minor axis 1."""
    params = covariance.from_ellipse(3.0, 1.0, np.deg2rad(30.0))
    figure = visualize.covariance_ellipses({"head": params})
    one, two = [patch for patch in figure.axes[0].patches if isinstance(patch, Ellipse)]
    np.testing.assert_allclose([one.width, one.height], [6.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose([two.width, two.height], [12.0, 4.0], rtol=1e-5)
    np.testing.assert_allclose(one.angle % 180, 30.0, rtol=1e-4)
    low, high = figure.axes[0].get_ylim()
    assert low > high  # y points down


def test_unused_panels_are_hidden():
    params = {f"layer{index}": np.zeros(1) for index in range(5)}
    figure = visualize.covariance_ellipses(params, columns=4)
    assert [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False] * 3


def test_panels_grey_void_and_name_the_classes_that_are_seen():
    truth = np.zeros((4, 6), int)
    truth[0] = 255
    figure = visualize.segmentation_panels(
        [np.zeros((4, 6, 3), np.uint8)], [truth], [np.ones((4, 6), int)],
        palette=PALETTE, class_names=("road", "sky"),
    )  # fmt: skip
    output = figure.axes[2].images[0].get_array()
    np.testing.assert_array_equal(output[0, 0], visualize.VOID_COLOR)
    np.testing.assert_array_equal(output[1, 0], PALETTE[1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["road", "sky", "void"]


def test_scale_panels_share_their_colors():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    figure = visualize.scale_panels(images, [np.full((2, 2), 1.0), np.full((2, 2), 3.0)])
    limits = {axes.images[0].get_clim() for axes in (figure.axes[1], figure.axes[3])}
    assert limits == {(1.0, 3.0)}


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_scale_map_can_be_drawn(value):
    figure = visualize.scale_panels(np.zeros((1, 8, 8, 3), np.uint8), [np.full((2, 2), value)])
    low, high = figure.axes[1].images[0].get_clim()
    assert low < value < high


def test_pictures_are_written_as_they_are_drawn(tmp_path):
    figure = visualize.legend(("road", "sky"), PALETTE)
    visualize.save(figure, tmp_path / "new" / "legend.png")
    saved = np.asarray(Image.open(tmp_path / "new" / "legend.png").convert("RGB"))
    np.testing.assert_array_equal(saved, visualize.to_rgb(figure))
    assert (saved == PALETTE[1]).all(-1).any()


def test_nothing_global_is_touched(tmp_path):
    """Pyplot is neither imported nor configured."""
    code = (
        "import json, sys; from rfjax import visualize; import matplotlib as m;"
        "before = dict(m.rcParams);"
        f"visualize.save(visualize.training_curves([]), {str(tmp_path / 'a.png')!r});"
        "print(json.dumps(['matplotlib.pyplot' in sys.modules, before == dict(m.rcParams)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [False, True]
    assert matplotlib.get_backend().lower() == "agg"


@pytest.mark.parametrize("sigma", [1e18, 1e-18, np.inf, np.nan, 3.0])
def test_covariances_of_any_size_are_drawn(sigma):
    """One of 1e18 pixels used to want 6.5 EiB for the lines between the pixels."""
    params = np.log(np.array([[sigma], [2.0]]))
    image = visualize.to_rgb(visualize.covariance_ellipses({"head": params, "other": params[1]}))
    assert image.std() > 0
    rows = {"a": ([np.zeros((4, 4, 3))], params[:1])}
    visualize.to_rgb(visualize.blur_panels(rows, titles=["0"]))


def test_undefined_numbers_are_drawn_as_gaps():
    records = [{"step": 1, "split": "train", "loss": None, "sigmas": {"head": [None, 1.0]}}]
    visualize.to_rgb(visualize.training_curves(records))
    visualize.to_rgb(visualize.sigma_curves(records))
    image = np.zeros((4, 5, 3), np.uint8)
    for value in (np.nan, np.inf):
        visualize.to_rgb(visualize.scale_panels([image], [np.full((2, 2), value)]))


def test_pictures_are_bounded():
    strip = np.zeros((4000, 2, 3), np.uint8)
    figure = visualize.scale_panels([strip], [np.ones((40, 2))])
    assert visualize.to_rgb(figure).shape[0] < 4000
    figure.set_size_inches(200, 200)
    shape = visualize.to_rgb(figure).shape
    assert shape[0] * shape[1] <= LARGEST_AREA
