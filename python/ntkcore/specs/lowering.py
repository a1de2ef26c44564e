"""From a network spec to the program that the engine runs, read-out by read-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ntkcore.specs.branches import FanIn, FanOut
from ntkcore.specs.convolutions import GlobalAvgPool, LocalAvgPool, Readout
from ntkcore.specs.full import FullBuilder
from ntkcore.specs.layers import Dense, Identity, Layer, Serial, Signal, single
from ntkcore.specs.program import BeyondPlanesError, Builder, Program, Range, Value
from ntkcore.specs.windows import Shape

PoolWindow = int | str
Built = TypeVar("Built")


def flat(net: Layer) -> list[Layer]:
    """The layers, those of nested Serials among them."""
    return (
        [inner for layer in net.layers for inner in flat(layer)]
        if isinstance(net, Serial)
        else [net]
    )


def stages(net: Layer) -> tuple[list[list[Layer]], list[Layer]]:
    """Cuts a network after every nonlinear stage: ([stage 1, …, stage L], read-out).

    A stage ends with a nonlinearity, a residual block that holds one, or the FanIn… that closes
    its branches. The read-out is what follows the last stage.
    """
    done: list[list[Layer]] = []
    current: list[Layer] = []
    open_branches = nonlinear = False
    for layer in flat(net):
        current.append(layer)
        open_branches = isinstance(layer, FanOut) or (
            open_branches and not isinstance(layer, FanIn)
        )
        nonlinear |= layer.nonlinear
        if nonlinear and not open_branches:
            done.append(current)
            current, nonlinear = [], False
    return done, current


def _with_window(readout: list[Layer], window: PoolWindow) -> list[Layer]:
    """The read-out with its Flatten or GlobalAvgPool replaced by local average pooling."""
    at = next((i for i, layer in enumerate(readout) if isinstance(layer, Readout)), None)
    if at is None:
        raise ValueError(
            "pool_windows needs a network whose read-out turns an image into a vector: put"
            " Flatten() or GlobalAvgPool() after its last nonlinearity"
        )
    pool = GlobalAvgPool() if window == "global" else LocalAvgPool(window)  # type: ignore[arg-type]
    return [*readout[:at], pool, *readout[at + 1 :]]


def _emit(
    builder: Builder, value: Value, readout: list[Layer], number: int, output: int, last: bool
) -> None:
    """Output number `output` <- the read-out of `value`,
    which stays as it is unless this is its last use.

    `number`: the place of the read-out's first layer in the network.
    """
    rest = list(readout)
    owned = last
    builder.path = [str(number)]
    if rest and isinstance(rest[0], Readout) and value.is_image:
        value, owned = rest.pop(0).lower(builder, value, last), True  # type: ignore[call-arg,assignment]
    if value.unread:  # no nonlinearity follows
        value, owned = builder.read(value, last), True
    if len(rest) == 1 and isinstance(rest[0], Dense) and not value.is_image:
        builder.emit(value, output, rest[0].coefficients(rest[0], builder, value))
    else:
        if rest and not owned:
            value, owned = builder.copy(value), True
        signal: Signal = value
        for i, layer in enumerate(rest, number + len(readout) - len(rest)):
            builder.path = [str(i)]
            signal = layer.lower(builder, signal)
        value = builder.read(single(rest[-1] if rest else Identity(), builder, signal))
        if value.is_image:
            hint = "; images without channels are x[..., None]" if len(value.shape) == 2 else ""
            raise ValueError(
                f"the network ends with an image of shape {value.shape}, but a kernel needs a"
                f" vector: end it with Flatten() or GlobalAvgPool(){hint}"
            )
        builder.emit(value, output)
    if owned and not last:
        builder.release(value)


def check_net(net: object) -> None:
    """TypeError for anything but a spec."""
    if not isinstance(net, Layer):
        raise TypeError(
            "net must be a network spec such as Serial(Dense(), Relu(), Dense()), not"
            f" {type(net).__name__}"
        )


def lower(
    net: Layer,
    input_shape: Shape,
    *,
    wants_ntk: bool,
    depths: Sequence[int] | None = None,
    pool_windows: Sequence[PoolWindow] | None = None,
    data: Range | None = None,
) -> Program:
    """The program of a network; one output for each of ``depths`` (the network cut after that many
    stages) and, within them, each of ``pool_windows`` (local average pooling as its read-out).
    ``data``: what the tables of a `tabulated` network must hold.

    ValueError names the layer that does not fit, or the depths there are.
    """
    check_net(net)
    parts, readout = stages(net)
    wanted = [len(parts)] if depths is None else [int(depth) for depth in depths]
    if depths is not None and (
        not wanted
        or len(set(wanted)) < len(wanted)
        or not set(wanted) <= set(range(len(parts) + 1))
    ):
        raise ValueError(
            "depths must be distinct numbers of nonlinear stages, from 0 (the read-out alone) to"
            f" {len(parts)}, not {wanted}"
        )
    readouts = (
        [readout]
        if pool_windows is None
        else [_with_window(readout, window) for window in pool_windows]
    )
    if not readouts:
        raise ValueError("pool_windows must name at least one window: odd numbers or 'global'")
    return on_planes_or_not(
        lambda builder: _built(builder, parts, wanted, readouts), input_shape, wants_ntk, data
    )


def on_planes_or_not(
    build: Callable[[Builder], Built],
    input_shape: Shape,
    wants_ntk: bool,
    data: Range | None = None,
) -> Built:
    """What `build` makes with a builder for displacement planes, wherever these will do."""
    try:
        return build(Builder(input_shape, wants_ntk, data))
    except BeyondPlanesError:
        return build(FullBuilder(input_shape, wants_ntk, data))


def end_of(net: Layer, builder: Builder) -> Value:
    """What is known of a network's outputs; flattened images are vectors now."""
    return builder.read(single(net, builder, net.lower(builder, builder.input)))


def error_bounds(net: Layer, input_shape: Shape, data: Range) -> dict[str, float]:
    """What the tables of `tabulated` layers leave out for such data at most, by the layer."""

    def errors(builder: Builder) -> dict[str, float]:
        net.lower(builder, builder.input)
        return builder.errors

    return on_planes_or_not(errors, input_shape, False, data)


def _built(
    builder: Builder,
    parts: Sequence[list[Layer]],
    wanted: Sequence[int],
    readouts: Sequence[list[Layer]],
) -> Program:
    """The program of the stages, and after each that is wanted all read-outs."""
    value: Signal = builder.input
    number = 0
    for depth, stage in enumerate([[], *parts[: max(wanted)]]):
        for layer in stage:
            builder.path = [str(number)]
            value = layer.lower(builder, value)
            number += 1
        if depth not in wanted:
            continue
        signal = single(stage[-1] if stage else Identity(), builder, value)
        for i, ending in enumerate(readouts):
            last = depth == max(wanted) and ending is readouts[-1]
            _emit(builder, signal, ending, number, wanted.index(depth) * len(readouts) + i, last)
    return builder.build(len(wanted) * len(readouts))
