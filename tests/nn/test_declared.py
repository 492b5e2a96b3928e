"""What layers declare: structure and covariances, wherever the layers are."""

from collections.abc import Mapping
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, traverse_util

from rfjax import models, nn

X = jnp.ones((1, 9, 9, 5))
PRIOR = {"prior_input", "prior_before", "gate_input", "gate_before"}
REGRESSED = {"covariance_regressor", "offset_regressor"}


def shapes(model, *inputs, **options):
    return jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, **options), *inputs)


def filled(model, *inputs, **options):
    """Variables with a different number in each place."""
    tree = shapes(model, *inputs, **options)
    number = iter(np.linspace(-1.0, 1.0, sum(leaf.size for leaf in jax.tree.leaves(tree))))
    draw = lambda leaf: jnp.asarray(
        np.reshape([next(number) for _ in range(leaf.size)], leaf.shape), jnp.float32
    )
    return jax.tree.map(draw, tree)


def structure_of(model, variables, *inputs, **options):
    declared = nn.structure(model, variables, *inputs, **options)
    return {
        "/".join(path)
        for path in traverse_util.flatten_dict(variables["params"])
        if declared.is_structure(path)
    }


@pytest.mark.parametrize("layer, names", [
    (nn.Conv(4), set()),
    (nn.GaussianBlur(), {"covariance"}),
    (nn.ComposedConv(4), {"covariance"}),
    (nn.DoGConv(4), {"covariance_center", "covariance_delta"}),
    (nn.GaussianDeformableConv(4), {"covariance_regressor"}),
    (nn.GaussianDeformableConv(4, mean=True), REGRESSED),
    (nn.DynamicComposedConv(4), {"covariance"} | REGRESSED),
    (nn.DeformableConv(4), {"offset_regressor"}),
    (nn.ContinuousDilationConv(4), {"rate_regressor"}),
    (nn.AdaptiveDilationConv(4), {"prior_input"}),
    (nn.AdaptiveDilationConv(4, prior="gated"), PRIOR),
    (nn.Inflated(nn.Conv(4)), {"factor"}),
    (nn.DynamicFilter(4), set()),
    (nn.AffineConv(4), {"offset_affine"}),
    (nn.StaticDeformableConv(4), {"offset"}),
    (nn.BlurredDilatedConv(4), set()),
    (nn.CCL(4, width=2), set()),
    (nn.ASPP(4, variant="v3", width=2), set()),
])  # fmt: skip
def test_structure_of_each_layer(layer, names):
    variables = shapes(layer, X)
    assert {path.split("/")[0] for path in structure_of(layer, variables)} == names
    assert nn.structure(layer, variables).per_pixel == (
        ("",) if names & (REGRESSED | PRIOR | {"rate_regressor"}) else ()
    )


class Setup(linen.Module):
    """Layers in a list, an attribute and a child's child, beside weights of misleading names."""

    def setup(self):
        self.conv = nn.ComposedConv(5, structure="multiple", components=2)
        self.layers = [nn.GaussianBlur(per_channel=True), nn.DynamicComposedConv(5)]
        self.offset_head = linen.Sequential([linen.Conv(5, (1, 1)), nn.DoGConv(5)])

    def __call__(self, x, train):
        for layer in (self.conv, *self.layers):
            x = layer(x)
        return self.offset_head(x)


def test_layers_are_found_in_modules_of_modules():
    model = Setup()
    variables = shapes(model, X, train=False)
    declared = nn.structure(model, variables)
    found = nn.covariances(model, filled(model, X, train=False))
    assert {path: leaf.shape for path, leaf in found.items()} == {
        "conv/0": (1,),
        "conv/1": (1,),
        "layers_0": (5, 1),
        "layers_1": (1,),
        "offset_head/layers_1/center": (1,),
        "offset_head/layers_1/surround": (1,),
    }
    assert declared.per_pixel == ("layers_1",)
    assert declared.role(("conv", "covariance_mixture")) == "other"
    assert declared.role(("offset_head", "layers_1", "covariance_delta")) == "difference"
    assert declared.role(("layers_1", "covariance_regressor", "kernel")) == "regressor"
    assert not declared.is_structure(("offset_head", "layers_0", "kernel"))


class Block(linen.Module):
    """A center-surround layer of its own bound, in the form that a scan takes."""

    @linen.compact
    def __call__(self, x, _=None):
        return nn.DoGConv(5, max_surround=3.0, name="dog")(x), None


def lifted(lift, **options):
    """A model in which the blocks are lifted."""

    class Lifted(linen.Module):
        @linen.compact
        def __call__(self, x):
            return lift(Block, **options)(name="blocks")(x, None)[0]

    return Lifted()


SPLIT = {"split_rngs": {"params": True}}


@pytest.mark.parametrize("model, copies, axis", [
    (lifted(linen.remat), (), 0),
    (lifted(linen.jit), (), 0),
    (lifted(linen.scan, length=3, variable_axes={"params": 0}, **SPLIT), (3,), 0),
    (lifted(linen.scan, length=3, variable_axes={"params": 1}, **SPLIT), (3,), 1),
    (lifted(linen.scan, length=3, variable_broadcast="params", split_rngs={"params": False}),
     (), 0),
    (lifted(linen.vmap, in_axes=(None, None), axis_size=2, variable_axes={"params": 0}, **SPLIT),
     (2,), 0),
])  # fmt: skip
def test_lifted_layers_tell_the_covariances_of_each_copy(model, copies, axis):
    variables = filled(model, X)
    own = variables["params"]["blocks"]["dog"]
    center, delta = (
        np.moveaxis(own[f"covariance_{name}"], axis, 0) for name in ("center", "delta")
    )
    surround = nn.surround_covariance(center, delta, max_surround=3.0)
    found = nn.covariances(model, variables)
    assert found["blocks/dog/center"].shape == (*copies, 1)
    np.testing.assert_allclose(found["blocks/dog/center"], center)
    np.testing.assert_allclose(found["blocks/dog/surround"], surround, rtol=1e-6)
    assert structure_of(model, variables) == {
        "blocks/dog/covariance_center", "blocks/dog/covariance_delta"
    }  # fmt: skip


def test_layers_within_a_network_that_is_computed_again():
    options = {"head": "dog", "head_options": {"max_surround": 4.0}, "conv": nn.ComposedConv}
    size = {"width": 4, "depth": 1}
    made = [
        models.create("resnet_tiny", num_classes=2, remat=remat, backbone_options=size, **options)
        for remat in (False, True)
    ]
    variables = filled(made[0], jnp.zeros((1, 16, 16, 3)))
    found = [nn.covariances(model, variables) for model in made]
    chex.assert_trees_all_equal(*found)
    assert list(found[0]) == [
        "backbone/layer1_0/conv1", "backbone/layer1_0/conv2", "head/center", "head/surround"
    ]  # fmt: skip


# -- layers of users -------------------------------------------------------------------------------


class Wide(nn.Structured, linen.Module):
    """A blur of the square of a width: its parameter is no log-Cholesky one."""

    STRUCTURE: ClassVar[Mapping[str, str]] = {"width": "other", "aim": "regressor"}

    @linen.compact
    def __call__(self, x, shift: bool):
        width = self.param("width", lambda key: jnp.array(3.0))
        params = self.covariances({"width": width})[""]
        y = nn.GaussianBlur(name="offset")(x * jnp.sum(params))
        return y + linen.Dense(5, name="aim")(x) if shift else y

    def covariances(self, params):
        return {"": 2.0 * jnp.log(params["width"]).reshape(1)}


def test_a_layer_of_ones_own_declares_what_it_likes():
    model = Wide()
    variables = model.init(jax.random.key(0), X, True)
    assert structure_of(model, variables, X, True) == {
        "width", "aim/kernel", "aim/bias", "offset/covariance"
    }  # fmt: skip
    found = nn.covariances(model, variables, X, True)
    np.testing.assert_allclose(jnp.exp(found[""]), [9.0], rtol=1e-6)
    assert list(found) == ["", "offset"]


def test_a_class_declares_what_its_parents_do():
    class More(nn.DoGConv):
        STRUCTURE: ClassVar[Mapping[str, str]] = {"tilt": "other"}

    assert nn.declared(More) == nn.declared(nn.DoGConv) | {"tilt": "other"}


def test_declarations_that_make_no_sense_are_errors():
    class Unknown(nn.ComposedConv):
        STRUCTURE: ClassVar[Mapping[str, str]] = {"covariance": "blur"}

    layer = Unknown(4)
    with pytest.raises(ValueError, match=r"Unknown.STRUCTURE\['covariance'\] is one of .*'blur'"):
        nn.structure(layer, shapes(nn.ComposedConv(4), X), X)

    class Wrong(Wide):
        def covariances(self, params):
            return {"": jnp.zeros(4)}

    variables = Wrong().init(jax.random.key(0), X, False)
    with pytest.raises(ValueError, match=r"log-Cholesky parameters .*got \(4,\)"):
        nn.covariances(Wrong(), variables, X, False)


# -- inputs ----------------------------------------------------------------------------------------


class Flat(linen.Module):
    """Takes maps of one size only."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(nn.ComposedConv(4)(x).reshape(x.shape[0], -1))


def test_inputs_are_guessed_where_they_can_be_and_else_asked_for():
    variables = filled(Flat(), X)
    with pytest.raises(ValueError, match=r"no map \[1, 64, 64, C\] gives Flat these variables"):
        nn.covariances(Flat(), variables)
    assert list(nn.covariances(Flat(), variables, X)) == ["ComposedConv_0"]
    abstract = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert list(nn.covariances(Flat(), variables, abstract)) == ["ComposedConv_0"]
    with pytest.raises(ValueError, match=r"other parameters .* ComposedConv_0/kernel \(3, 3, 7"):
        nn.structure(Flat(), variables, jnp.ones((1, 9, 9, 7)))


def test_covariances_may_be_traced():
    layer = nn.DoGConv(4, max_surround=3.0)
    variables = filled(layer, X)
    declared = nn.structure(layer, variables)

    def total(params):
        return jnp.sum(declared.covariances(params)["surround"])

    gradient = jax.jit(jax.grad(total))(variables["params"])
    assert gradient["covariance_delta"][0] > 0 and not gradient["kernel"].any()
