"""Closed-form kernel ridge regression, and classification by it."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import gen_batches, validation

from ntkcore.engine.kernels import kernel
from ntkcore.engine.packing import of_one_size
from ntkcore.estimators.models import (
    classification_data,
    kernel_of,
    net_of,
    regression_data,
    samples_of,
    takes_graphs,
)
from ntkcore.linalg.cholesky import least_norm
from ntkcore.linalg.classes import class_targets, labels_of
from ntkcore.linalg.fitting import fit
from ntkcore.linalg.noise import RidgeWarning, noise_floor
from ntkcore.linalg.solve import LARGEST_DENSE
from ntkcore.specs.layers import Layer

Array = npt.NDArray[Any]
BATCH_ENTRIES = 2**26  # of a kernel matrix that `predict` holds at a time


class _NTKRidge(BaseEstimator):
    """Kernel ridge regression in closed form; see its two faces."""

    def __init__(
        self,
        net: Layer | None = None,
        *,
        depth: int = 3,
        W_std: float = 2**0.5,
        b_std: float | None = 0.1,
        ridge: float = 1e-3,
        get: str = "ntk",
        solver: str = "auto",
        n_landmarks: int | None = None,
        dtype: npt.DTypeLike | None = None,
        threads: int | None = None,
    ) -> None:
        self.net = net
        self.depth = depth
        self.W_std = W_std
        self.b_std = b_std
        self.ridge = ridge
        self.get = get
        self.solver = solver
        self.n_landmarks = n_landmarks
        self.dtype = dtype
        self.threads = threads

    def _kernel(self, X: Array, Y: Array | None = None) -> Array:
        if Y is not None and takes_graphs(net_of(self)):
            X, Y = of_one_size(X, Y)
        return cast(
            Array,
            kernel(net_of(self), X, Y, kernel_of(self), dtype=self.dtype, threads=self.threads),
        )

    def _solve(self, X: Array, targets: Array, sample_weight: npt.ArrayLike | None) -> Array:
        """Dual coefficients of `X_fit_`, which it sets: the samples, or landmarks among them."""
        self._check_ridge()
        dense = self.solver == "cholesky" or (self.solver == "auto" and len(X) <= LARGEST_DENSE)
        if dense and self.n_landmarks is None:
            self.X_fit_ = X
            return self._solve_dual(X, targets, sample_weight)
        if sample_weight is not None:
            raise ValueError("sample_weight needs solver='cholesky', which solves for all samples")
        model = fit(
            net_of(self),
            X,
            targets,
            self.ridge,
            method=self.solver,
            n_landmarks=self.n_landmarks,
            get=kernel_of(self),
            dtype=self.dtype,
            threads=self.threads,
        )
        self.X_fit_ = model.samples
        return model.coefficients

    def _solve_dual(self, X: Array, targets: Array, sample_weight: npt.ArrayLike | None) -> Array:
        """Dual coefficients, shape (n_samples, n_targets), of targets of the same shape."""
        root = self._root_weights(X, sample_weight)
        K = self._kernel(X)
        if root is None:
            return cast(
                Array, least_norm(K, targets.astype(K.dtype), self._shift(K, 1.0), overwrite=True)
            )
        # min sum_i w_i (f(x_i) - y_i)^2 + shift ||f||^2: the unweighted problem for sqrt(w_i) f and
        # sqrt(w_i) y_i.
        root = root.astype(K.dtype)[:, None]
        shift = self._shift(K, root[:, 0] ** 2)
        K *= root
        K *= root.T
        return cast(
            Array, root * least_norm(K, root * targets.astype(K.dtype), shift, overwrite=True)
        )

    def _check_ridge(self) -> None:
        if not isinstance(self.ridge, Real) or not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(
                "ridge, a multiple of the kernel's mean diagonal, must be finite and >= 0, not"
                f" {self.ridge!r}"
            )

    def _root_weights(self, X: Array, sample_weight: npt.ArrayLike | None) -> Array | None:
        if sample_weight is None:
            return None
        weight = validation._check_sample_weight(sample_weight, X, dtype=np.float64)
        if weight.min() < 0 or weight.max() == 0:
            raise ValueError(
                "sample_weight multiplies squared errors:"
                " none may be negative, and one must be positive"
            )
        return cast(Array, np.sqrt(weight))

    def _shift(self, K: Array, weight: Array | float) -> float:
        """Ridge times the (weighted) mean of K's diagonal."""
        floor = noise_floor(K.dtype, len(K), 1.0)
        if K.dtype == np.float32 and self.ridge < floor:
            warnings.warn(
                f"ridge={self.ridge:g} lies below the rounding error of a float32 kernel of"
                f" {len(K)} samples, about {floor:.1e} of its diagonal:"
                " use dtype='float64' or a larger ridge",
                RidgeWarning,
                stacklevel=4,
            )
        return float(
            self.ridge
            * np.average(K.diagonal().astype(np.float64), weights=np.broadcast_to(weight, len(K)))
        )

    def _output(self, X: npt.ArrayLike) -> Array:
        """f(X) = K(X, X_fit_) dual_coef_, a batch of rows at a time."""
        validation.check_is_fitted(self)
        x = samples_of(self, X, reset=False)
        batches = gen_batches(len(x), max(256, BATCH_ENTRIES // len(self.X_fit_)))
        return np.concatenate(
            [self._kernel(x[rows], self.X_fit_) @ self.dual_coef_ for rows in batches]
        )


class NTKRegressor(MultiOutputMixin, RegressorMixin, _NTKRidge):
    """Regression by the closed-form solution of an infinitely wide network:
    kernel ridge with its NTK or NNGP kernel.

    f(x) = K(x, X) (K(X, X) + ridge tr(K)/n I)^-1 y, for any number of targets from one
    factorisation. Targets are taken as they are: centre them if their mean is large, e.g. by
    TransformedTargetRegressor. Where K + ridge is singular to working precision (duplicates with
    ridge 0), the inverse is the pseudo-inverse; no warning is given.

    Parameters
    ----------
    net : Layer, default=None
        The network, e.g. ``Serial(Dense(2**0.5), Relu(), Dense())``. None: ``mlp(depth,
        W_std, b_std)``.
    depth : int, default=3
        Hidden ReLU layers, if ``net`` is None.
    W_std, b_std : float, default=sqrt(2) and 0.1
        Standard deviations of all weights and biases, if ``net`` is None. Without biases
        (``b_std=None``) a ReLU network is homogeneous: f(c x) = c f(x) for c > 0, so that data at
        the origin cannot be fitted.
    ridge : float, default=1e-3
        Regularisation in units of the kernel's mean diagonal: ridge tr(K)/n is added to the
        diagonal of K, as neural-tangents' relative ``diag_reg`` (with weights, the mean is
        weighted). 0 interpolates.
    get : {"ntk", "nngp"}, default="ntk"
        "ntk": the ensemble mean of infinitely wide networks trained by gradient flow (ridge 0, t to
        infinity). "nngp": the posterior mean of the Bayesian network, or of one of which only the
        last layer is trained.
    solver : {"auto", "cholesky", "cg", "askotch", "landmarks"}, default="auto"
        "cholesky" keeps the whole kernel matrix; "auto" is that up to 20 000 samples, beyond them
        what `ntkcore.fit` chooses by the cost of a pair, the memory and an hour of time.
    n_landmarks : int, default=None
        Solves the problem restricted to so many landmarks, for up to 10^6 samples.
    dtype : {"float32", "float64"}, default=None
        Of the kernel and the solution. None: float32 data give float32, all others float64.
    threads : int, default=None
        For the kernel; see `ntkcore.kernel`. Use 1 beneath a search with ``n_jobs``.
        The solver uses BLAS's threads.

    Attributes
    ----------
    X_fit_ : ndarray of shape (n_samples, n_features)
        Training data, or the landmarks among them.
    dual_coef_ : ndarray of shape (n_samples,) or (n_samples, n_targets)
        The solution: f(x) = K(x, X_fit_) dual_coef_.
    n_features_in_, feature_names_in_
        As in all of scikit-learn.

    Notes
    -----
    Fitting takes n^2 values of memory and n^3/6 multiply-adds; the pseudo-inverse 2 n^2 and tens of
    times the work. Neither Cholesky, by blocks, nor LAPACK's syevr limits n below what fits into
    memory.

    References
    ----------
    Jacot, Gabriel, Hongler 2018, "Neural tangent kernel", section 5 (least squares); Lee et al.
    2019, "Wide neural networks of any depth evolve as linear models", section 2; Lee et al. 2018,
    "Deep neural networks as Gaussian processes", eq. 8 (NNGP).

    Examples
    --------
    >>> from ntkcore.estimators import NTKRegressor
    >>> model = NTKRegressor(depth=1, ridge=0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 4.0])
    >>> model.predict([[1.0]]).round(6)
    array([1.])
    """

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> NTKRegressor:
        """Solve for the dual coefficients.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data, best standardised: the kernel sees <x, x'>/n_features.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the squared errors: a weight of 2 is a sample given twice.

        Returns
        -------
        The fitted estimator itself.

        Raises
        ------
        TypeError, ValueError
            For data or parameters that do not fit.
        MemoryError
            If the kernel matrix does not fit into the memory that is free.
        """
        x, targets = regression_data(self, X, y)
        dual = self._solve(x, targets.reshape(len(x), -1), sample_weight)
        self.dual_coef_ = dual.reshape(-1, *targets.shape[1:])
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted targets, shape (n_samples,) or (n_samples, n_targets),
        of X of shape (n_samples, n_features).
        """
        return self._output(X)


class NTKClassifier(ClassifierMixin, _NTKRidge):
    """Classification by kernel ridge regression on the classes,
    with an infinitely wide network's NTK or NNGP kernel.

    Targets are one-hot vectors minus their mean over the C classes, 1[y = k] - 1/C; the predicted
    class is the one with the largest output. (The subtraction leaves that class as it is and makes
    the outputs of all classes sum to 0.) Two classes need a single output, the difference of their
    two, whose targets are +1 and -1.

    There is no ``predict_proba``: the outputs of least squares are no probabilities. Where
    probabilities are needed, ``sklearn.calibration.CalibratedClassifierCV(NTKClassifier())`` learns
    them from held-out samples.

    Parameters
    ----------
    net, depth, W_std, b_std, ridge, get, solver, n_landmarks, dtype, threads
        As for `NTKRegressor`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    X_fit_ : ndarray of shape (n_samples, n_features)
        Training data.
    dual_coef_ : ndarray of shape (n_samples,) for two classes, (n_samples, n_classes) for more
        The solution: ``decision_function(x)`` = K(x, X_fit_) dual_coef_.
    n_features_in_, feature_names_in_
        As in all of scikit-learn.

    Notes
    -----
    Cost, limits and singular matrices: as for `NTKRegressor`.

    References
    ----------
    Arora et al. 2019, "On exact computation with an infinitely wide neural net", section 5
    (regression on centred one-hot targets); Lee et al. 2018, "Deep neural networks as Gaussian
    processes", section 3.

    Examples
    --------
    >>> from ntkcore.estimators import NTKClassifier
    >>> model = NTKClassifier(depth=1).fit([[0.0], [1.0], [4.0], [5.0]], ["a", "a", "b", "b"])
    >>> model.predict([[0.5], [4.5]])
    array(['a', 'b'], dtype='<U1')
    """

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> NTKClassifier:
        """Solve for the dual coefficients.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data, best standardised: the kernel sees <x, x'>/n_features.
        y : array-like of shape (n_samples,)
            Labels of two classes or more: numbers or strings.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the squared errors: a weight of 2 is a sample given twice.

        Returns
        -------
        The fitted estimator itself.

        Raises
        ------
        TypeError, ValueError
            For data or parameters that do not fit.
        MemoryError
            If the kernel matrix does not fit into the memory that is free.
        """
        x, labels = classification_data(self, X, y)
        targets, self.classes_ = class_targets(labels)
        dual = self._solve(x, targets.reshape(len(x), -1), sample_weight)
        self.dual_coef_ = dual.reshape(-1, *targets.shape[1:])
        return self

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Outputs of the regression on the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        ndarray of shape (n_samples,) for two classes
            Positive for ``classes_[1]``, regressed on +1 and -1.
        ndarray of shape (n_samples, n_classes) for more
            Regressed on 1[y = k] - 1/C; every row sums to 0.
        """
        return self._output(X)

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted labels, shape (n_samples,), of X of shape (n_samples, n_features)."""
        return labels_of(self.decision_function(X), self.classes_)
