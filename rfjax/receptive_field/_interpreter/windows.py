"""What convolutions, poolings and Fourier transforms depend on; rules as in `rules`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter.reach import COMPUTED_KERNEL, NOTHING, Reach, Window
from rfjax.receptive_field._interpreter.rules import Operand, as_reach, dependent, note_of, rule


@rule("conv_general_dilated")
def _convolution(equation: Any, operands: Sequence[Operand]) -> Reach:
    """The union over each window and the channels of a group, whatever the weights are.

    A kernel that is computed from the input counts with all that its output channel's taps see.
    """
    x, kernel = operands
    params, shape = equation.params, tuple(equation.outvars[0].aval.shape)
    numbers = params["dimension_numbers"]
    windows = _windows(params, [kernel.shape[axis] for axis in numbers.rhs_spec[2:]])
    taps = None if isinstance(kernel, Reach) else _taps(kernel, numbers.rhs_spec)
    back = np.argsort(numbers.out_spec)
    outputs = [shape[axis] for axis in numbers.out_spec]

    def convolve(bound):
        bound = bound.transpose(numbers.lhs_spec)  # examples, channels, space
        bound = _mix_examples(bound, params["batch_group_count"], outputs[1])
        bound = _mix_channels(bound, params["feature_group_count"], outputs[1])
        lengths = [x.shape[axis] for axis in numbers.lhs_spec[2:]]
        return _slide(bound, windows, lengths, taps).transpose(back)

    def weigh(bound):
        features = bound.transpose(numbers.rhs_spec)
        features = features.max(tuple(range(1, features.ndim)), keepdims=True)
        return features.swapaxes(0, 1).transpose(back)

    parts = [x.map(shape, convolve)] if isinstance(x, Reach) else []
    if not isinstance(kernel, Reach):
        return parts[0]
    parts.append(kernel.map(shape, weigh))
    return reaches.union(shape, parts).noted(note_of(equation, COMPUTED_KERNEL))


def _windows(params: dict[str, Any], sizes: Sequence[int]) -> list[Window]:
    columns = zip(
        sizes,
        params["window_strides"],
        params["rhs_dilation"],
        params["padding"],
        params["lhs_dilation"],
        strict=True,
    )
    return [
        Window(size, stride, dilation, *padding, input_dilation=apart)
        for size, stride, dilation, padding, apart in columns
    ]


def _taps(kernel: Any, spec: Sequence[int]) -> np.ndarray | None:
    """Which taps of a constant kernel are not zero for all channels; None if all."""
    nonzero = kernel.nonzero()
    if nonzero is None:
        return None
    taps = nonzero.transpose(spec).any((0, 1))
    return None if taps.all() else taps


def _mix_examples(bound: np.ndarray, groups: int, features: int) -> np.ndarray:
    """Every group of output channels reads all channels of its group of examples."""
    if groups == 1 or bound.shape[0] == 1:
        return bound
    bound = bound.max(1).reshape(groups, -1, *bound.shape[2:])
    return np.repeat(bound.swapaxes(0, 1), features // groups, 1)


def _mix_channels(bound: np.ndarray, groups: int, features: int) -> np.ndarray:
    """Every output channel reads the channels of its group, on axis 1."""
    if bound.shape[1] == 1:
        return bound
    grouped = bound.reshape(bound.shape[0], groups, -1, *bound.shape[2:]).max(2)
    return np.repeat(grouped, features // groups, 1) if groups > 1 else grouped


def _slide(
    bound: np.ndarray, windows: Sequence[Window], lengths: Sequence[int], taps: np.ndarray | None
) -> np.ndarray:
    """The union over windows along the last axes; over some taps only where `taps` says so."""
    first = bound.ndim - len(windows)
    if taps is None:
        for number, (window, length) in enumerate(zip(windows, lengths, strict=True)):
            bound = window.slide(bound, first + number, length)
        return bound
    outputs = [w.outputs(length) for w, length in zip(windows, lengths, strict=True)]
    full = np.broadcast_to(bound, (*bound.shape[:first], *lengths))
    for number, window in enumerate(windows):
        distance = -(-(window.size - 1) * window.dilation // window.input_dilation)
        if distance > 1 and bound.shape[first + number] > 1:
            reaches.jumped(bound, first + number, distance)
        full = window.line(full, first + number)
    result = np.full((*bound.shape[:first], *outputs), NOTHING, np.int32)
    for place in np.argwhere(taps):
        part = full
        for number, (window, tap) in enumerate(zip(windows, place, strict=True)):
            part = window.tap(part, first + number, int(tap), outputs[number])
        result = np.maximum(result, part)
    return result


@rule("reduce_window reduce_window_sum reduce_window_max reduce_window_min select_and_gather_add")
def _pooling(equation: Any, operands: Sequence[Operand]) -> Reach | list[Reach]:
    params = equation.params
    columns = zip(
        params["window_dimensions"],
        params["window_strides"],
        params["window_dilation"],
        params["padding"],
        params["base_dilation"],
        strict=True,
    )
    windows = [Window(n, s, d, *p, input_dilation=b) for n, s, d, p, b in columns]
    shape = tuple(equation.outvars[0].aval.shape)
    maps = [x for x in dependent(operands) if len(x.shape) == len(windows) and x.shape]
    x = reaches.union(maps[0].shape, maps)
    pooled = x.map(shape, lambda bound: _slide(bound, windows, x.shape, None))
    return [pooled] * len(equation.outvars)


@rule("select_and_scatter_add")
def _unpooling(equation: Any, operands: Sequence[Operand]) -> Reach:
    """The gradient of a maximum: what each pixel's windows hold, and what comes back to them."""
    back, x = operands
    params, shape = equation.params, tuple(equation.outvars[0].aval.shape)
    like = dependent(operands)[0]
    columns = list(
        zip(params["window_dimensions"], params["window_strides"], params["padding"], strict=True)
    )
    windows = [Window(size, stride, 1, *ends) for size, stride, ends in columns]
    pooled = as_reach(x, like).map(back.shape, lambda bound: _slide(bound, windows, shape, None))
    seen = reaches.union(back.shape, [pooled, as_reach(back, like)])
    # Pixel p is in the windows of all w with p = stride w - before + tap.
    over = [
        Window(size, 1, 1, size - 1 - before, before + n - (count - 1) * stride - 1, stride)
        for (size, stride, (before, _)), n, count in zip(columns, shape, back.shape, strict=True)
    ]
    return seen.map(shape, lambda bound: _slide(bound, over, back.shape, None))
