"""neural-tangents' ``predict``: a script changes its import and runs.

    from ntkcore import predict
    predict_fn = predict.gradient_descent_mse_ensemble(kernel_fn, x_train, y_train, diag_reg=1e-4)
    mean, covariance = predict_fn(t=100.0, x_test=x_test, get="ntk", compute_cov=True)

Names, order and defaults of arguments, shapes and what ``get`` gives are those of neural-tangents
0.6.5 (Novak et al. 2020; Lee et al. 2019); NumPy in, NumPy out, float64 inside and out. Three
things are better than there: eigenvalues at rounding's level are exactly 0, so that singular
kernels give finite numbers; ``t`` may be in any order; one eigendecomposition serves all times.
Kernels of several axes come in neural-tangents' order, (X, X, Y, Y, …).

A matrix that is not symmetric, or clearly not positive semidefinite,
is refused with a ValueError by all functions.
"""

from ntkcore.predict.closed import gradient_descent_mse, max_learning_rate
from ntkcore.predict.ensemble import gradient_descent_mse_ensemble
from ntkcore.predict.inference import gp_inference
from ntkcore.predict.kernels import Gaussian
from ntkcore.predict.ode import ODEState, gradient_descent

__all__ = [
    "Gaussian",
    "ODEState",
    "gp_inference",
    "gradient_descent",
    "gradient_descent_mse",
    "gradient_descent_mse_ensemble",
    "max_learning_rate",
]
