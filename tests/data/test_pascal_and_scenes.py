"""VOC with SBD, PASCAL-Context, NYUDv2 and SIFT Flow, from tiny sets in their formats."""

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

import rfjax.data
from rfjax.data import depth
from rfjax.data.dataset import VOID
from rfjax.data.files import bits_palette
from rfjax.data.normalization import SCHEMES, Normalization

SIZE = (6, 10)


def labels(seed, values):
    return np.random.default_rng(seed).choice(values, SIZE)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def picture(path, level=100):
    write(path, np.full((*SIZE, 3), level, np.uint8))


def names(path, *found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in found))


def mat(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, arrays)


def palette(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label.astype(np.uint8), "P")
    image.putpalette(bits_palette(256).ravel().tolist())
    image.save(path)


VALUES = [0, 1, 20, VOID]


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOC2012"
    for seed, name in enumerate("abc"):
        picture(root / "JPEGImages" / f"{name}.jpg")
        palette(root / "SegmentationClass" / f"{name}.png", labels(seed, VALUES))
    names(root / "ImageSets/Segmentation/train.txt", "a")
    names(root / "ImageSets/Segmentation/val.txt", "b", "c")
    return tmp_path


def add_sbd(root):
    """SBD trains on b of VOC's validation images, and on one of its own."""
    for seed, name in enumerate("bx", start=5):
        picture(root / "sbd/img" / f"{name}.jpg")
        mat(root / "sbd/cls" / f"{name}.mat", GTcls={"Segmentation": labels(seed, [0, 3, 20])})
    names(root / "sbd/train.txt", "b", "x")
    names(root / "sbd/val.txt", "c")


def load(name, root, split="train", **options):
    dataset = rfjax.data.load(name, split, data_dir=str(root), **options)
    rfjax.data.check(dataset)
    return dataset


def ids(dataset):
    return [dataset.source[index]["id"] for index in range(len(dataset))]


def test_voc_reads_indices_of_palettes(voc):
    dataset = load("voc", voc)
    assert (ids(dataset), dataset.num_classes) == (["a"], 21)
    np.testing.assert_array_equal(dataset.source[0]["label"], labels(0, VALUES))
    assert dataset.source.shape(0) == SIZE
    np.testing.assert_array_equal(
        dataset.palette[[1, 15, 20]], [[128, 0, 0], [192, 128, 128], [0, 64, 128]]
    )


def test_sbd_trains_and_validation_leaves_it_out(voc):
    add_sbd(voc)
    dataset = load("voc", voc)
    assert ids(dataset) == ["b", "x"]
    np.testing.assert_array_equal(dataset.source[1]["label"], labels(6, [0, 3, 20]))
    assert ids(load("voc", voc, "val")) == ["c"]
    assert ids(load("voc", voc, sbd=False)) == ["a"]
    assert ids(load("voc", voc, "val", sbd=False)) == ["b", "c"]


def test_voc_errors_say_what_is_missing(voc):
    with pytest.raises(FileNotFoundError, match=r"test\.txt, the list of the names"):
        load("voc", voc, "test")
    (voc / "VOC2012/JPEGImages/c.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files are missing: .*c\.jpg$"):
        load("voc", voc, "val")
    palette(voc / "VOC2012/SegmentationClass/a.png", labels(0, [0, 21]))
    with pytest.raises(ValueError, match=r"a\.png has label values \[21\]; want 0 to 20, or 255"):
        load("voc", voc)
    add_sbd(voc)
    mat(voc / "sbd/cls/x.mat", other=1)
    with pytest.raises(ValueError, match=r"x\.mat: no array GTcls\.Segmentation \[H, W\]"):
        load("voc", voc)


def test_context_finds_its_classes_by_name(tmp_path):
    picture(tmp_path / "VOC2010/JPEGImages/a.jpg")
    mat(tmp_path / "trainval/a.mat", LabelMap=labels(0, [1, 2, 3, 5]))
    lines = ["1: sky", "2: sofa", "3: diningtable", "5: grass"]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    (tmp_path / "59_labels.txt").write_text("1: table\n2: sky\n")
    names(tmp_path / "train.txt", "a")
    dataset = load("pascal_context", tmp_path)
    assert dataset.class_names == ("background", "table", "sky")
    wanted = np.select([labels(0, [1, 2, 3, 5]) == 3, labels(0, [1, 2, 3, 5]) == 1], [1, 2])
    np.testing.assert_array_equal(dataset.source[0]["label"], wanted)
    (tmp_path / "59_labels.txt").write_text("1: moon\n")
    with pytest.raises(ValueError, match=r"moon is none of labels\.txt"):
        load("pascal_context", tmp_path)


@pytest.mark.parametrize(("kind", "values"), [("semantic", [0, 1, 3]), ("geometric", [-1, 1, 2])])
def test_sift_flow_has_two_kinds_of_labels(tmp_path, kind, values):
    folder = "spatial_envelope_256x256_static_8outdoorcategories"
    picture(tmp_path / "Images" / folder / "a.jpg")
    shown = {"semantic": ["sea", "sky", "tree"], "geometric": ["flat", "high"]}
    for part, own in (("SemanticLabels", "semantic"), ("GeoLabels", "geometric")):
        cells = np.array(shown[own], object)
        mat(tmp_path / part / folder / "a.mat", S=labels(3, values), names=cells)
    names(tmp_path / "trainval.txt", "a")
    dataset = load("sift_flow", tmp_path, labels=kind)
    assert dataset.class_names == tuple(shown[kind])
    label = labels(3, values)
    np.testing.assert_array_equal(dataset.source[0]["label"], np.where(label < 1, VOID, label - 1))


def test_sift_flow_gives_both_labels_at_once(tmp_path):
    folder = "spatial_envelope_256x256_static_8outdoorcategories"
    picture(tmp_path / "Images" / folder / "a.jpg")
    for seed, (part, count) in enumerate((("SemanticLabels", 3), ("GeoLabels", 2))):
        classes = np.array([f"class {number}" for number in range(count)], object)
        values = labels(seed, range(count + 1))
        mat(tmp_path / part / folder / "a.mat", S=values, names=classes)
    names(tmp_path / "trainval.txt", "a")
    dataset = load("sift_flow", tmp_path, labels="both")
    assert dataset.facts["label_sets"] == {"semantic": 3, "geometric": 2}
    example = dataset.source[0]
    for seed, (key, count) in enumerate((("label", 3), ("label/geometric", 2))):
        expected = labels(seed, range(count + 1))
        np.testing.assert_array_equal(example[key], np.where(expected < 1, VOID, expected - 1))


@pytest.fixture
def nyud(tmp_path):
    picture(tmp_path / "data/images/img_5001.png", 70)
    mat(tmp_path / "segmentation/img_5001.mat", segmentation=labels(0, [0, 1, 40]))
    distance = np.full(SIZE, 2000, np.uint16)
    write(tmp_path / "data/depth/img_5001.png", distance)
    names(tmp_path / "train.txt", "5001")
    return tmp_path


def test_nyud_is_colors_or_hha(nyud):
    example = load("nyud", nyud).source[0]
    assert (example["image"] == 70).all()
    label = labels(0, [0, 1, 40])
    np.testing.assert_array_equal(example["label"], np.where(label == 0, VOID, label - 1))
    computed = load("nyud", nyud, modality="hha").source[0]["image"]
    np.testing.assert_array_equal(computed[..., 0], 155)  # 31000 / 200 cm
    picture(nyud / "data/hha/img_5001.png", 9)
    assert (load("nyud", nyud, modality="hha").source[0]["image"] == 9).all()
    with pytest.raises(ValueError, match=r"modality is one of rgb, hha, depth, .*; got 'xyz'"):
        load("nyud", nyud, modality="xyz")


@pytest.mark.parametrize(("modality", "channels"), [("depth", 1), ("rgbd", 4), ("rgb_hha", 6)])
def test_nyud_is_colors_and_depth(nyud, modality, channels):
    dataset = load("nyud", nyud, modality=modality)
    image = dataset.source[0]["image"]
    assert image.shape == (*SIZE, channels) == (*SIZE, len(dataset.mean))
    rfjax.data.check(dataset)
    read = Normalization.of(dataset.facts)(image)
    if channels > 1:
        assert (image[..., :3] == 70).all()
    if channels == 6:
        np.testing.assert_array_equal(image[..., 3], 155)
    else:  # within the rounding to levels
        np.testing.assert_allclose(read[..., -1], np.log(2000) - 7.844, atol=0.008)
        of_caffe = SCHEMES["caffe"].of_pictures(dataset.facts)
        np.testing.assert_array_equal(Normalization.of(of_caffe)(image)[..., -1], read[..., -1])


def test_hha_of_a_floor_and_a_wall():
    """A camera 1.5 m above a floor, which looks ahead and down by 10 degrees at a wall 4 m off."""
    tilt, high, far, focal = np.radians(10.0), 1.5, 4.0, 60.0
    y, x = np.mgrid[:80, :100]
    right, down = (x - 50) / focal, (y - 40) / focal
    sinks = down * np.cos(tilt) + np.sin(tilt)  # of a ray, in the world, for each meter away
    goes = np.cos(tilt) - down * np.sin(tilt)
    floor = np.where(sinks > 1e-6, high / np.maximum(sinks, 1e-6), np.inf)
    wall = np.where(goes > 1e-6, far / np.maximum(goes, 1e-6), np.inf)
    found = depth.hha(np.minimum(floor, wall), focal=focal, center=(40, 50)).astype(int)
    inner = lambda mask: cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    on_floor, on_wall = inner(floor < wall), inner(wall < floor)
    assert on_floor.sum() > 500 and on_wall.sum() > 500
    assert found[on_floor][:, 1].max() <= 3 and found[on_floor][:, 2].max() <= 2
    assert np.abs(found[on_wall][:, 2] - 90).max() <= 2
    rises = 100 * (high - wall * sinks)[on_wall]
    np.testing.assert_allclose(found[on_wall][:, 1], np.clip(rises, 0, 255), atol=3)
    assert right.shape == found.shape[:2]


def test_depths_that_are_none():
    with pytest.raises(ValueError, match=r"depth must be \[H, W\] in meters, above 0 somewhere"):
        depth.hha(np.zeros((4, 4)))
