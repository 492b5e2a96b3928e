"""Training from maps on disk is training with the part before them frozen."""

import json

import jax
import numpy as np
import pytest

from rfjax import data, models
from rfjax.training import config as configs
from rfjax.training import loop
from tests.training.runs import arrays, tiny_config

AFTER = "backbone/layer1_*, head/*"


def config_of(folder, **changes):
    settings = {"steps": 4, "checkpoint_every": 2, "eval_every": 4, "trainable": AFTER}
    return tiny_config(folder / "data", **(settings | changes))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    return folder, loop.train(config_of(folder), folder / "run")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
def test_equals_training_with_the_part_frozen(frozen, tmp_path, dtype, tolerance):
    folder, scores = frozen
    config = config_of(folder, data__cache__map="conv1", data__cache__dtype=dtype)
    config.data.dir = str(folder / "data")
    found = loop.train(config, tmp_path)
    wanted, got = arrays(folder / "run"), arrays(tmp_path)
    assert wanted.keys() == got.keys()
    for name, array in wanted.items():
        if "variables" not in name and dtype == "float16":
            continue  # momentum sums gradients, which are larger than steps
        np.testing.assert_allclose(got[name], array, atol=tolerance, rtol=tolerance, err_msg=name)
    np.testing.assert_allclose(found["loss"], scores["loss"], rtol=tolerance)
    files = sorted(path.name for path in (tmp_path / "maps/conv1/train").iterdir())
    assert files == ["32x32.npy", "index.json"]
    assert np.load(tmp_path / "maps/conv1/train/32x32.npy").dtype == dtype


def test_episodes_start_from_the_maps_of_their_images(tmp_path):
    """Each is computed once, however many episodes it is part of."""
    settings = {"steps": 2, "checkpoint_every": 2, "eval_every": 2, "trainable": _EPISODES_LEARN}
    config = tiny_config(tmp_path / "data", **settings)
    config.task.name, config.data.name = "guided", "digit_episodes"
    config.data.options.val_scenes, config.data.options.max_scale = 24, 24.0
    config.data.options.min_scale = 16.0
    config.data.options.train_episodes = config.data.options.val_episodes = 8
    config.model.head, config.data.dir = "score", ""
    wanted = loop.train(config, tmp_path / "images")
    config.data.cache.map, config.data.cache.dtype = "conv1", "float32"
    found = loop.train(config, tmp_path / "maps")
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-4)
    assert found["positive_iu"] == pytest.approx(wanted["positive_iu"], abs=1e-3)
    kept = np.load(tmp_path / "maps" / "maps/conv1/train/32x32.npy")
    assert kept.shape[0] == 24
    config.task.fusion = "early"
    with pytest.raises(configs.ConfigError, match=r"fusion='early' .* wants images"):
        loop.train(config, tmp_path / "early")


_EPISODES_LEARN = "backbone/layer1_*, fusion/*, head/*"


def test_a_run_goes_on_from_its_cache(frozen, tmp_path):
    folder, _ = frozen
    config = config_of(folder, data__cache__map="conv1", optimizer__poly_power=0.0, steps=2)
    loop.train(config, tmp_path)
    written = (tmp_path / "maps/conv1/train/32x32.npy").stat().st_mtime_ns
    config.steps = 4
    assert loop.train(config, tmp_path)["step"] == 4
    assert (tmp_path / "maps/conv1/train/32x32.npy").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainable": "all"}, "is frozen, but trainable='all' trains backbone/"),
        ({"data__cache__map": "conv1, layer1"}, "before layer1 is frozen, but trainable="),
        ({"data__cache__map": "pool9"}, "data.cache.map: stage is one of"),
        ({"data__augmentation__flip": True}, "whole images; unset data.augmentation.flip"),
        ({"data__pad": (40, 40)}, "whole images; unset data.pad"),
    ],
)
def test_what_cannot_be(frozen, tmp_path, changes, message):
    config = config_of(frozen[0], **({"data__cache__map": "conv1"} | changes))
    with pytest.raises(configs.ConfigError, match=message):
        loop.train(config, tmp_path)


class _Images:
    """Random images of two sizes."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        size = (8, 12) if index % 2 else (16, 8)
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        return {"image": image, "label": image[..., 0] % 3, "id": str(index)}


DATASET = data.Dataset("images", "train", _Images(), num_classes=3)


@pytest.fixture(scope="module")
def network():
    model = models.create("resnet_tiny", num_classes=3, backbone_options={"width": 4})
    return model, model.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))


def cache(network, folder, name="layer1", variables=None, **options):
    model, own = network
    return data.cache_features(model, variables or own, DATASET, name, folder, **options)


def test_maps_are_those_of_each_image(network, tmp_path):
    cached = cache(network, tmp_path, dtype="float32", batch_size=2)
    model, variables = network
    normalization = data.Normalization.of(DATASET.facts)
    for index in range(len(DATASET)):
        example = cached.source[index]
        images = normalization(example["image"])[None]
        wanted = model.apply(variables, images, method="maps")["layer1"][0]
        np.testing.assert_allclose(example["map/layer1"], wanted, rtol=1e-5, atol=1e-5)


def test_several_maps_of_each_image(network, tmp_path):
    both = cache(network, tmp_path / "both", ("conv1", "layer1"))
    alone = cache(network, tmp_path / "one", "layer1")
    files = sorted(path.name for path in (tmp_path / "both").glob("*.npy"))
    assert files == ["conv1-16x8.npy", "conv1-8x12.npy", "layer1-16x8.npy", "layer1-8x12.npy"]
    for index in range(len(DATASET)):
        found, one = both.source[index], alone.source[index]
        np.testing.assert_array_equal(found["map/layer1"], one["map/layer1"])
        assert len(both.source) == len(DATASET) and found["map/conv1"].ndim == 3
    with pytest.raises(ValueError, match="layer1 must come before conv1"):
        cache(network, tmp_path / "turned", ("layer1", "conv1"))


def test_what_comes_after_the_map_may_change(network, tmp_path):
    cache(network, tmp_path)
    _, variables = network
    head = jax.tree.map(lambda leaf: leaf + 1, variables["params"]["head"])
    params = variables["params"] | {"head": head}
    cache(network, tmp_path, variables=variables | {"params": params})
    trunk = jax.tree.map(lambda leaf: leaf + 1, variables["params"]["backbone"])
    params = params | {"backbone": trunk}
    with pytest.raises(ValueError, match="is of other weights: remove it"):
        cache(network, tmp_path, variables=variables | {"params": params})
    with pytest.raises(ValueError, match="is of other map, weights: remove it"):
        cache(network, tmp_path, "conv1")


@pytest.mark.parametrize("damage", ["bits", "cut", "index", "gone"])
def test_a_damaged_cache_is_one_line(network, tmp_path, damage):
    cache(network, tmp_path)
    file = tmp_path / "8x12.npy"
    content = bytearray(file.read_bytes())
    if damage == "bits":
        content[-1] ^= 1
    file.write_bytes(content[:-7] if damage == "cut" else content)
    if damage == "index":
        (tmp_path / "index.json").write_text(json.dumps([1]))
    if damage == "gone":
        file.unlink()
    with pytest.raises(ValueError, match=r"the cache in .* is damaged \(.*\): remove it") as caught:
        cache(network, tmp_path)
    assert "\n" not in str(caught.value)


def test_numbers_that_float16_cannot_hold(network, tmp_path):
    _, variables = network
    large = jax.tree.map(lambda leaf: 300 * leaf, variables["params"])
    with pytest.raises(ValueError, match="layer1 has numbers that float16 cannot hold, up to"):
        cache(network, tmp_path, variables=variables | {"params": large})
    with pytest.raises(ValueError, match="dtype is one of float16, float32; got 'int8'"):
        cache(network, tmp_path, dtype="int8")
