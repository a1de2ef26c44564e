"""How lazy a network is: what its training moves of kernel, parameters, features and function.

Chizat et al. 2019 (laziness), Fort et al. 2020 (kernel distance and velocity, linearised from time
t), Cristianini et al. 2001 (alignment), Geiger et al. 2020. Norms are Frobenius norms.
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
from ntkcore.finite.empirical import empirical_ntk, features
from ntkcore.finite.functional import as_function, check_functional, jvp, outputs_of, pull_back
from ntkcore.finite.linearized import Linearized
from ntkcore.finite.modules import Affine
from ntkcore.linalg.checks import check_matrix

Array = npt.NDArray[Any]

ROWS = 1024  # of a forward pass without gradients


# --- kernels


def kernel_movement(K_t: npt.ArrayLike, K_0: npt.ArrayLike) -> float:
    """||K_t - K_0||/||K_0||; 0 for a lazy network."""
    after, before = _kernels(K_t, K_0)
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def kernel_distance(K_t: npt.ArrayLike, K_0: npt.ArrayLike) -> float:
    """S = 1 - <K_t, K_0>/(||K_t|| ||K_0||), blind to the kernel's size (Fort et al. 2020,
    equation 2).
    """
    after, before = _kernels(K_t, K_0)
    a, b = after / np.linalg.norm(after), before / np.linalg.norm(before)
    return float(((a - b) ** 2).sum() / 2)  # without cancellation


def kernel_velocity(K_t: npt.ArrayLike, K_s: npt.ArrayLike, dt: float) -> float:
    """S(s, t)/dt, the kernel's distance per unit of time, dt = t - s > 0 (Fort et al. 2020)."""
    if not dt > 0:
        raise ValueError(f"dt must be the time between both kernels, a positive number, not {dt!r}")
    return kernel_distance(K_t, K_s) / dt


def alignment(K: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """<K, y y^T>/(||K|| ||y y^T||), y (n,) or (n, outputs):
    of one output y^T K y/(||K|| ||y||^2).
    """
    kernel = check_matrix(K, "K", (None, None))
    targets = real_array(y, "y")
    if len(kernel) != kernel.shape[1] or targets.shape[:1] != kernel.shape[:1]:
        raise ValueError(
            f"K of shape {kernel.shape} and y of shape {targets.shape} must be (n, n) and (n, …)"
        )
    targets = targets.reshape(len(kernel), -1)
    norm = np.linalg.norm(kernel) * np.linalg.norm(targets.T @ targets)
    if not 0 < norm < math.inf:
        raise ValueError("the alignment needs a kernel and targets that are finite and not 0")
    return float(np.sum(targets * (kernel @ targets)) / norm)


def _kernels(K_t: npt.ArrayLike, K_0: npt.ArrayLike) -> tuple[Array, Array]:
    after, before = real_array(K_t, "K_t"), real_array(K_0, "K_0")
    if after.shape != before.shape:
        raise ValueError(f"the kernels differ in shape: {after.shape} and {before.shape}")
    if not (
        np.isfinite(after).all() and np.isfinite(before).all() and after.any() and before.any()
    ):
        raise ValueError("a kernel holds NaN or infinity, or is 0 everywhere")
    return after, before


# --- parameters and features


def parameter_movement(
    module_t: Module, module_0: Module | Parameters, *, relative: bool = True
) -> float:
    """||w_t - w_0||/||w_0|| over the trainable parameters, or without ``relative`` ||w_t - w_0||.

    ``module_0``: the module before (a deep copy), or its parameters by name. The absolute movement
    does not shrink with the width, the relative one does.
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
    """||phi_t(x) - phi_0(x)||/||phi_0(x)|| of the last hidden features (n, width)."""
    before = features(module_0, x).astype(np.float64)
    return float(np.linalg.norm(features(module_t, x) - before) / np.linalg.norm(before))


def activations(module: Module, x: Any) -> dict[str, Array]:
    """The output of every affine layer (to_torch's, torch's Linear) by its name,
    as the module gives it: (n, …).
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
                f"the layer {name!r} is not called with all samples at once: its outputs are"
                f" {len(value)}"
            )
    return {name: numpy(value) for name, value in caught.items()}


def activation_movement(
    module_t: Module, module_0: Module, x: Any
) -> dict[str, tuple[float, float]]:
    """(RMS of the change, RMS before) of every affine layer's output:
    the coordinate check (Yang et al. 2022, App. D).

    Under the maximal-update parameterization neither depends on the width.
    """
    after, before = activations(module_t, x), activations(module_0, x)
    return {name: (_rms(after[name] - value), _rms(value)) for name, value in before.items()}


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))


# --- the function


def rms_deviation(f: npt.ArrayLike, f_lin: npt.ArrayLike) -> float:
    """RMS over samples and outputs of the difference of two predictions of the same shape."""
    a, b = real_array(f, "f"), real_array(f_lin, "f_lin")
    if a.shape != b.shape:
        raise ValueError(f"the predictions differ in shape: {a.shape} and {b.shape}")
    return _rms(a - b)


def linearization_error(module_t: Module, module_0: Module, x: Any) -> float:
    """RMS of f(w_t) - f(w_0) - J(w_0)(w_t - w_0) on x:
    how far the network has left its tangent plane.
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


def nmse(f: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """||f - y||^2/||y - mean y||^2: 0 is perfect, 1 the best constant."""
    targets, outputs = real_array(y, "y"), real_array(f, "f")
    if outputs.size != targets.size or outputs.shape[:1] != targets.shape[:1]:
        raise ValueError(f"f of shape {outputs.shape} does not fit y of shape {targets.shape}")
    spread = ((targets - targets.mean(axis=0)) ** 2).sum()
    if not spread > 0:
        raise ValueError("the targets are constant: a relative error needs some that differ")
    return float(((outputs.reshape(targets.shape) - targets) ** 2).sum() / spread)


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
    trained for ``time`` from here on.

    ``options``: those of `Linearized`, e.g. ``rule``, ``ridge``. Where the linearised error is far
    below the network's, the rest of training needs no more features (Fort et al. 2020, figure 4).
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

    Norms of functions are root mean squares over the samples x, norms of derivatives those of
    operators. ||Df||^2 is the empirical NTK's largest eigenvalue over n; ||D^2 f|| = max |D^2 f[u,
    u]| over unit u is approached from below by a shifted power method from ``restarts`` random
    directions (Kolda & Mayo 2011). Scaling a centred network by alpha divides kappa by alpha
    (Chizat et al. 2019, equation 3). Memory: the full kernel of the samples.
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
