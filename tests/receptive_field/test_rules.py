"""Operations of JAX: exact ones have the support of their gradient, others name themselves."""

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from rfjax import receptive_field as rf
from tests.receptive_field.measured import gradient_boxes, traced_boxes

SHAPE = (1, 6, 7, 2)
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
MATRIX = 4 * np.eye(6) + np.arange(36).reshape(6, 6) / 36
BLOCKS = np.kron(np.eye(3), [[2.0, 1.0], [1.0, 3.0]])


def conv(x, kernel=None, **options):
    kernel = jnp.ones((3, 3, x.shape[-1], 2), x.dtype) if kernel is None else kernel
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, kernel, dimension_numbers=DIMENSIONS, **options)


def square(x):
    """A matrix of the map, far from singular."""
    return x[0, :, :6, 0] + 9 * jnp.eye(6)


def columns(function):
    """A function of matrices, on the columns of the map."""
    return lambda x: function(x[0, :, :, 0])[None, :, :, None]


def unpooled(x):
    """A gradient of disjoint windows, all of whose maxima are first."""
    fixed = jnp.tile(jnp.array([[4.0, 3.0], [2.0, 1.0]]), (6, 7))[None, :, :, None]
    pool = lambda z: lax.reduce_window(z, -jnp.inf, lax.max, *[(1, 2, 2, 1)] * 2, "VALID")
    return jax.vjp(pool, fixed)[1](x[..., :1])[0][:, ::2, ::2]


EXACT = {
    "tiled": lambda x: jnp.tile(x, (1, 2, 3, 1)),
    "tiled along channels": lambda x: jnp.tile(conv(x), (1, 1, 1, 2)),
    "lower triangle": columns(lambda x: jsp.linalg.solve_triangular(MATRIX, x, lower=True)),
    "upper triangle": columns(lambda x: jsp.linalg.solve_triangular(MATRIX, x)),
    "transposed triangle": columns(
        lambda x: jsp.linalg.solve_triangular(MATRIX, x, trans=1, lower=True)
    ),
    "triangle from the right": columns(
        lambda x: lax.linalg.triangular_solve(np.tri(7) + np.eye(7), x, lower=True)
    ),
    "upper from the right, transposed": columns(
        lambda x: lax.linalg.triangular_solve((np.tri(7) + np.eye(7)).T, x, transpose_a=True)
    ),
    "triangle of blocks": columns(lambda x: jsp.linalg.solve_triangular(BLOCKS, x, lower=True)),
    "triangle of the input": lambda x: lax.linalg.triangular_solve(
        square(x), x[0, :, :, 0], left_side=True, lower=True
    )[None, :, :, None],
    "linear system": columns(lambda x: jnp.linalg.solve(MATRIX, x)),
    "linear system of blocks": columns(lambda x: jnp.linalg.solve(BLOCKS, x)),
    "custom solver": lambda x: lax.custom_linear_solve(
        lambda v: 2 * v, x, lambda _, b: b / 2, lambda _, b: b / 2
    ),
    "tridiagonal system": columns(
        lambda x: lax.linalg.tridiagonal_solve(np.ones(6), 4 * np.ones(6), np.ones(6), x)
    ),
    "Cholesky factor": lambda x: lax.linalg.cholesky(
        x[0, :, :6, 0] / 9 + jnp.eye(6), symmetrize_input=False
    )[None, :, :, None],
    "groups of examples": lambda x: conv(
        jnp.concatenate([x, jnp.roll(x, 2, 1)]), jnp.ones((3, 3, 2, 2)), batch_group_count=2
    ),
    "computed kernel": lambda x: conv(x, x[0, :3, :3, :, None], padding="VALID"),
    "maxima's gradient": unpooled,
    "any reduction": lambda x: lax.reduce(x, np.float64(1), lax.mul, (3,))[..., None],
    "sorted": lambda x: jnp.sort(x, 3)[..., :1] + jnp.sort(x, 3)[..., 1:],
    "moved to a device": lambda x: jax.device_put(conv(x)),
    "scan of many steps": lambda x: lax.scan(
        lambda carry, _: (carry * 0.999, None), conv(x), None, length=5000
    )[0],
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_field_is_the_support_of_the_gradient(name):
    with jax.enable_x64(True):
        wanted = gradient_boxes(EXACT[name], SHAPE)
        np.testing.assert_array_equal(traced_boxes(EXACT[name], SHAPE), wanted)


def test_gradients_of_overlapping_maxima():
    """Any pixel of a window may be the largest: two windows' reach of 3, less than all."""
    pool = lambda z: lax.reduce_window(z, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    slope = lambda x: jax.grad(lambda z: pool(z).sum())(x)
    field = rf.theoretical(slope, (1, None, None, 1))
    assert (field.size, field.stride, field.missing) == ((5, 5), (1.0, 1.0), ())


RANDOM = {
    "noise": lambda x, key: x + jax.random.normal(key, x.shape),
    "dropout": lambda x, key: conv(jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0)),
    "masked by a product": lambda x, key: (
        x * jax.random.bernoulli(key, 0.1, x.shape).astype(x.dtype)
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_no_structure(name):
    """What was drawn today is no part of the network, whichever key is given."""
    wanted = (3, 3) if name == "dropout" else (1, 1)
    for key in (jax.random.key(0), jax.random.PRNGKey(1)):
        assert rf.theoretical(RANDOM[name], (1, 16, 16, 1), key).size == wanted
        assert rf.theoretical(lambda x, k=key: RANDOM[name](x, k), (1, 16, 16, 1)).size == wanted


def test_keys_of_the_input_and_bits():
    def seeded(x):
        keys = jax.vmap(jax.random.key)(lax.bitcast_convert_type(x[0, :, 0, 0], jnp.int32))
        return jax.vmap(lambda key: jax.random.uniform(key, (8,)))(keys)[None, :, :, None]

    field = rf.theoretical(seeded, (1, 8, 8, 1))
    assert (field.box, field.missing) == (((4, 4), (0, 0)), ())
    bytewise = lambda x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.uint8), jnp.float32
    )
    assert rf.theoretical(bytewise, (1, 8, 8, 1)).size == (1, 1)


EXAMPLES = PartitionSpec("devices")


def on_devices(function, spec=EXAMPLES, **options):
    mesh = Mesh(np.array(jax.devices()[:4]), ("devices",))
    return jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, **options)


@pytest.mark.parametrize(
    "function",
    [
        on_devices(conv),
        on_devices(lambda x: conv(x) - lax.pmean(x, "devices")),
        on_devices(lambda x: conv(x) - lax.pmean(x, "devices"), check_vma=False),
        on_devices(lambda x: conv(x) * lax.axis_index("devices").astype(x.dtype)),
        on_devices(lambda x: conv(lax.all_gather(x, "devices", tiled=True)[:1])),
        on_devices(lambda x: conv(lax.all_gather(x, "devices").max(0))),
        lambda x: jax.pmap(conv, devices=jax.devices()[:4])(x[:, None])[:, 0],
    ],
)
def test_examples_on_several_devices(function):
    field = rf.theoretical(function, (4, 16, 16, 2))
    assert (field.size, field.stride, field.missing) == ((3, 3), (1.0, 1.0), ())


def test_a_map_on_several_devices_is_a_bound():
    function = on_devices(conv, PartitionSpec(None, "devices"))
    field = rf.theoretical(function, (1, 16, 16, 2))
    assert field.missing == ("shard_map",) and field.box == ((0, 15), (0, 15))


def first(x):
    return x[0, 0, 0, 0]


REPORTED = {
    "cond": lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, conv(x)),
    "dynamic_slice": lambda x: lax.dynamic_slice_in_dim(x, first(x).astype(int), 4, 1),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice_in_dim(
        x, x[:, :2], first(x).astype(int), 1
    ),
    "gather": lambda x: jnp.take(x, jnp.argmax(x, 1)[0, :, 0], 1),
    "scatter-add": lambda x: x.at[:, x[0, :, 0, 0].astype(int)].add(1.0),
    "while": lambda x: lax.while_loop(lambda c: first(c) < 9, lambda c: c * 2, x),
    "sort": lambda x: jnp.sort(x, 1),
    "cumsum": lambda x: jnp.cumsum(x, 1),
    "fft": lambda x: jnp.fft.fft(x, axis=1).real,
    "lu": columns(lambda x: jnp.linalg.inv(x + 9 * jnp.eye(8))),
    "svd": columns(lambda x: jnp.linalg.svd(x, full_matrices=False)[0]),
    "pure_callback": lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
}


@pytest.mark.parametrize("operation", REPORTED)
def test_what_bounds_an_output_is_named(operation):
    """By itself, and not at the outputs that it has nothing to do with."""
    both = lambda x: (REPORTED[operation](x), conv(x))
    bounded, plain = rf.theoretical_of_outputs(both, (1, 8, 8, 1))
    assert any(note.startswith(f"`{operation}` ") for note in bounded.notes)
    assert bounded.clipped[0] and np.isnan(bounded.stride[0])
    assert (plain.notes, plain.missing, plain.stride) == ((), (), (1.0, 1.0))
    assert bounded.missing == ((operation,) if operation == "pure_callback" else ())


def test_what_bounds_an_output_goes_through_a_composition():
    outer = rf.theoretical(REPORTED["pure_callback"], (1, 8, 8, 1))
    assert rf.compose(rf.theoretical([rf.Conv(3)]), outer).missing == ("pure_callback",)


def test_positions_that_depend_on_the_input_leave_other_axes_alone():
    along = lambda x: jnp.take_along_axis(x, jnp.clip(x.astype(int), 0, 7), 1)
    field = rf.theoretical(along, (1, 8, 8, 1))
    assert field.box == ((0, 7), (4, 4)) and field.stride[1] == 1 and field.data_dependent
    rows = lambda x, index: x[:, index]
    field = rf.theoretical(rows, (1, 8, 8, 1), jax.ShapeDtypeStruct((4,), jnp.int32))
    assert field.box == ((0, 7), (4, 4)) and not field.data_dependent


def test_loops_of_unknown_length_grow_until_they_stay():
    """A body without a neighbourhood keeps each pixel alone, however often it runs."""
    times = jax.ShapeDtypeStruct((), jnp.int32)
    local = lambda x, n: lax.fori_loop(0, n, lambda i, c: c * i, conv(x))
    field = rf.theoretical(local, (1, 16, 16, 2), times)
    assert field.size == (3, 3) and field.notes[0].startswith("`while` goes on for a number")
    spread = lambda x, n: lax.fori_loop(0, n, lambda i, c: conv(c), x)
    assert rf.theoretical(spread, (1, 16, 16, 2), times).box == ((0, 15), (0, 15))


def test_each_column_of_a_system_is_its_own():
    solve = columns(lambda x: jnp.linalg.solve(9 * jnp.eye(8) + 1, x))
    field = rf.theoretical(solve, (1, 8, 8, 1))
    assert (field.box, field.stride[1], field.missing) == (((0, 7), (4, 4)), 1.0, ())
    copies = rf.theoretical(lambda x: jnp.tile(x, (1, 2, 1, 1)), (1, 8, 8, 1))
    assert (copies.size, copies.stride, copies.offset) == ((1, 1), (1.0, 1.0), (-8.0, 0.0))
