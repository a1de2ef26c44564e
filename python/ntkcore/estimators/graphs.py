"""Kernels of lists of graphs, for estimators that take kernel matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import validation

from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.engine.packing import check_graphs, pack_graphs
from ntkcore.estimators.models import kernel_of, takes_graphs
from ntkcore.specs.graphs import gntk
from ntkcore.specs.layers import Layer

Array = npt.NDArray[Any]
Graphs = Sequence[tuple[Any, Any]]


class GraphKernel(TransformerMixin, BaseEstimator):
    """From lists of graphs to kernel matrices, before ``SVC(kernel="precomputed")`` and the like.

    ``fit`` keeps the training graphs; ``transform`` gives the kernel between graphs, of any sizes,
    and these.

    Parameters
    ----------
    net : Layer, default=None
        A network that begins with `GraphInput`. None: ``gntk(blocks, layers, jumping_knowledge)``,
        the graph neural tangent kernel.
    blocks, layers : int, default=2
        Sums over neighbours, and hidden layers after each, if ``net`` is None.
    jumping_knowledge : bool, default=True
        Whether the read-out is that of all blocks, if ``net`` is None.
    weights : {"uniform", "degree", "symmetric", "given"}, default="uniform"
        How sums over neighbours are weighted, see `ntkcore.pack_graphs`.
    get : {"ntk", "nngp"}, default="ntk"
        Which kernel.
    normalize : bool, default=False
        Whether K(g, g') is divided by the root of K(g, g) K(g', g'): else large graphs have large
        entries.
    dtype : {"float32", "float64"}, default=None
        Of the arithmetic and the result; None: float64.
    threads : int, default=None
        See `ntkcore.kernel`.

    Attributes
    ----------
    graphs_ : list of pairs of ndarray
        The training graphs.
    n_features_in_ : int
        Features of a node.

    Notes
    -----
    Parameters can be searched with those of the estimator that follows: a pipeline's X is a list of
    graphs, which is split into lists.

    References
    ----------
    Du et al. 2019 (arXiv 1905.13192), section 5: a support vector machine on the raw or the
    normalised kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore.estimators import GraphKernel
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> path = lambda n: (np.ones((n, 1)), np.eye(n, k=1) + np.eye(n, k=-1))
    >>> star = lambda n: (np.ones((n, 1)), np.outer(np.eye(n)[0], np.arange(n) > 0))
    >>> graphs = [make(n) for n in range(4, 12) for make in (path, star)]
    >>> model = make_pipeline(GraphKernel(normalize=True), SVC(kernel="precomputed", C=100))
    >>> model.fit(graphs, ["path", "star"] * 8).predict([path(20), star(3)])
    array(['path', 'star'], dtype='<U4')
    """

    def __init__(
        self,
        net: Layer | None = None,
        *,
        blocks: int = 2,
        layers: int = 2,
        jumping_knowledge: bool = True,
        weights: str = "uniform",
        get: str = "ntk",
        normalize: bool = False,
        dtype: npt.DTypeLike | None = None,
        threads: int | None = None,
    ) -> None:
        self.net = net
        self.blocks = blocks
        self.layers = layers
        self.jumping_knowledge = jumping_knowledge
        self.weights = weights
        self.get = get
        self.normalize = normalize
        self.dtype = dtype
        self.threads = threads

    def fit(self, X: Graphs, y: Any = None) -> GraphKernel:
        """Keep the training graphs.

        Parameters
        ----------
        X : sequence of pairs (features, adjacency)
            Graphs, as of `ntkcore.pack_graphs`.
        y : ignored

        Returns
        -------
        The fitted transformer itself.

        Raises
        ------
        TypeError, ValueError
            For graphs or parameters that do not fit.
        """
        kernel_of(self)
        self._net()
        self.graphs_ = check_graphs(X)
        self.n_features_in_ = self.graphs_[0][0].shape[1]
        return self

    def transform(self, X: Graphs) -> Array:
        """The kernel between graphs and those of ``fit``.

        Parameters
        ----------
        X : sequence of pairs (features, adjacency)
            Graphs, also larger ones.

        Returns
        -------
        ndarray of shape (n_graphs, n_training_graphs)

        Raises
        ------
        TypeError, ValueError
            For graphs that do not fit, in themselves or to those of ``fit``.
        """
        validation.check_is_fitted(self)
        graphs = check_graphs(X)
        if graphs[0][0].shape[1] != self.n_features_in_:
            raise ValueError(
                f"GraphKernel: nodes have {graphs[0][0].shape[1]} features, those of fit had"
                f" {self.n_features_in_}"
            )
        nodes = max(len(features) for features, _ in (*graphs, *self.graphs_))
        return self._kernel(*(self._packed(part, nodes) for part in (graphs, self.graphs_)))

    def fit_transform(self, X: Graphs, y: Any = None, **fit_params: Any) -> Array:
        """``fit(X).transform(X)`` at half the cost: the kernel between the training graphs."""
        self.fit(X, y)
        return self._kernel(self._packed(self.graphs_, None), None)

    def _net(self) -> Layer:
        if self.net is None:
            return gntk(self.blocks, self.layers, self.jumping_knowledge)
        if not takes_graphs(self.net):
            raise ValueError(
                f"GraphKernel: net must begin with GraphInput(), as ntkcore.gntk does, not"
                f" {self.net!r}"
            )
        return self.net

    def _packed(self, graphs: Graphs, nodes: int | None) -> Array:
        return pack_graphs(graphs, weights=self.weights, nodes=nodes)

    def _kernel(self, a: Array, b: Array | None) -> Array:
        net, get = self._net(), kernel_of(self)
        options: dict[str, Any] = {"dtype": self.dtype, "threads": self.threads}
        K: Array = kernel(net, a, b, get, **options)
        if not self.normalize:
            return K
        rows = np.diagonal(K).copy() if b is None else kernel_diag(net, a, get, **options)
        cols = rows if b is None else kernel_diag(net, b, get, **options)
        scale = np.sqrt(rows)[:, None] * np.sqrt(cols)
        np.divide(K, scale, out=K, where=scale > 0)
        return K
