"""How lazy a network is: what its training moves of parameters, features and function.

Chizat et al. 2019 (laziness), Fort et al. 2020 (linearised from time t), Geiger et al. 2020.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.engine.inputs import real_array
from ntkcore.finite.arrays import Parameters, as_tensor, batches, numpy, trainable
from ntkcore.finite.comparisons import nmse, rms
from ntkcore.finite.empirical import empirical_ntk, features
from ntkcore.finite.functional import as_function, check_functional, jvp, outputs_of, pull_back
from ntkcore.finite.linearized import Linearized
from ntkcore.finite.modules import Affine

Array = npt.NDArray[Any]

ROWS = 1024  # of a forward pass without gradients


# --- parameters and features


def parameter_movement(
    module_t: Module, module_0: Module | Parameters, *, relative: bool = True
) -> float:
    """||w_t - w_0||/||w_0|| over the trainable parameters.

    The absolute movement does not shrink with the width, the relative one does.

    Parameters
    ----------
    module_t : torch.nn.Module
        The module now.
    module_0 : torch.nn.Module or mapping of str to tensor
        Before (a deep copy), or its parameters by name.
    relative : bool, default=True
        False: ||w_t - w_0||.

    Returns
    -------
    float
    """
    after = trainable(module_t)
    if not isinstance(module_0, (Module, Mapping)):
        raise TypeError(
            f"module_0 must be a module, or its parameters by name, not {type(module_0).__name__}"
        )
    start = dict(module_0.named_parameters()) if isinstance(module_0, Module) else module_0
    before = trainable(module_t, start)
    moved = math.sqrt(
        sum(float(((after[name] - p).double() ** 2).sum()) for name, p in before.items())
    )
    return (
        moved / math.sqrt(sum(float((p.double() ** 2).sum()) for p in before.values()))
        if relative
        else moved
    )


def feature_movement(module_t: Module, module_0: Module, x: Any) -> float:
    """||phi_t(x) - phi_0(x)||/||phi_0(x)|| of the last hidden features (n, width).

    Parameters
    ----------
    module_t, module_0 : torch.nn.Module
        The module now, and before (a deep copy).
    x : array_like or tensor of shape (n, ...)
        Samples.

    Returns
    -------
    float
    """
    before = features(module_0, x).astype(np.float64)
    return float(np.linalg.norm(features(module_t, x) - before) / np.linalg.norm(before))


def activations(module: Module, x: Any) -> dict[str, Array]:
    """The output of every affine layer (to_torch's, torch's Linear), as the module gives it.

    Parameters
    ----------
    module : torch.nn.Module
    x : array_like or tensor of shape (n, ...)
        Samples.

    Returns
    -------
    dict
        {layer: ndarray of shape (n, ...)}.
    """
    data = as_tensor(module, x, "x")
    check_functional(module, data)
    caught: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        # A centred network calls a second time.
        return lambda module, given, out: caught.setdefault(name, out)

    handles = [
        layer.register_forward_hook(hook(name))
        for name, layer in module.named_modules()
        if isinstance(layer, (Affine, torch.nn.Linear))
    ]
    try:
        with torch.no_grad():
            outputs_of(module, data)
    finally:
        for handle in handles:
            handle.remove()
    for name, value in caught.items():
        if len(value) != len(data):
            raise ValueError(
                f"the layer {name!r} is not called with all samples at once:"
                f" its outputs are {len(value)}"
            )
    return {name: numpy(value) for name, value in caught.items()}


def activation_movement(
    module_t: Module, module_0: Module, x: Any
) -> dict[str, tuple[float, float]]:
    """RMS of the change, and RMS before, of every affine layer's output: the coordinate check.

    Under the maximal-update parameterization neither depends on the width.

    Parameters
    ----------
    module_t, module_0 : torch.nn.Module
        The module now, and before (a deep copy).
    x : array_like or tensor of shape (n, ...)
        Samples.

    Returns
    -------
    dict
        {layer: (RMS of the change, RMS before)}.

    References
    ----------
    Yang et al. 2022, appendix D.
    """
    after, before = activations(module_t, x), activations(module_0, x)
    return {name: (rms(after[name] - value), rms(value)) for name, value in before.items()}


def linearization_error(module_t: Module, module_0: Module, x: Any) -> float:
    """RMS of f(w_t) - f(w_0) - J(w_0)(w_t - w_0): how far the network has left its tangent plane.

    Parameters
    ----------
    module_t, module_0 : torch.nn.Module
        The module now, and before (a deep copy).
    x : array_like or tensor of shape (n, ...)
        Samples.

    Returns
    -------
    float
    """
    data = as_tensor(module_0, x, "x")
    check_functional(module_0, data)
    start = trainable(module_0)
    moved = {name: p - start[name] for name, p in trainable(module_t).items()}
    f = as_function(module_0)
    squares, count = 0.0, 0
    with torch.no_grad():
        for rows in batches(len(data), ROWS):
            value, change = jvp(functools.partial(f, x=data[rows]), start, moved)
            left = module_t(data[rows]).reshape(value.shape) - value - change
            squares += float((left.double() ** 2).sum())
            count += left.numel()
    return math.sqrt(squares / count)


@dataclass(frozen=True)
class LinearizedError:
    """Relative squared errors (`nmse`), training and test,
    of the network now and of it linearised from now on.
    """

    network_train: float
    network_test: float
    linearized_train: float
    linearized_test: float


def linearized_error(
    module: Module,
    x: Any,
    y: Any,
    x_test: Any,
    y_test: Any,
    *,
    time: float = math.inf,
    **options: Any,
) -> LinearizedError:
    """Is what the kernel has learned by now enough? The network linearised here,
    trained from here on.

    Where the linearised error is far below the network's,
    the rest of training needs no more features.

    Parameters
    ----------
    module : torch.nn.Module
    x, y : array_like or tensor of shape (n, ...)
        Training samples and targets.
    x_test, y_test : array_like or tensor of shape (m, ...)
        Of the test set.
    time : float, default=inf
        For which the linearised network is trained.
    **options
        Those of `Linearized`, such as ``rule`` and ``ridge``.

    Returns
    -------
    LinearizedError

    References
    ----------
    Fort et al. 2020, figure 4.
    """
    linear = Linearized(module, x, y, **options)
    y, y_test = (real_array(v, name) for v, name in ((y, "y"), (y_test, "y_test")))
    now, later = linear.predict([0.0, time], x_test)
    start, end = linear.predict([0.0, time])
    return LinearizedError(nmse(start, y), nmse(now, y_test), nmse(end, y), nmse(later, y_test))


# --- Chizat's criterion


def laziness(
    module: Module, x: Any, y: Any, *, iterations: int = 30, restarts: int = 3, seed: int = 0
) -> float:
    """kappa = ||f - y|| ||D^2 f||/||Df||^2 at the parameters there are;
    lazy where it is far below 1.

    Norms of functions are root mean squares over the samples x,
    norms of derivatives those of operators.
    ||Df||^2 is the empirical NTK's largest eigenvalue over n; ||D^2 f|| = max |D^2 f[u, u]| over
    unit u is approached from below by a shifted power method (Kolda & Mayo 2011). Scaling a centred
    network by alpha divides kappa by alpha. Memory: the full kernel of the samples.

    Parameters
    ----------
    module : torch.nn.Module
    x : array_like or tensor of shape (n, ...)
        Samples.
    y : array_like or tensor of shape (n,) or (n, outputs)
        Targets.
    iterations : int, default=30
        Of the power method.
    restarts : int, default=3
        Random directions that it begins from.
    seed : int, default=0
        Of these.

    Returns
    -------
    float

    References
    ----------
    Chizat et al. 2019, equation 3.
    """
    data = as_tensor(module, x, "x")
    check_functional(module, data)
    own = trainable(module)
    f = as_function(module)
    with torch.no_grad():
        value = f(own, data)
        targets = as_tensor(module, y, "y")
        if len(targets) != len(value) or targets.numel() != value.numel():
            raise ValueError(
                f"y of shape {tuple(targets.shape)} does not fit outputs of shape"
                f" {tuple(value.shape)}"
            )
        targets = targets.reshape(value.shape)
        distance = float(torch.linalg.norm(value - targets)) / math.sqrt(len(data))
    full = empirical_ntk(module, data, outputs="full").astype(np.float64)
    n, _, outputs, _ = full.shape
    kernel = full.transpose(0, 2, 1, 3).reshape(n * outputs, n * outputs)
    slope = float(np.linalg.eigvalsh(kernel)[-1]) / n
    generator = torch.Generator().manual_seed(seed)
    curvature = max(_curvature(f, own, data, iterations, generator) for _ in range(restarts))
    return float(distance * curvature / math.sqrt(n) / slope)


def _curvature(
    f: Any, own: dict[str, Tensor], x: Tensor, iterations: int, generator: torch.Generator
) -> float:
    """max |D^2 f[u, u]| by u <- sum_i r_i D^2 f_i u + |r|^2/2 u, normalised, where r = D^2 f[u, u].

    The shift |r|^2/2 keeps it from swinging between layers (Kolda & Mayo 2011).
    """
    u = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
        for name, p in own.items()
    }
    size = 0.0
    for _ in range(iterations):
        norm = math.sqrt(sum(float((part**2).sum()) for part in u.values()))
        if norm == 0:
            break
        u = {name: part / norm for name, part in u.items()}
        slope = functools.partial(_slope, f, x, u)
        _, r = jvp(slope, own, u)
        size = max(size, float(torch.linalg.norm(r)))
        shift = torch.sum(r**2) / 2
        u = {name: part + shift * u[name] for name, part in pull_back(slope, own, r).items()}
    return size


def _slope(f: Any, x: Tensor, u: dict[str, Tensor], p: Any) -> Tensor:
    """Df(p)[u] on x."""
    return jvp(functools.partial(f, x=x), p, u)[1]
