"""The kernel object: an infinitely wide network for Gaussian processes, SVC and others."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from ntkcore.engine.gradients import kernel_gradient
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.estimators.models import kernel_of, net_of
from ntkcore.specs.layers import Layer

Array = npt.NDArray[Any]


class NTKKernel(Kernel):
    """An infinitely wide network's kernel as scikit-learn's kernel object.

    For GaussianProcessRegressor and GaussianProcessClassifier, alone or in sums and products with
    other kernels. The same object works as ``kernel=`` of SVC, SVR, KernelRidge, Nystroem,
    KernelPCA and of ``pairwise_kernels``: they recognise kernel objects and ask for whole matrices,
    whereas an ordinary function would be called for every pair. All arithmetic is in float64.

    Parameters
    ----------
    net : Layer, default=None
        A fixed network: no hyperparameters (multiply by ``ConstantKernel`` to learn a scale). None:
        a ReLU network ``mlp(depth, W_std, b_std)``, whose W_std and b_std are hyperparameters.
    depth : int, default=3
        Hidden layers, if ``net`` is None.
    W_std, b_std : float, default=sqrt(2) and 0.1
        Standard deviations of all weights and biases.
        A value of 0 or None has no logarithm and stays fixed.
    W_std_bounds, b_std_bounds : pair of floats or "fixed", default=(0.1, 10) and (0.001, 10)
        Range of the search; it goes over the logarithms.
    get : {"ntk", "nngp"}, default="ntk"
        With "nngp" the Gaussian process is the prior of an infinitely wide Bayesian network.
    threads : int, default=None
        See `ntkcore.kernel`.

    Notes
    -----
    ``theta`` is (log W_std, log b_std) without the fixed ones. Gradients are exact:
    `ntkcore.gradients`.

    References
    ----------
    Lee et al. 2018, "Deep neural networks as Gaussian processes"; Jacot, Gabriel, Hongler 2018,
    "Neural tangent kernel"; Rasmussen & Williams 2006, eq. 5.8 (marginal likelihood).

    Examples
    --------
    >>> from ntkcore.estimators import NTKKernel
    >>> NTKKernel(depth=1, b_std=None)([[1.0, 0.0], [0.0, 1.0]]).round(3)
    array([[2.   , 0.318],
           [0.318, 2.   ]])
    """

    def __init__(
        self,
        net: Layer | None = None,
        *,
        depth: int = 3,
        W_std: float = 2**0.5,
        b_std: float | None = 0.1,
        W_std_bounds: tuple[float, float] | str = (1e-1, 1e1),
        b_std_bounds: tuple[float, float] | str = (1e-3, 1e1),
        get: str = "ntk",
        threads: int | None = None,
    ) -> None:
        self.net = net
        self.depth = depth
        self.W_std = W_std
        self.b_std = b_std
        self.W_std_bounds = W_std_bounds
        self.b_std_bounds = b_std_bounds
        self.get = get
        self.threads = threads

    @property
    def hyperparameter_W_std(self) -> Any:  # noqa: N802
        """W_std, its range, and whether it is fixed."""
        return self._hyperparameter("W_std", self.W_std_bounds)

    @property
    def hyperparameter_b_std(self) -> Any:
        """b_std, its range, and whether it is fixed."""
        return self._hyperparameter("b_std", self.b_std_bounds)

    def _hyperparameter(self, name: str, bounds: tuple[float, float] | str) -> Any:
        # Fixed where `net` takes its place, and where it has no logarithm.
        fixed = self.net is not None or not getattr(self, name)
        return Hyperparameter(name, "numeric", "fixed" if fixed else bounds)

    def __call__(
        self, X: npt.ArrayLike, Y: npt.ArrayLike | None = None, eval_gradient: bool = False
    ) -> Any:
        """The kernel matrix between the rows of X and Y, from one call of `ntkcore.kernel`.

        Parameters
        ----------
        X, Y : array-like of shapes (n, n_features) and (m, n_features)
            Data. ``Y=None``, or the same object twice, means X:
            half the work and an exact diagonal.
        eval_gradient : bool, default=False
            Also return the gradient with respect to ``theta``; only for ``Y=None``.

        Returns
        -------
        ndarray of shape (n, m), float64; with ``eval_gradient`` followed by one of shape (n, n,
        len(theta)).

        Raises
        ------
        ValueError
            For data or parameters that do not fit, or a gradient with Y.
        """
        if not eval_gradient:
            return self._kernel(X, None if Y is X else Y)
        if Y is not None:
            raise ValueError(
                "the gradient is that of the square matrix K(X, X): leave out Y, or eval_gradient"
            )
        return self._kernel_and_gradient(X)

    def diag(self, X: npt.ArrayLike) -> Array:
        """The diagonal of ``self(X)`` without the matrix, shape (n,),
        of X of shape (n, n_features).
        """
        return cast(Array, kernel_diag(net_of(self), X, kernel_of(self), dtype=np.float64))

    def is_stationary(self) -> bool:
        """False: the kernel depends on the norms of x and x' and the angle between them,
        not on x - x'.
        """
        return False

    def __repr__(self) -> str:
        if self.net is not None:
            return f"{type(self).__name__}({self.net!r})"
        b_std = "None" if self.b_std is None else f"{self.b_std:.3g}"
        return f"{type(self).__name__}(depth={self.depth}, W_std={self.W_std:.3g}, b_std={b_std})"

    def _kernel(self, X: npt.ArrayLike, Y: npt.ArrayLike | None) -> Array:
        return cast(
            Array,
            kernel(net_of(self), X, Y, kernel_of(self), dtype=np.float64, threads=self.threads),
        )

    def _kernel_and_gradient(self, X: npt.ArrayLike) -> tuple[Array, Array]:
        """K (n, n) and dK/dtheta (n, n, len(theta)): d/d log p = p d/dp."""
        free = [
            hyperparameter.name
            for hyperparameter in self.hyperparameters
            if not hyperparameter.fixed
        ]
        if not free:
            K = self._kernel(X, None)
            return K, np.empty((*K.shape, 0))
        K, gradient = kernel_gradient(
            net_of(self), X, None, kernel_of(self), wrt=free, threads=self.threads
        )
        gradient *= [getattr(self, name) for name in free]
        return K, gradient
