"""Samples that are no array by themselves, as one: sequences of different lengths, and graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import (
    PANEL,
    PRECISIONS,
    Array,
    as_array,
    free_bytes,
    real_array,
    size_text,
)
from ntkcore.specs.beside import GraphInput, MaskedInput
from ntkcore.specs.layers import is_whole
from ntkcore.specs.lowering import flat

Graph = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
WEIGHTS = ("uniform", "degree", "symmetric", "given")


def pack_sequences(
    sequences: Any,
    mask: npt.ArrayLike | None = None,
    *,
    length: int | None = None,
    align: str = "left",
) -> Array:
    """Sequences of different lengths, or masked ones, as the samples of a `MaskedInput` network.

    Parameters
    ----------
    sequences : sequence of array_like of shape (length, features), or array_like
        Sequences of any lengths; or samples (n, positions, features), also with more axes of
        positions, or a masked array of NumPy's, whose position is masked where all features are.
    mask : array_like of bool of shape (n, positions), optional
        Where samples of one shape are masked (True), as of NumPy's masked arrays.
    length : int, optional
        Positions of the result, such as those of the training data; by default the longest's. Not
        of samples with more axes of positions.
    align : {"left", "right"}, default="left"
        Where sequences stand: from the first position on, or, as `Recurrent` has it, so that all
        end at the last one.

    Returns
    -------
    ndarray of shape (n, positions, features + 1)
        float32 where all sequences are, else float64. What is masked, or beyond a sequence's end
        (align="right": before its beginning), is 0; the last channel is 1 where it is not.

    Raises
    ------
    TypeError, ValueError
        For what is no such data, a mask of another shape, and a sample without any position in use:
        the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import pack_sequences
    >>> pack_sequences([np.ones((1, 1)), np.ones((2, 1))])[..., -1]
    array([[1., 0.],
           [1., 1.]])
    """
    if align not in ("left", "right"):
        raise ValueError(f"pack_sequences: align must be 'left' or 'right', not {align!r}")
    if length is not None and (not is_whole(length) or length < 1):
        raise ValueError(f"pack_sequences: length must be a positive number, not {length!r}")
    if _is_one_array(sequences):
        x, seen = _lengthened(*_masked_array(sequences, mask), length)
    else:
        if mask is not None:
            raise ValueError(
                "pack_sequences: a mask belongs to samples of one shape, not to a list"
            )
        x, seen = _padded([_matrix(s, f"sequence {i}") for i, s in enumerate(sequences)], length)
    empty = ~seen.reshape(len(seen), -1).any(axis=1)
    if empty.any():
        raise ValueError(
            f"pack_sequences: sample {int(np.argmax(empty))} has no position in use: drop it"
        )
    if align == "right":
        x, seen = _to_the_right(x, seen)
    return np.concatenate([np.where(seen[..., None], x, 0), seen[..., None]], -1, dtype=x.dtype)


def pack_graphs(
    graphs: Sequence[tuple[Any, Any]], *, weights: str = "uniform", nodes: int | None = None
) -> Array:
    """Graphs of different sizes as the samples of a `GraphInput` network.

    Parameters
    ----------
    graphs : sequence of pairs (features, adjacency)
        Features (nodes, features) and the adjacency (nodes, nodes), of scipy.sparse or an array;
        entry (u, v) is the weight of the edge that node u hears v by.
    weights : {"uniform", "degree", "symmetric", "given"}, default="uniform"
        What `Aggregate` multiplies with: A + I; its rows divided by their sums (Du et al. 2019);
        D^-1/2 (A + I) D^-1/2 (Kipf & Welling 2017); or the adjacency as it stands.
    nodes : int, optional
        Nodes of the result, such as those of the training data; by default the largest graph's.

    Returns
    -------
    ndarray of shape (n, nodes, features + 1 + nodes)
        float64; behind the features of a node 1 (0: padding), and its row of that matrix.

    Raises
    ------
    TypeError, ValueError
        For an adjacency that does not fit its features, values that are not finite, a graph without
        nodes, a degree that is not positive where weights divide by it: the message names the
        graph.
    MemoryError
        If the result would not fit into the memory that is free.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import pack_graphs
    >>> pack_graphs([(np.eye(2), [[0, 1], [1, 0]])], weights="degree")[0]
    array([[1. , 0. , 1. , 0.5, 0.5],
           [0. , 1. , 1. , 0.5, 0.5]])
    """
    if weights not in WEIGHTS:
        raise ValueError(f"pack_graphs: weights must be one of {WEIGHTS}, not {weights!r}")
    pairs = check_graphs(graphs)
    size = _common_size(pairs, nodes)
    width = pairs[0][0].shape[1]
    _check_memory(len(pairs), size, width)
    x = np.zeros((len(pairs), size, width + 1 + size))
    for i, (features, adjacency) in enumerate(pairs):
        n = len(features)
        x[i, :n, :width], x[i, :n, width] = features, 1
        x[i, :n, width + 1 : width + 1 + n] = _weighed(adjacency, weights, i)
    return x


def check_graphs(graphs: Any) -> list[Graph]:
    """Features and adjacencies as arrays; TypeError or ValueError names the graph that is none, or
    has other features.
    """
    if not isinstance(graphs, Sequence) or isinstance(graphs, (str, bytes)):
        raise TypeError(
            f"graphs must be a list of pairs (features, adjacency), not {type(graphs).__name__}"
        )
    pairs = [_graph(graph, i) for i, graph in enumerate(graphs)]
    if not pairs:
        raise ValueError("no graphs: the list is empty")
    widths = [features.shape[1] for features, _ in pairs]
    other = next((i for i, width in enumerate(widths) if width != widths[0]), None)
    if other is not None:
        raise ValueError(
            f"graph {other} has {widths[other]} features, graph 0 has {widths[0]}: give all graphs"
            " the same ones"
        )
    return pairs


def of_one_size(a: Array, b: Array) -> tuple[Array, Array]:
    """Packed graphs, those with fewer nodes padded; ValueError where features differ."""
    features = [x.shape[2] - x.shape[1] - 1 if x.ndim == 3 else 0 for x in (a, b)]
    if features[0] != features[1] or min(features) < 1:
        raise ValueError(
            f"packed graphs of shapes {a.shape} and {b.shape} have {features[0]} and {features[1]}"
            " features: pack both by pack_graphs, with the same ones"
        )
    nodes = max(a.shape[1], b.shape[1])
    return _padded_graphs(a, nodes), _padded_graphs(b, nodes)


def check_packed(net: Any, *data: Any) -> None:
    """ValueError where a network begins with `MaskedInput` or `GraphInput`, but what should say
    which positions are in use does not, or says that of a sample none is.
    """
    layer = next(iter(flat(net)), None)
    if not isinstance(layer, (MaskedInput, GraphInput)):
        return
    given = [(x, f"x{i}: sample") for i, x in enumerate(data, 1) if x is not None and x.ndim > 2]
    for x, name in given:
        at = x.shape[-1] - layer.channels(x.shape[1:-1])
        if at < 1:
            return  # lowering says what is missing
        for first, seen in _panels(x, at):
            _check_seen(layer, name, at, first, seen)


def _panels(x: Any, channel: int) -> Iterator[tuple[int, Any]]:
    """That channel of all samples, (some samples, positions), and the number of the first."""
    step = max(1, PANEL * len(x) // x.size)
    for first in range(0, len(x), step):
        some = x[first : first + step][..., channel]
        yield first, some.reshape(len(some), -1)


def _check_seen(layer: Any, name: str, channel: int, first: int, seen: Any) -> None:
    other = ((seen != 0) & (seen != 1)).any(axis=1)
    if bool(other.any()):
        raise ValueError(
            f"{name} {first + int(other.argmax())} holds other values than 1 (in use) and 0"
            f" (masked) in channel {channel}, which {layer!r} takes for the mask of positions: most"
            f" likely the data were not packed by {layer.packed_by}"
        )
    empty = (seen == 0).all(axis=1)
    if bool(empty.any()):
        raise ValueError(
            f"{name} {first + int(empty.argmax())} has no position in use, by the mask in channel"
            f" {channel}: drop it"
        )


def _padded_graphs(packed: Array, nodes: int) -> Array:
    n, size, channels = packed.shape
    if size == nodes:
        return packed
    x = np.zeros((n, nodes, channels + nodes - size), packed.dtype)
    x[:, :size, :channels] = packed
    return x


def _to_the_right(x: Array, seen: npt.NDArray[np.bool_]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Every sample moved on until its last position in use is the last."""
    if seen.ndim != 2:
        raise ValueError(
            f"pack_sequences: align='right' is about sequences, but samples have {seen.ndim - 1}"
            " axes of positions"
        )
    size = seen.shape[1]
    behind = np.argmax(seen[:, ::-1], axis=1)
    at = (np.arange(size) - behind[:, None]) % size
    moved: Array = np.take_along_axis(x, at[..., None], 1)
    return moved, np.take_along_axis(seen, at, 1)


def _is_one_array(x: Any) -> bool:
    return hasattr(x, "shape") or not isinstance(x, Sequence)


def _masked_array(x: Any, mask: npt.ArrayLike | None) -> tuple[Array, npt.NDArray[np.bool_]]:
    hidden = None if mask is None else np.asarray(mask)
    if isinstance(x, np.ma.MaskedArray):
        if mask is not None:
            raise ValueError("pack_sequences: a masked array brings its own mask: leave mask out")
        hidden = np.asarray(np.ma.getmaskarray(x).all(axis=-1))
        x = np.ma.filled(x, 0)
    array = as_array(x, "sequences")
    if array.ndim < 3 or 0 in array.shape:
        raise ValueError(
            "pack_sequences: samples must have shape (n, positions, features), not"
            f" {array.shape}; sequences of different lengths are a list"
        )
    if hidden is None:
        hidden = np.zeros(array.shape[:-1], bool)
    if hidden.dtype != bool or hidden.shape != array.shape[:-1]:
        raise ValueError(
            f"pack_sequences: mask must be of bool, True where masked, and of shape"
            f" {array.shape[:-1]}, not {hidden.dtype} of shape {hidden.shape}"
        )
    return array.astype(_precision([array])), ~hidden


def _lengthened(
    x: Array, seen: npt.NDArray[np.bool_], length: int | None
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Samples of one shape with so many positions, those that are added masked."""
    if length is None or length == x.shape[1]:
        return x, seen
    if seen.ndim > 2 or length < x.shape[1]:
        raise ValueError(
            f"pack_sequences: length={length} is no length of samples of shape {x.shape[1:-1]}"
        )
    more = 0, length - x.shape[1]
    return np.pad(x, ((0, 0), more, (0, 0))), np.pad(seen, ((0, 0), more))


def _precision(arrays: Sequence[np.ndarray[Any, Any]]) -> np.dtype[Any]:
    small = all(a.dtype.kind == "f" and a.dtype.itemsize <= 4 for a in arrays)
    return PRECISIONS[0] if small else PRECISIONS[1]


def _matrix(x: Any, name: str) -> np.ndarray[Any, Any]:
    array = as_array(x, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (positions, features), not {array.shape}")
    return array


def _padded(
    parts: Sequence[np.ndarray[Any, Any]], length: int | None
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(n, positions, features), zeros behind the end of each, and what is in use."""
    if not parts:
        raise ValueError("no samples: the list is empty")
    features = parts[0].shape[1]
    other = next((i for i, part in enumerate(parts) if part.shape[1] != features), None)
    if other is not None:
        raise ValueError(
            f"sample {other} has {parts[other].shape[1]} features, the first one {features}"
        )
    lengths = np.array([len(part) for part in parts])
    size = int(lengths.max()) if length is None else length
    if lengths.max() > size:
        i = int(np.argmax(lengths))
        raise ValueError(f"sample {i} has {lengths[i]} positions, more than the {size} asked for")
    x = np.zeros((len(parts), size, features), _precision(parts))
    for row, part in zip(x, parts, strict=True):
        row[: len(part)] = part
    return x, np.arange(size) < lengths[:, None]


def _graph(graph: Any, i: int) -> Graph:
    if not isinstance(graph, (tuple, list)) or len(graph) != 2:
        raise TypeError(
            f"graph {i} must be a pair (features, adjacency), not {type(graph).__name__}"
        )
    features, adjacency = (
        real_array(part.toarray() if hasattr(part, "toarray") else part, f"the {name} of graph {i}")
        for part, name in zip(graph, ("features", "adjacency"), strict=True)
    )
    if features.ndim != 2:
        raise ValueError(
            f"the features of graph {i} must have shape (nodes, features), not {features.shape}"
        )
    if 0 in features.shape:
        lacks = "nodes" if features.shape[0] == 0 else "features"
        raise ValueError(
            f"graph {i} has no {lacks}: drop it"
            if lacks == "nodes"
            else f"graph {i} has no {lacks}: give degrees, or a constant"
        )
    if adjacency.shape != (len(features), len(features)):
        raise ValueError(
            f"graph {i} has {len(features)} nodes by its features, but an adjacency of shape"
            f" {adjacency.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError(f"the features of graph {i} hold NaN or infinity")
    if not np.isfinite(adjacency).all():
        raise ValueError(f"the adjacency of graph {i} holds NaN or infinity")
    return features, adjacency


def _common_size(pairs: Sequence[Graph], nodes: int | None) -> int:
    """Nodes of all of them after packing; ValueError where ``nodes`` does not fit."""
    if nodes is not None and not is_whole(nodes):
        raise ValueError(f"pack_graphs: nodes must be a positive number, not {nodes!r}")
    sizes = np.array([len(features) for features, _ in pairs])
    size = int(sizes.max()) if nodes is None else int(nodes)
    if sizes.max() > size:
        i = int(np.argmax(sizes))
        raise ValueError(f"graph {i} has {sizes[i]} nodes, more than the {size} asked for")
    return size


def _check_memory(count: int, nodes: int, features: int) -> None:
    need, free = 8 * count * nodes * (features + 1 + nodes), free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"{count} graphs of {nodes} nodes need {size_text(need)}, and {size_text(free)} are"
            " free: pack fewer at a time, or leave the largest out; for the nodes of one large"
            " graph use ntkcore.gcn_kernel"
        )


def _weighed(adjacency: npt.NDArray[np.float64], weights: str, i: int) -> npt.NDArray[np.float64]:
    if weights == "given":
        return adjacency
    looped = adjacency + np.eye(len(adjacency))
    if weights == "uniform":
        return looped
    degree = looped.sum(axis=1)
    check_degrees(f"graph {i}", degree, weights)
    divisor = np.sqrt(np.outer(degree, degree)) if weights == "symmetric" else degree[:, None]
    return np.divide(looped, divisor)


def check_degrees(name: str, degree: npt.NDArray[np.float64], weights: str) -> None:
    """ValueError where weights would divide by a degree that is not positive."""
    if degree.min() <= 0:
        node = int(np.argmax(degree <= 0))
        raise ValueError(
            f"{name}: node {node} has degree {degree[node]:g}, itself among its neighbours, and"
            f" weights={weights!r} divides by it: use edges whose weights are not negative, or"
            " 'uniform' or 'given'"
        )
