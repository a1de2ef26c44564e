"""Samples that are no array by themselves, as one: sequences of different lengths, and graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import PRECISIONS, Array, as_array

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
        Positions of the result, such as those of the training data; by default the longest's.
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
    if _is_one_array(sequences):
        x, seen = _masked_array(sequences, mask)
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
        For an adjacency that does not fit its features, or weights that are not finite: the message
        names the graph.

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
    pairs = [_graph(graph, i) for i, graph in enumerate(graphs)]
    x, seen = _padded([features.astype(np.float64) for features, _ in pairs], nodes)
    patterns = np.zeros((*seen.shape, seen.shape[1]))
    for pattern, (features, adjacency) in zip(patterns, pairs, strict=True):
        pattern[: len(features), : len(features)] = _weighed(adjacency, weights)
    return np.concatenate([x, seen[..., None], patterns], -1)


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


def _graph(graph: Any, i: int) -> tuple[np.ndarray[Any, Any], npt.NDArray[np.float64]]:
    if not isinstance(graph, (tuple, list)) or len(graph) != 2:
        raise TypeError(
            f"graph {i} must be a pair (features, adjacency), not {type(graph).__name__}"
        )
    features = _matrix(graph[0], f"the features of graph {i}")
    given = graph[1].toarray() if hasattr(graph[1], "toarray") else graph[1]
    adjacency = as_array(given, f"the adjacency of graph {i}").astype(np.float64)
    if adjacency.shape != (len(features), len(features)):
        raise ValueError(
            f"graph {i} has {len(features)} nodes by its features, but an adjacency of shape"
            f" {adjacency.shape}"
        )
    if not np.isfinite(adjacency).all():
        raise ValueError(f"the adjacency of graph {i} holds NaN or infinity")
    return features, adjacency


def _weighed(adjacency: npt.NDArray[np.float64], weights: str) -> npt.NDArray[np.float64]:
    if weights == "given":
        return adjacency
    looped = adjacency + np.eye(len(adjacency))
    degree = looped.sum(axis=1)
    if weights == "degree":
        looped /= degree[:, None]
    elif weights == "symmetric":
        looped /= np.sqrt(np.outer(degree, degree))
    return looped
