"""Kernels of the nodes of one large graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine import fields
from ntkcore.engine.fields import Field
from ntkcore.engine.inputs import (
    Get,
    free_bytes,
    kernel_names,
    packed,
    real_array,
    size_text,
)
from ntkcore.engine.packing import WEIGHTS, check_degrees
from ntkcore.specs.activations import Relu
from ntkcore.specs.layers import Dense, Layer, Serial, is_whole
from ntkcore.specs.nets import HE

Matrix = npt.NDArray[np.float64]
COPIES = 8  # matrices of all pairs of nodes that live at once


def gcn_kernel(
    features: npt.ArrayLike,
    adjacency: Any,
    depth: int = 1,
    get: Get = "ntk",
    *,
    W_std: float = HE,
    b_std: float | None = None,
    activation: Layer | None = None,
    weights: str = "symmetric",
    threads: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
) -> Any:
    """Exact NNGP covariance and NTK of an infinitely wide graph convolutional network between all
    nodes of one graph.

    Every layer, the read-out too, sums over neighbours, h <- P h W + b, and all but the read-out
    end with a nonlinearity. With K = T = 0 but K = X X^T/d before the first, a layer is

        K <- W_std^2 P K P^T + b_std^2,   T <- W_std^2 P T P^T + K,

    then K, T <- E[phi phi'], E[phi' phi'] T pair by pair.

    Parameters
    ----------
    features : array_like of shape (nodes, features)
        X.
    adjacency : scipy.sparse matrix or array_like of shape (nodes, nodes)
        Entry (u, v) is the weight of the edge that node u hears v by.
    depth : int, default=1
        Hidden layers: of the network of Kipf & Welling 2017, one.
    get : str or tuple of str, default="ntk"
        "ntk" or "nngp" for one matrix, a tuple of them for a namedtuple.
    W_std : float, default=sqrt(2)
        Standard deviation of all weights: He's scaling.
    b_std : float, optional
        That of all biases; None: no biases.
    activation : Layer, optional
        By default `Relu`.
    weights : {"symmetric", "degree", "uniform", "given"}, default="symmetric"
        P: D^-1/2 (A + I) D^-1/2; A + I with rows divided by their sums; A + I; or A as it stands.
    threads, backend, progress
        As for `ntkcore.kernel`, on the CPU.

    Returns
    -------
    ndarray of shape (nodes, nodes), float64, or a namedtuple of them. Kernels between some nodes
    are blocks of it: neighbours outside a block count too.

    Raises
    ------
    TypeError, ValueError
        For an adjacency that does not fit the features, values that are not finite, a degree that
        is not positive where weights divide by it: the message names them.
    MemoryError
        If matrices of all pairs of nodes would not fit into the memory that is free.

    Notes
    -----
    A layer costs O(nodes x edges) for products with the sparse P, and a dual for each pair.

    References
    ----------
    Niu, Anitescu & Chen 2023, "Graph neural network-inspired kernels for Gaussian processes in
    semi-supervised learning" (arXiv 2302.05828), section 3; Kipf & Welling 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import ntkcore as nk
    >>> path = np.eye(3, k=1) + np.eye(3, k=-1)
    >>> nk.gcn_kernel(np.ones((3, 1)), path, 1, "nngp", weights="degree")
    array([[2., 2., 2.],
           [2., 2., 2.],
           [2., 2., 2.]])
    """
    names = kernel_names(get)
    if not is_whole(depth) or depth < 0:
        raise ValueError(f"gcn_kernel: depth must be a number of hidden layers, not {depth!r}")
    if weights not in WEIGHTS:
        raise ValueError(f"gcn_kernel: weights must be one of {WEIGHTS}, not {weights!r}")
    x = _checked_features(features)
    _check_memory(len(x))
    pattern = _pattern(adjacency, len(x), weights)
    dense, phi = Dense(W_std, b_std), activation or Relu()
    options = {"threads": threads, "backend": backend, "progress": progress}
    nngp = x @ x.T / x.shape[1]
    ntk = np.zeros_like(nngp) if "ntk" in names else None
    for net in (*(Serial(dense, phi),) * int(depth), dense):
        nngp = _both_sides(pattern, nngp)
        ntk = None if ntk is None else _both_sides(pattern, ntk)
        nngp, ntk = _layer(net, nngp, ntk, options)
    results = {"nngp": nngp, **({} if ntk is None else {"ntk": ntk})}
    return packed(get, {name: results[name] for name in names})


def _layer(
    net: Layer, nngp: Matrix, ntk: Matrix | None, options: dict[str, Any]
) -> tuple[Matrix, Matrix | None]:
    """What is the same for all nodes, who are samples with a vector each."""
    own = np.diagonal(nngp)[:, None, None]
    start = Field(nngp[..., None, None], None if ntk is None else ntk[..., None, None], own)
    field, _ = fields.after(net, (1,), start, **options)
    return field.nngp[..., 0, 0], None if field.ntk is None else field.ntk[..., 0, 0]


def _both_sides(pattern: Any, matrix: Matrix) -> Matrix:
    """P M P^T of a symmetric M, symmetric to the last bit."""
    half = np.ascontiguousarray((pattern @ matrix).T)
    out: Matrix = np.asarray(pattern @ half)
    out += out.T.copy()
    out *= 0.5
    return out


def _checked_features(features: npt.ArrayLike) -> Matrix:
    x = real_array(features, "features")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"gcn_kernel: features must have shape (nodes, features), not {x.shape}; nodes without"
            " any: np.eye(nodes)"
        )
    if not np.isfinite(x).all():
        node = int(np.argmax(~np.isfinite(x).all(axis=1)))
        raise ValueError(f"gcn_kernel: the features of node {node} hold NaN or infinity")
    return x


def _check_memory(nodes: int) -> None:
    need, free = 8 * COPIES * nodes**2, free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"gcn_kernel: matrices of all pairs of {nodes} nodes need {size_text(need)}, and"
            f" {size_text(free)} are free: take a part of the graph, such as the nodes that are at"
            " most depth + 1 edges away from those of interest"
        )


def _pattern(adjacency: Any, nodes: int, weights: str) -> Any:
    """P, sparse where the adjacency is."""
    sparse = hasattr(adjacency, "tocsr")
    matrix = adjacency.tocsr() if sparse else real_array(adjacency, "adjacency")
    if matrix.shape != (nodes, nodes):
        raise ValueError(
            f"gcn_kernel: the features have {nodes} nodes, but the adjacency has shape"
            f" {matrix.shape}"
        )
    values = real_array(matrix.data, "adjacency") if sparse else matrix
    if not np.isfinite(values).all():
        raise ValueError("gcn_kernel: the adjacency holds NaN or infinity")
    if sparse:
        matrix = matrix.astype(np.float64)
    if weights == "given":
        return matrix
    looped = matrix + _identity(nodes, sparse)
    if weights == "uniform":
        return looped
    degree = np.asarray(looped.sum(axis=1)).ravel()
    check_degrees("gcn_kernel", degree, weights)
    if weights == "degree":
        return _scaled(looped, 1 / degree, None)
    return _scaled(looped, degree**-0.5, degree**-0.5)


def _identity(nodes: int, sparse: bool) -> Any:
    if not sparse:
        return np.eye(nodes)
    from scipy.sparse import identity

    return identity(nodes, format="csr")


def _scaled(matrix: Any, rows: Any, columns: Any) -> Any:
    if hasattr(matrix, "multiply"):
        matrix = matrix.multiply(rows[:, None])
        return (matrix if columns is None else matrix.multiply(columns)).tocsr()
    matrix = matrix * rows[:, None]
    return matrix if columns is None else matrix * columns
