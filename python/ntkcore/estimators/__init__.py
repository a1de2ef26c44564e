"""scikit-learn's face: closed-form kernel ridge regression, a kernel object for Gaussian
processes, SVC and others, kernels of lists of graphs, random features and ridge regression on them.

    model = make_pipeline(StandardScaler(), NTKClassifier(depth=3, ridge=1e-3)).fit(X, y)
    process = GaussianProcessRegressor(NTKKernel(depth=2) + WhiteKernel()).fit(X, y)
    machine = SVC(kernel=NTKKernel(Serial(Dense(2**0.5), Relu(), Dense())))
    graphs = make_pipeline(GraphKernel(blocks=2), SVC(kernel="precomputed"))
    large = make_pipeline(NTKFeatures(depth=3, n_components=8192), StreamedRidgeClassifier())

All but the last compute whole kernel matrices by `ntkcore.kernel`, never entry by entry.
"""

try:
    from ntkcore.estimators.features import NNGPFeatures, NTKFeatures
    from ntkcore.estimators.graphs import GraphKernel
    from ntkcore.estimators.kernel_object import NTKKernel
    from ntkcore.estimators.ridge import NTKClassifier, NTKRegressor
    from ntkcore.estimators.streamed import StreamedRidge, StreamedRidgeClassifier
except ModuleNotFoundError as error:
    raise ImportError(
        'ntkcore.estimators needs scikit-learn and SciPy: pip install "ntkcore[sklearn]"'
    ) from error

__all__ = [
    "GraphKernel",
    "NNGPFeatures",
    "NTKClassifier",
    "NTKFeatures",
    "NTKKernel",
    "NTKRegressor",
    "StreamedRidge",
    "StreamedRidgeClassifier",
]
