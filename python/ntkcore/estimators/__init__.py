"""scikit-learn's face: closed-form kernel ridge regression,
and a kernel object for Gaussian processes, SVC and others.

    model = make_pipeline(StandardScaler(), NTKClassifier(depth=3, ridge=1e-3)).fit(X, y)
    process = GaussianProcessRegressor(NTKKernel(depth=2) + WhiteKernel()).fit(X, y)
    machine = SVC(kernel=NTKKernel(Serial(Dense(2**0.5), Relu(), Dense())))

All of them compute whole kernel matrices by `ntkcore.kernel`, never entry by entry.
"""

try:
    from ntkcore.estimators.kernel_object import NTKKernel
    from ntkcore.estimators.ridge import NTKClassifier, NTKRegressor
except ModuleNotFoundError as error:
    raise ImportError(
        'ntkcore.estimators needs scikit-learn and SciPy: pip install "ntkcore[sklearn]"'
    ) from error

__all__ = ["NTKClassifier", "NTKKernel", "NTKRegressor"]
