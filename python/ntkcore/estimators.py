"""scikit-learn's face: closed-form kernel ridge regression, and a kernel object for Gaussian processes, SVC and others.

    model = make_pipeline(StandardScaler(), NTKClassifier(depth=3, ridge=1e-3)).fit(X, y)
    process = GaussianProcessRegressor(ConstantKernel() * NTKKernel(depth=2) + WhiteKernel()).fit(X, y)
    machine = SVC(kernel=NTKKernel(Serial(Dense(2**0.5), Relu(), Dense())))

All of them compute whole kernel matrices by `ntkcore.kernel`, never entry by entry.
"""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.gradients import kernel_gradient
from ntkcore.engine.inputs import KERNELS, refuse_no_array
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.linalg.symmetry import check_real
from ntkcore.specs.layers import Layer
from ntkcore.specs.nets import mlp

try:
    from scipy.linalg import eigh, get_lapack_funcs
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.gaussian_process.kernels import Hyperparameter, Kernel
    from sklearn.utils import gen_batches, validation
    from sklearn.utils.multiclass import check_classification_targets
except ImportError as error:
    raise ImportError('ntkcore.estimators needs scikit-learn and SciPy: pip install "ntkcore[sklearn]"') from error

__all__ = ["NTKClassifier", "NTKKernel", "NTKRegressor"]

Array = npt.NDArray[Any]

# A function since scikit-learn 1.6, a method with the same arguments before.
_validate_data = getattr(validation, "validate_data", None) or BaseEstimator._validate_data

# Entries of a kernel matrix that `predict` holds at a time.
BATCH_ENTRIES = 2**26
# ||rounding error of K||_2 / mean diag(K), in float32 and divided by sqrt(n).
FLOAT32_NOISE = 4.5e-7


# ---------------------------------------------------------------------------------- what all faces share: their network


def _net(model: Any) -> Layer:
    """The network that a model's parameters describe."""
    if model.net is not None:
        return cast(Layer, model.net)
    depth = int(model.depth) if isinstance(model.depth, Integral) else model.depth  # a grid gives NumPy integers
    return mlp(depth, model.W_std, model.b_std)


def _get(model: Any) -> str:
    if model.get not in KERNELS:
        raise ValueError(f"get must be 'ntk' or 'nngp', not {model.get!r}: {type(model).__name__} uses one kernel")
    return cast(str, model.get)


def _samples(model: Any, X: npt.ArrayLike, **options: Any) -> Any:
    """Validated data: X (n_samples, n_features) or images (n_samples, h, w, channels); (X, y) if ``y`` is an option."""
    refuse_no_array(X, "X")
    dtype = getattr(X, "dtype", None)
    if getattr(dtype, "kind", "f") in "mM":
        raise TypeError(f"X must hold real numbers, not dtype {dtype}: dates have no kernel")
    if "y" in options:
        refuse_no_array(options["y"], "y")
    return _validate_data(model, X, dtype=(np.float64, np.float32), allow_nd=getattr(X, "ndim", 2) == 4, **options)


# --------------------------------------------------------------------------------------------------------- kernel ridge


def _solve(K: Array, targets: Array, shift: float) -> Array:
    """Solves (K + shift I) A = targets, overwriting the symmetric K.

    By Cholesky; if that breaks down or the matrix is singular to working precision, by the pseudo-inverse from its
    eigenvalues above n eps lambda_max, which gives the solution of least norm.
    """
    n, eps = len(K), np.finfo(K.dtype).eps
    K.flat[:: n + 1] += shift
    diagonal = K.diagonal().copy()
    a = K.T  # the same matrix in Fortran's order, so that LAPACK works in place
    lange, potrf, pocon, potrs = get_lapack_funcs(("lange", "potrf", "pocon", "potrs"), (a,))
    norm = lange("1", a)
    factor, failed = potrf(a, lower=True, overwrite_a=True, clean=False)
    if not failed and pocon(factor, norm, uplo="L")[0] > eps:
        return cast(Array, potrs(factor, targets, lower=True)[0])
    np.fill_diagonal(a, diagonal)  # potrf left the upper triangle as it was
    # evr, not evd: evd's workspace of 2 n^2 values overflows LAPACK's 32-bit integers from n = 32767 on.
    values, vectors = eigh(a, lower=False, driver="evr", overwrite_a=True, check_finite=False)
    kept = values > n * eps * values[-1]
    modes = vectors.T @ targets
    modes[kept] /= values[kept, None]
    modes[~kept] = 0
    return cast(Array, vectors @ modes)


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
        dtype: npt.DTypeLike | None = None,
        threads: int | None = None,
    ) -> None:
        self.net = net
        self.depth = depth
        self.W_std = W_std
        self.b_std = b_std
        self.ridge = ridge
        self.get = get
        self.dtype = dtype
        self.threads = threads

    def _kernel(self, X: Array, Y: Array | None = None) -> Array:
        return cast(Array, kernel(_net(self), X, Y, _get(self), dtype=self.dtype, threads=self.threads))

    def _solve_dual(self, X: Array, targets: Array, sample_weight: npt.ArrayLike | None) -> Array:
        """Dual coefficients, shape (n_samples, n_targets), of targets of the same shape."""
        self._check_ridge()
        root = self._root_weights(X, sample_weight)
        K = self._kernel(X)
        if root is None:
            return _solve(K, targets.astype(K.dtype), self._shift(K, 1.0))
        # min sum_i w_i (f(x_i) - y_i)^2 + shift ||f||^2: the unweighted problem for sqrt(w_i) f and sqrt(w_i) y_i.
        root = root.astype(K.dtype)[:, None]
        shift = self._shift(K, root[:, 0] ** 2)
        K *= root
        K *= root.T
        return root * _solve(K, root * targets.astype(K.dtype), shift)

    def _check_ridge(self) -> None:
        if not isinstance(self.ridge, Real) or not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(
                f"ridge, a multiple of the kernel's mean diagonal, must be finite and >= 0, not {self.ridge!r}"
            )

    def _root_weights(self, X: Array, sample_weight: npt.ArrayLike | None) -> Array | None:
        if sample_weight is None:
            return None
        weight = validation._check_sample_weight(sample_weight, X, dtype=np.float64)
        if weight.min() < 0 or weight.max() == 0:
            raise ValueError("sample_weight multiplies squared errors: none may be negative, and one must be positive")
        return cast(Array, np.sqrt(weight))

    def _shift(self, K: Array, weight: Array | float) -> float:
        """Ridge times the (weighted) mean of K's diagonal."""
        if K.dtype == np.float32 and self.ridge < FLOAT32_NOISE * math.sqrt(len(K)):
            warnings.warn(
                f"ridge={self.ridge:g} lies below the rounding error of a float32 kernel of {len(K)} samples, "
                f"about {FLOAT32_NOISE * math.sqrt(len(K)):.1e} of its diagonal: use dtype='float64' or a larger ridge",
                stacklevel=4,
            )
        return float(self.ridge * np.average(K.diagonal().astype(np.float64), weights=np.broadcast_to(weight, len(K))))

    def _output(self, X: npt.ArrayLike) -> Array:
        """f(X) = K(X, X_fit_) dual_coef_, a batch of rows at a time."""
        validation.check_is_fitted(self)
        x = _samples(self, X, reset=False)
        batches = gen_batches(len(x), max(256, BATCH_ENTRIES // len(self.X_fit_)))
        return np.concatenate([self._kernel(x[rows], self.X_fit_) @ self.dual_coef_ for rows in batches])


class NTKRegressor(MultiOutputMixin, RegressorMixin, _NTKRidge):
    """Regression by the closed-form solution of an infinitely wide network: kernel ridge with its NTK or NNGP kernel.

    f(x) = K(x, X) (K(X, X) + ridge tr(K)/n I)^-1 y, for any number of targets from one factorisation. Targets are
    taken as they are: centre them if their mean is large, e.g. by TransformedTargetRegressor. Where K + ridge is
    singular to working precision (duplicates with ridge 0), the inverse is the pseudo-inverse; no warning is given.

    Parameters
    ----------
    net : Layer, default=None
        The network, e.g. ``Serial(Dense(2**0.5), Relu(), Dense())``. None: ``mlp(depth, W_std, b_std)``.
    depth : int, default=3
        Hidden ReLU layers, if ``net`` is None.
    W_std, b_std : float, default=sqrt(2) and 0.1
        Standard deviations of all weights and biases, if ``net`` is None. Without biases (``b_std=None``) a ReLU
        network is homogeneous: f(c x) = c f(x) for c > 0, so that data at the origin cannot be fitted.
    ridge : float, default=1e-3
        Regularisation in units of the kernel's mean diagonal: ridge tr(K)/n is added to the diagonal of K, as
        neural-tangents' relative ``diag_reg`` (with weights, the mean is weighted). 0 interpolates.
    get : {"ntk", "nngp"}, default="ntk"
        "ntk": the ensemble mean of infinitely wide networks trained by gradient flow (ridge 0, t to infinity).
        "nngp": the posterior mean of the Bayesian network, or of one of which only the last layer is trained.
    dtype : {"float32", "float64"}, default=None
        Of the kernel and the solution. None: float32 data give float32, all others float64.
    threads : int, default=None
        For the kernel; see `ntkcore.kernel`. Use 1 beneath a search with ``n_jobs``. The solver uses BLAS's threads.

    Attributes
    ----------
    X_fit_ : ndarray of shape (n_samples, n_features)
        Training data.
    dual_coef_ : ndarray of shape (n_samples,) or (n_samples, n_targets)
        The solution: f(x) = K(x, X_fit_) dual_coef_.
    n_features_in_, feature_names_in_
        As in all of scikit-learn.

    Notes
    -----
    Fitting takes n^2 values of memory and n^3/6 multiply-adds; the pseudo-inverse 2 n^2 and tens of times the work.
    Neither of LAPACK's routines, potrf and syevr, limits n below what fits into memory.

    References
    ----------
    Jacot, Gabriel, Hongler 2018, "Neural tangent kernel", section 5 (least squares); Lee et al. 2019, "Wide neural
    networks of any depth evolve as linear models", section 2; Lee et al. 2018, "Deep neural networks as
    Gaussian processes", eq. 8 (NNGP).

    Examples
    --------
    >>> from ntkcore.estimators import NTKRegressor
    >>> NTKRegressor(depth=1, ridge=0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 4.0]).predict([[1.0]]).round(6)
    array([1.])
    """

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> NTKRegressor:
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
        x, targets = _samples(self, X, y=y, multi_output=True, y_numeric=True)
        check_real(targets, "y")  # scikit-learn reads None as NaN
        self.dual_coef_ = self._solve_dual(x, targets.reshape(len(x), -1), sample_weight).reshape(targets.shape)
        self.X_fit_ = x
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted targets, shape (n_samples,) or (n_samples, n_targets), of X of shape (n_samples, n_features)."""
        return self._output(X)


class NTKClassifier(ClassifierMixin, _NTKRidge):
    """Classification by kernel ridge regression on the classes, with an infinitely wide network's NTK or NNGP kernel.

    Targets are one-hot vectors minus their mean over the C classes, 1[y = k] - 1/C; the predicted class is the one with
    the largest output. (The subtraction leaves that class as it is and makes the outputs of all classes sum to 0.) Two
    classes need a single output, the difference of their two, whose targets are +1 and -1.

    There is no ``predict_proba``: the outputs of least squares are no probabilities. Where probabilities are needed,
    ``sklearn.calibration.CalibratedClassifierCV(NTKClassifier())`` learns them from held-out samples.

    Parameters
    ----------
    net, depth, W_std, b_std, ridge, get, dtype, threads
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
    Arora et al. 2019, "On exact computation with an infinitely wide neural net", section 5 (regression on centred
    one-hot targets); Lee et al. 2018, "Deep neural networks as Gaussian processes", section 3.

    Examples
    --------
    >>> from ntkcore.estimators import NTKClassifier
    >>> NTKClassifier(depth=1).fit([[0.0], [1.0], [4.0], [5.0]], ["a", "a", "b", "b"]).predict([[0.5], [4.5]])
    array(['a', 'b'], dtype='<U1')
    """

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> NTKClassifier:
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
        x, labels = _samples(self, X, y=y)
        check_classification_targets(labels)
        labels = validation.column_or_1d(labels, warn=True)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]}): a classifier needs two or more")
        targets = 2.0 * codes[:, None] - 1 if count == 2 else np.eye(count)[codes] - 1 / count
        dual = self._solve_dual(x, targets, sample_weight)
        self.dual_coef_ = dual[:, 0] if count == 2 else dual
        self.X_fit_ = x
        return self

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Outputs of the regression on the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        ndarray of shape (n_samples,) for two classes: positive for ``classes_[1]``, regressed on +1 and -1.
        ndarray of shape (n_samples, n_classes) for more: regressed on 1[y = k] - 1/C; every row sums to 0.
        """
        return self._output(X)

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted labels, shape (n_samples,), of X of shape (n_samples, n_features)."""
        outputs = self.decision_function(X)
        winners = outputs.argmax(axis=1) if outputs.ndim == 2 else (outputs > 0).astype(int)
        return cast(Array, self.classes_[winners])


# ---------------------------------------------------------------------------------------------------- the kernel object


class NTKKernel(Kernel):
    """An infinitely wide network's kernel as scikit-learn's kernel object.

    For GaussianProcessRegressor and GaussianProcessClassifier, alone or in sums and products with other kernels. The
    same object works as ``kernel=`` of SVC, SVR, KernelRidge, Nystroem, KernelPCA and of ``pairwise_kernels``: they
    recognise kernel objects and ask for whole matrices, whereas an ordinary function would be called for every pair.
    All arithmetic is in float64.

    Parameters
    ----------
    net : Layer, default=None
        A fixed network: no hyperparameters (multiply by ``ConstantKernel`` to learn a scale). None: a ReLU network
        ``mlp(depth, W_std, b_std)``, whose W_std and b_std are hyperparameters.
    depth : int, default=3
        Hidden layers, if ``net`` is None.
    W_std, b_std : float, default=sqrt(2) and 0.1
        Standard deviations of all weights and biases. A value of 0 or None has no logarithm and stays fixed.
    W_std_bounds, b_std_bounds : pair of floats or "fixed", default=(0.1, 10) and (0.001, 10)
        Range of the search; it goes over the logarithms.
    get : {"ntk", "nngp"}, default="ntk"
        With "nngp" the Gaussian process is the prior of an infinitely wide Bayesian network.
    threads : int, default=None
        See `ntkcore.kernel`.

    Notes
    -----
    ``theta`` is (log W_std, log b_std) without the fixed ones. Gradients are exact: `ntkcore.gradients`.

    References
    ----------
    Lee et al. 2018, "Deep neural networks as Gaussian processes"; Jacot, Gabriel, Hongler 2018, "Neural tangent
    kernel"; Rasmussen & Williams 2006, eq. 5.8 (marginal likelihood).

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
        absent = self.net is not None or not getattr(self, name)  # not in use, or without a logarithm
        return Hyperparameter(name, "numeric", "fixed" if absent else bounds)

    def __call__(self, X: npt.ArrayLike, Y: npt.ArrayLike | None = None, eval_gradient: bool = False) -> Any:
        """The kernel matrix between the rows of X and Y, from one call of `ntkcore.kernel`.

        Parameters
        ----------
        X, Y : array-like of shapes (n, n_features) and (m, n_features)
            Data. ``Y=None``, or the same object twice, means X: half the work and an exact diagonal.
        eval_gradient : bool, default=False
            Also return the gradient with respect to ``theta``; only for ``Y=None``.

        Returns
        -------
        ndarray of shape (n, m), float64; with ``eval_gradient`` followed by one of shape (n, n, len(theta)).

        Raises
        ------
        ValueError
            For data or parameters that do not fit, or a gradient with Y.
        """
        if not eval_gradient:
            return self._kernel(X, None if Y is X else Y)
        if Y is not None:
            raise ValueError("the gradient is that of the square matrix K(X, X): leave out Y, or eval_gradient")
        return self._kernel_and_gradient(X)

    def diag(self, X: npt.ArrayLike) -> Array:
        """The diagonal of ``self(X)`` without the matrix, shape (n,), of X of shape (n, n_features)."""
        return cast(Array, kernel_diag(_net(self), X, _get(self), dtype=np.float64))

    def is_stationary(self) -> bool:
        """False: the kernel depends on the norms of x and x' and the angle between them, not on x - x'."""
        return False

    def __repr__(self) -> str:
        if self.net is not None:
            return f"{type(self).__name__}({self.net!r})"
        b_std = "None" if self.b_std is None else f"{self.b_std:.3g}"
        return f"{type(self).__name__}(depth={self.depth}, W_std={self.W_std:.3g}, b_std={b_std})"

    def _kernel(self, X: npt.ArrayLike, Y: npt.ArrayLike | None) -> Array:
        return cast(Array, kernel(_net(self), X, Y, _get(self), dtype=np.float64, threads=self.threads))

    def _kernel_and_gradient(self, X: npt.ArrayLike) -> tuple[Array, Array]:
        """K (n, n) and dK/dtheta (n, n, len(theta)): d/d log p = p d/dp."""
        free = [hyperparameter.name for hyperparameter in self.hyperparameters if not hyperparameter.fixed]
        if not free:
            K = self._kernel(X, None)
            return K, np.empty((*K.shape, 0))
        K, gradient = kernel_gradient(_net(self), X, None, _get(self), wrt=free, threads=self.threads)
        gradient *= [getattr(self, name) for name in free]
        return K, gradient
