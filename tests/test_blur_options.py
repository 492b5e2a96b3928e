"""`Blur`: the options of a blur at once, in every primitive that takes them."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import Blur

X = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 8, 2)), jnp.float32)
KERNEL = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 2, 2)), jnp.float32)
SIGMA, TWO = jnp.log(jnp.array([0.9])), jnp.log(jnp.array([[0.9], [1.4]]))
OPTIONS = {"truncate": 3.0, "padding": "edge", "method": "integrated", "support": "faded"}

CALLS = {
    "gaussian_blur": lambda **o: rfjax.gaussian_blur(X, SIGMA, **o),
    "difference_of_gaussians": lambda **o: rfjax.difference_of_gaussians(X, SIGMA, SIGMA + 1, **o),
    "local_gaussian_blur": lambda **o: rfjax.local_gaussian_blur(
        X, 0.1 * X[..., :1], max_half_size=5, **o
    ),
    "blur_conv": lambda **o: rfjax.blur_conv(X, KERNEL, SIGMA, **o),
    "blur_resample_conv": lambda **o: rfjax.blur_resample_conv(X, KERNEL, SIGMA, **o),
    "composed_conv": lambda **o: rfjax.composed_conv(X, KERNEL, SIGMA, **o),
    "channel_conv": lambda **o: rfjax.channel_conv(X, KERNEL, TWO, **o),
    "mixture_conv": lambda **o: rfjax.mixture_conv(X, KERNEL, TWO, jnp.ones(2), **o),
    "dog_conv": lambda **o: rfjax.dog_conv(X, KERNEL, SIGMA, SIGMA + 1, **o),
}


def test_every_primitive_with_these_options_is_here():
    with_all = {
        name
        for name in rfjax.__all__
        if callable(getattr(rfjax, name))
        and set(OPTIONS) <= set(inspect.signature(getattr(rfjax, name)).parameters)
    }
    assert with_all == {*CALLS, "blurred_dilated_conv", "Blur"}


@pytest.mark.parametrize("name", CALLS)
def test_at_once_or_one_by_one(name):
    call = CALLS[name]
    wanted = call(**OPTIONS)
    np.testing.assert_array_equal(call(blur=Blur(**OPTIONS)), wanted)
    assert jnp.abs(wanted - call()).max() > 1e-3  # they have an effect
    np.testing.assert_array_equal(call(blur=Blur()), call())


def test_in_a_blurred_dilation_the_blur_is_a_number():
    call = functools.partial(rfjax.blurred_dilated_conv, X, KERNEL, dilation=2)
    np.testing.assert_array_equal(call(how=Blur(**OPTIONS)), call(**OPTIONS))
    with pytest.raises(ValueError, match="how holds padding already"):
        call(how=Blur(), padding="edge")


@pytest.mark.parametrize("name", CALLS)
def test_both_are_one_error(name):
    for option, value in OPTIONS.items():
        with pytest.raises(ValueError, match=f"blur holds {option} already: give one or the other"):
            CALLS[name](blur=Blur(), **{option: value})
    with pytest.raises(TypeError, match="unexpected keyword argument 'paddings'; the options"):
        CALLS[name](paddings="edge")


@pytest.mark.parametrize("name", CALLS)
def test_signatures_spell_the_options(name):
    parameters = inspect.signature(getattr(rfjax, name)).parameters
    defaults = {option: parameters[option].default for option in OPTIONS}
    assert defaults == {"truncate": 2.0, "padding": "zero", "method": "sampled", "support": "hard"}
    assert all(parameters[option].kind is inspect.Parameter.KEYWORD_ONLY for option in OPTIONS)


def test_a_static_argument_that_can_be_hashed():
    traces = []

    @functools.partial(jax.jit, static_argnames="blur")
    def smooth(x, blur):
        traces.append(blur)
        return rfjax.gaussian_blur(x, SIGMA, blur=blur)

    smooth(X, blur=Blur(padding="edge"))
    smooth(X, blur=Blur(padding="edge", truncate=2))
    smooth(X, blur=Blur(padding="wrap"))
    assert len(traces) == 2 and traces[0] == Blur(padding="edge")
    assert {Blur(): 1}[Blur(truncate=np.float32(2.0))] == 1


@pytest.mark.parametrize("option, wrong", [
    ("truncate", 0.0), ("truncate", None), ("padding", "same"), ("method", ""), ("support", None),
])  # fmt: skip
def test_it_is_checked_when_it_is_made(option, wrong):
    with pytest.raises(ValueError, match=option):
        Blur(**{option: wrong})


def test_it_does_not_change():
    with pytest.raises(AttributeError):
        Blur().padding = "edge"
