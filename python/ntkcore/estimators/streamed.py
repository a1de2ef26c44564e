"""Ridge regression on features that come batch by batch, and classification by it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.linalg
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import gen_batches, validation
from sklearn.utils.multiclass import unique_labels

from ntkcore.estimators.models import (
    classification_data,
    refuse_large,
    regression_data,
    samples_of,
)
from ntkcore.linalg.cholesky import least_norm
from ntkcore.linalg.classes import coded_targets, labels_of
from ntkcore.linalg.krylov import power_of_two
from ntkcore.linalg.noise import check_ridge

Array = npt.NDArray[Any]
ROWS = 4096  # whose products are summed in the precision of the features
SMALLEST = 2.0**-450  # size of features whose squares are no rounding in float64


class _StreamedRidge(BaseEstimator):
    """Ridge regression from Z^T Z and Z^T Y; see its two faces."""

    classes_: Array
    gram_: Array
    moments_: Array
    n_samples_seen_: int
    _target_shape: tuple[int, ...]
    _solved: tuple[float, Array] | None  # for a ridge

    def __init__(self, *, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    @property
    def coef_(self) -> Array:
        """The solution of all rows so far, shape (n_features,) or (n_features, n_targets)."""
        if not hasattr(self, "gram_"):
            raise AttributeError(f"{type(self).__name__} has no coef_ before fit or partial_fit")
        if self._solved is None or self._solved[0] != self.ridge:
            check_ridge(self.ridge)
            shift = self.ridge * self.gram_.trace() / self.n_samples_seen_
            whole = self.gram_ + self.gram_.T
            whole.flat[:: len(whole) + 1] /= 2
            self._solved = self.ridge, least_norm(whole, self.moments_, shift, overwrite=True)
        return self._solved[1].reshape(-1, *self._target_shape)

    def _fit_anew(self: Any, X: npt.ArrayLike, y: npt.ArrayLike) -> None:
        """Forgets all rows, adds these and solves."""
        check_ridge(self.ridge)
        for name in ("gram_", "moments_", "n_samples_seen_", "classes_"):
            self.__dict__.pop(name, None)
        self.partial_fit(X, y)
        _ = self.coef_

    def _add(self, Z: Array, targets: Array) -> None:
        """Z^T Z, its lower triangle, and Z^T Y go on: products of some rows in the precision of Z
        (syrk), their sums in float64.
        """
        if not hasattr(self, "gram_"):
            width, outputs = Z.shape[1], targets.reshape(len(targets), -1).shape[1]
            refuse_large(f"Z^T Z of {width} features", 16 * width**2, "take fewer features")
            self.gram_, self.moments_ = np.zeros((width, width)), np.zeros((width, outputs))
            self.n_samples_seen_, self._target_shape = 0, targets.shape[1:]
        if targets.shape[1:] != self._target_shape:
            raise ValueError(
                f"y has targets of shape {targets.shape[1:]}, those before had {self._target_shape}"
            )
        unit = power_of_two(Z)
        if not SMALLEST <= unit <= 1 / SMALLEST and Z.any():
            raise ValueError(
                f"X holds features of about {unit:.0e}, whose squares leave the range of float64:"
                " rescale them"
            )
        (syrk,) = scipy.linalg.get_blas_funcs(("syrk",), (Z,))
        for rows in gen_batches(len(Z), ROWS):
            part = np.ascontiguousarray(Z[rows] / Z.dtype.type(unit))
            # Upper in BLAS's column order is lower here; the rest is 0.
            self.gram_ += syrk(1, part.T).T.astype(np.float64, copy=False) * unit**2
            moments = part.T.astype(np.float64) @ targets[rows].reshape(len(part), -1)
            self.moments_ += moments * unit
        self.n_samples_seen_ += len(Z)
        self._solved = None

    def _output(self, Z: npt.ArrayLike) -> Array:
        validation.check_is_fitted(self)
        found = samples_of(self, Z, reset=False)
        unit = found.dtype.type(power_of_two(self.coef_))  # in single precision too
        return cast(Array, found @ (self.coef_ / unit).astype(found.dtype, copy=False) * unit)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "gram_")


class StreamedRidge(MultiOutputMixin, RegressorMixin, _StreamedRidge):
    """Ridge regression that sees its rows once, batch by batch: for random features.

    Minimises |Z w - Y|^2 + shift |w|^2 with shift = ridge tr(Z^T Z)/n: kernel ridge regression
    with K = Z Z^T and a ridge in units of its mean diagonal, as `NTKRegressor`, and like it without
    intercept. Only Z^T Z and Z^T Y are kept.

    Parameters
    ----------
    ridge : float, default=1e-3
        In units of the mean of |z|^2. Where Z^T Z + shift is singular the solution is that of least
        norm.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_features, n_targets)
        The solution for ``ridge`` as it is now, solved for when it is first asked for:
        ``predict`` is Z @ coef_.
    gram_, moments_ : ndarray of shapes (n_features, n_features) and (n_features, n_targets)
        Z^T Z, its lower triangle, and Z^T Y in float64.
    n_samples_seen_ : int
    n_features_in_, feature_names_in_
        As in all of scikit-learn.

    Notes
    -----
    Of float32 features, products of 4096 rows are summed in float32 and the sums of these in
    float64: an error of Z^T Z of some 1e-7 sqrt(4096 n/n_features) of the mean |z|^2 in spectral
    norm, 2e-5 for 60 000 rows of 8192 features. Work n n_features^2 multiply-adds/2, memory 16
    n_features^2 bytes while it is solved.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore.estimators import NTKFeatures, StreamedRidge
    >>> x = np.random.default_rng(0).standard_normal((1000, 5))
    >>> features = NTKFeatures(n_components=500, random_state=0).fit(x[:1])
    >>> model = StreamedRidge()
    >>> for rows in np.split(np.arange(1000), 4):
    ...     model = model.partial_fit(features.transform(x[rows]), x[rows, 0])
    >>> bool(np.abs(model.predict(features.transform(x[:100])) - x[:100, 0]).max() < 0.1)
    True
    """

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> StreamedRidge:
        """Forget all rows, add these and solve.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; float32 ones are multiplied in float32.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        Returns
        -------
        The fitted estimator itself.

        Raises
        ------
        TypeError, ValueError
            For data or a ridge that do not fit.
        """
        self._fit_anew(X, y)
        return self

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> StreamedRidge:
        """Add rows: as `fit`, but those before stay, and ``coef_`` is solved for when it is
        needed.
        """
        check_ridge(self.ridge)
        Z, targets = regression_data(self, X, y, reset=not hasattr(self, "gram_"))
        self._add(Z, targets)
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted targets, shape (n_samples,) or (n_samples, n_targets),
        of X of shape (n_samples, n_features).
        """
        return self._output(X)


class StreamedRidgeClassifier(ClassifierMixin, _StreamedRidge):
    """Classification by `StreamedRidge` on the classes: targets 1[y = k] - 1/C, as `NTKClassifier`.

    Parameters
    ----------
    ridge : float, default=1e-3
        As for `StreamedRidge`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_, gram_, moments_, n_samples_seen_, n_features_in_, feature_names_in_
        As for `StreamedRidge`; of two classes one output, +1 and -1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from ntkcore.estimators import NTKFeatures, StreamedRidgeClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> features = NTKFeatures(n_components=1000, random_state=0)
    >>> model = make_pipeline(features, StreamedRidgeClassifier()).fit(X[:1500], y[:1500])
    >>> bool(model.score(X[1500:], y[1500:]) > 0.9)
    True
    """

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> StreamedRidgeClassifier:
        """Forget all rows, add these and solve.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; float32 ones are multiplied in float32.
        y : array-like of shape (n_samples,)
            Labels of two classes or more: numbers or strings.

        Returns
        -------
        The fitted estimator itself.

        Raises
        ------
        TypeError, ValueError
            For data or a ridge that do not fit.
        """
        self._fit_anew(X, y)
        return self

    def partial_fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None
    ) -> StreamedRidgeClassifier:
        """Add rows: as `fit`, but those before stay, and ``coef_`` is solved for when it is
        needed. ``classes``: all labels there will be, at the first call; by default those of it.
        """
        check_ridge(self.ridge)
        first = not hasattr(self, "gram_")
        Z, labels = classification_data(self, X, y, reset=first)
        known = unique_labels(labels if classes is None else classes) if first else self.classes_
        if len(known) < 2:
            raise ValueError(
                f"y holds one class only ({known[0]}): a classifier needs two or more; of a stream"
                " pass classes= to the first partial_fit"
            )
        if not first and classes is not None and not np.array_equal(unique_labels(classes), known):
            raise ValueError(f"classes are not those of the first call, {known}")
        if not np.isin(labels, known).all():
            raise ValueError(f"y holds labels that are not among the classes {known}")
        self.classes_ = known
        self._add(Z, coded_targets(np.searchsorted(known, labels), len(known)))
        return self

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Outputs of the regression, shape (n_samples,) for two classes (positive for
        ``classes_[1]``), (n_samples, n_classes) for more; X of shape (n_samples, n_features).
        """
        return self._output(X)

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted labels, shape (n_samples,), of X of shape (n_samples, n_features)."""
        return labels_of(self.decision_function(X), self.classes_)
