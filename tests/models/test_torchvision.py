"""State dicts of torchvision's segmentation networks: recognised, placed, and what is left told."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models
from rfjax.models import torch_import

PREVIOUS = {"transition": "previous"}
PYRAMID = {"head": "aspp", "head_options": {"variant": "v3"}}
NORM = ("weight", "bias", "running_mean", "running_var")


@functools.cache
def backbone():
    """A ResNet-50 under the names of the segmentation networks, all of ones."""
    model = models.create("drn_a_50", num_classes=1)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        keys = tuple(part.key for part in path)
        if keys[1] == "backbone":
            name = f"backbone.{torch_import._torch_name(keys)}"
            arrays[name] = np.ones(torch_import._torch_shape(leaf.shape), np.float32)
    assert "backbone.layer4.2.bn3.running_var" in arrays
    return arrays


def normed(name, place, width):
    """A normalisation of its own numbers."""
    return {f"{name}.{leaf}": np.full(width, place + i / 8) for i, leaf in enumerate(NORM)}


def fcn(name="classifier", width=512, channels=2048):
    conv = {f"{name}.0.weight": np.ones((width, channels, 3, 3), np.float32)}
    score = {f"{name}.4.weight": np.ones((21, width, 1, 1)), f"{name}.4.bias": np.ones(21)}
    return conv | normed(f"{name}.1", 1, width) | score


def deeplab():
    """Every layer of the pyramid is told by its number: 1x1, three rates, mean, projection."""
    shapes = [(256, 2048, 1, 1), *[(256, 2048, 3, 3)] * 3, (256, 2048, 1, 1), (256, 1280, 1, 1)]
    names = [f"convs.{i}.0" for i in range(4)] + ["convs.4.1", "project.0"]
    norms = [f"convs.{i}.1" for i in range(4)] + ["convs.4.2", "project.1"]
    arrays = {}
    for place, (conv, norm, shape) in enumerate(zip(names, norms, shapes, strict=True)):
        arrays[f"classifier.0.{conv}.weight"] = np.full(shape, place, np.float32)
        arrays |= normed(f"classifier.0.{norm}", place, 256)
    rest = {"classifier.1.weight": np.ones((256, 256, 3, 3)), **normed("classifier.2", 1, 256)}
    score = {"classifier.4.weight": np.ones((21, 256, 1, 1)), "classifier.4.bias": np.ones(21)}
    return arrays | rest | score


def load(arrays, name="drn_a_50", **options):
    """The variables, and what was warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        variables = models.import_torch(name, arrays, num_classes=21, **options)
    return variables, [str(warning.message) for warning in told]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("drn_a_50", "set transition='previous' in the backbone_options of the network, here and"),
        ("resnet_50", "that is drn_a_50 with backbone_options transition='previous'"),
    ],
)
def test_another_network_than_torchvisions_is_refused_in_one_line(name, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        load(backbone(), name)
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


def test_a_transition_that_is_chosen_is_taken():
    for transition in ("previous", "none"):
        _, told = load(backbone(), backbone_options={"transition": transition})
        assert not told


@pytest.mark.parametrize("prefix", ["", "module."])
def test_parts_without_a_place_are_told(prefix):
    arrays = backbone() | fcn() | fcn("aux_classifier", 256, 1024)
    arrays = {prefix + name: array for name, array in arrays.items()}
    variables, told = load(arrays, backbone_options=PREVIOUS, head="score")
    assert told == [
        "drn_a_50: the state dict's classifier.0.*, classifier.1.*, classifier.4.*, "
        "aux_classifier.* have no place in this network and are left out; what else its head has "
        "starts anew"
    ]
    assert variables["params"]["head"]["kernel"].shape == (1, 1, 2048, 21)


def test_the_pyramid_of_deeplab_has_a_place():
    variables, told = load(backbone() | deeplab(), backbone_options=PREVIOUS, **PYRAMID)
    assert len(told) == 1 and "classifier.1.*, classifier.2.*, classifier.4.* have no" in told[0]
    params, statistics = variables["params"]["head"], variables["batch_stats"]["head"]
    order = ["point", "rate_0", "rate_1", "rate_2", "pool", "project"]
    for place, name in enumerate(order):
        assert np.all(params[name]["kernel"] == place), name
        found = [params[f"{name}_norm"][leaf] for leaf in ("scale", "bias")]
        found += [statistics[f"{name}_norm"][leaf] for leaf in ("mean", "var")]
        np.testing.assert_array_equal([f[0] for f in found], place + np.arange(4) / 8)
    assert np.std(params["score"]["kernel"]) > 0  # drawn: DeepLabV3's reads another map


@pytest.mark.parametrize(("head", "options"), [("aspp", {}), ("ccl", {"width": 4})])
def test_the_pyramid_has_no_place_in_other_heads(head, options):
    options = {"head": head, "head_options": options, "backbone_options": PREVIOUS}
    _, told = load(backbone() | deeplab(), **options)
    assert "classifier.0.*, classifier.1.*" in told[0]


def test_a_pyramid_of_other_branches_does_not_fit():
    options = {"head": "aspp", "head_options": {"variant": "v3", "rates": (6, 12)}}
    with pytest.raises(ValueError, match=r"unknown head.rate_2.weight, head.rate_2_norm.bias"):
        load(backbone() | deeplab(), backbone_options=PREVIOUS, **options)


def test_features_and_pyramid_are_torchvisions():
    torch = pytest.importorskip("torch")
    segmentation = pytest.importorskip("torchvision").models.segmentation
    torch.manual_seed(0)
    net = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    variables, _ = load(net.eval().state_dict(), backbone_options=PREVIOUS, **PYRAMID)
    # The score reads the pyramid; as an identity it shows it.
    identity = {"kernel": jnp.eye(256)[None, None]}
    head = variables["params"]["head"] | {"score": identity, "bias": jnp.zeros(256)}
    shown = variables | {"params": variables["params"] | {"head": head}}
    model = models.create("drn_a_50", num_classes=256, backbone_options=PREVIOUS, **PYRAMID)
    image = np.random.default_rng(0).normal(size=(1, 40, 56, 3)).astype(np.float32)

    @jax.jit
    def ours(variables, image):
        features = model.apply(variables, image, method="features")
        head = lambda model, x: model.head({"last": x})[0]
        return features, model.apply(variables, features, method=head)

    with torch.no_grad():
        features = net.backbone(torch.from_numpy(image.transpose(0, 3, 1, 2)))["out"]
        theirs = features, net.classifier[0](features)
    for found, wanted in zip(ours(shown, image), theirs, strict=True):
        wanted = wanted.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))
