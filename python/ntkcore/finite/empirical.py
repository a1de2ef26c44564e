"""Empirical kernels of finite networks, block by block in bounded memory.

    K = empirical_ntk(module, x)      # (n, n): sum over parameters of df(x)/dw df(x')/dw

Any torch module will do whose output for a sample depends on its parameters and that sample only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.engine.inputs import free_bytes, size_text
from ntkcore.finite.arrays import Parameters, as_tensor, batches, home, numpy, trainable
from ntkcore.finite.factors import Factors, Maker, jacobian_factors, structured_factors
from ntkcore.finite.functional import as_function, check_functional
from ntkcore.finite.modules import Affine
from ntkcore.finite.networks import FiniteNet, learning_rate_factor

Array = npt.NDArray[Any]

BUDGET = 1 << 30  # bytes that the factors of a pair of blocks may take by themselves
ROWS = 256  # of a forward pass without gradients


def empirical_ntk(
    module: Module,
    x1: Any,
    x2: Any = None,
    *,
    outputs: str = "trace",
    parameters: Parameters | None = None,
    block: int | None = None,
    method: str = "auto",
    scales: Mapping[str, float] | str | None = None,
) -> Array:
    """The tangent kernel of this network: sum over its trainable parameters of df(x)/dw df(x')/dw.

    Parameters
    ----------
    x1, x2
        Samples as the module takes them; ``x2=None`` means ``x1``: one half is computed,
        the other mirrored.
    outputs
        "trace": (n1, n2), the mean over outputs o of the kernel between f_o and f_o, which is what
        converges to `ntkcore.kernel`; "full": (n1, n2, outputs, outputs).
    parameters
        A mapping from names, to linearise there; by default the module's own.
        Only those that require gradients count.
    block
        Samples at a time; by default as many as fit into 1 GiB of Jacobians,
        or half of the memory that is free.
    method
        "structured" (fully connected modules made by `to_torch`: Jacobians of weights stay outer
        products, far faster), "jacobian" (any module, torch.func), or "auto".
    scales
        A factor for each parameter's share by name; "sgd": their learning rates in units of the
        global one, which makes the kernel that gradient descent with `parameter_groups` follows;
        None: 1.

    Returns
    -------
    ndarray of the module's dtype.

    Raises
    ------
    ValueError, TypeError
        For a module that is no function of its parameters and one sample (batch normalisation or
        dropout in training mode), and arguments that do not fit.
    MemoryError
        If not even one sample's Jacobian, or not the result, would fit.

    References
    ----------
    Jacot et al. 2018; Novak et al. 2022 (structured derivatives, implicit differentiation).
    """
    if outputs not in ("trace", "full"):
        raise ValueError(f"outputs must be 'trace' or 'full', not {outputs!r}")
    a = as_tensor(module, x1, "x1")
    b = None if x2 is None else as_tensor(module, x2, "x2")
    own = trainable(module, parameters)
    for data in (a,) if b is None else (a, b):
        check_functional(module, data)
    structured = _structured(module, method)
    make = structured_factors if structured else jacobian_factors
    maker = make(module, own, share_scales(module, own, scales))
    count = output_count(module, own, a)
    size = _block_size(_bytes_a_sample(module, own, a, count, structured), a, block)
    shape = (len(a), len(a if b is None else b)) + ((count, count) if outputs == "full" else ())
    _check_result(shape, home(module))
    return _fill(maker, a, b, size, torch.zeros(shape, dtype=home(module).dtype), outputs, count)


def _structured(module: Module, method: str) -> bool:
    if method not in ("auto", "structured", "jacobian"):
        raise ValueError(f"method must be 'auto', 'structured' or 'jacobian', not {method!r}")
    possible = isinstance(module, FiniteNet) and all(
        layer.on_vectors for _, layer in module.affine()
    )
    if method == "structured" and not possible:
        raise ValueError(
            "method='structured' is for fully connected modules made by to_torch, and this one is"
            f" a {type(module).__name__} with other layers: leave it at 'auto'"
        )
    return possible and method != "jacobian"


def share_scales(
    module: Module, own: Parameters, given: Mapping[str, float] | str | None
) -> Mapping[str, float]:
    """Every parameter's factor of the kernel; ValueError for names or numbers that do not fit."""
    if given is None:
        return dict.fromkeys(own, 1.0)
    if given == "sgd":
        return {name: learning_rate_factor(module, name) for name in own}
    if (
        isinstance(given, str)
        or set(given) != set(own)
        or not all(0 <= given[name] < np.inf for name in own)
    ):
        raise ValueError(
            "scales must be 'sgd', None, or a factor >= 0 for the name of every trainable parameter"
        )
    return given


def output_count(module: Module, own: Parameters, x: Tensor) -> int:
    """Outputs of one sample."""
    with torch.no_grad():
        return int(as_function(module)(own, x[:1]).shape[1])


def _block_size(need: int, x: Tensor, block: int | None) -> int:
    """Samples at a time, ``need`` bytes each;
    MemoryError where not even a pair of single ones fits.
    """
    if block is not None and (isinstance(block, bool) or block < 1):
        raise ValueError(f"block must be a positive number of samples, not {block!r}")
    free = free_bytes() if x.device.type == "cpu" else torch.cuda.mem_get_info(x.device)[0]
    wanted = block or 1
    if free is not None and 2 * wanted * need > free:
        raise MemoryError(
            f"the Jacobians of two blocks of {wanted} sample(s) need"
            f" {size_text(2 * wanted * need)}, but {size_text(free)} are free: take"
            f" {'a smaller block' if wanted > 1 else 'ntk_vector_product'}, freeze some of the"
            " parameters, or use float32"
        )
    budget = BUDGET if free is None else min(BUDGET, free // 2)
    return int(block or max(1, min(len(x), budget // (2 * need))))


def _bytes_a_sample(
    module: Module, own: Parameters, x: Tensor, count: int, structured: bool
) -> int:
    """Of a Jacobian and of what making it needs: inputs and derivatives of layers,
    or twice all parameters.
    """
    item = home(module).element_size()
    if structured and isinstance(module, FiniteNet):
        return int(
            item
            * (x[0].numel() + sum((2 + count) * len(layer.weight) for _, layer in module.affine()))
        )
    return int(item * 2 * count * sum(p.numel() for p in own.values()))


def _check_result(shape: tuple[int, ...], like: Tensor) -> None:
    need, free = int(np.prod(shape, dtype=object)) * like.element_size(), free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"the kernel of shape {shape} needs {size_text(need)}, but {size_text(free)} are free:"
            " use fewer samples, outputs='trace', or ntk_vector_product"
        )


def _fill(
    maker: Maker, a: Tensor, b: Tensor | None, size: int, result: Tensor, outputs: str, count: int
) -> Array:
    """Block rows keep their factors; the columns' are made again for every row."""
    for rows in batches(len(a), size):
        left = maker(a[rows])
        for cols in batches(len(a if b is None else b), size):
            if b is None and cols.start > rows.start:
                break
            same = b is None and cols.start == rows.start
            right = left if same else maker((a if b is None else b)[cols])
            part = _contract(left, right, outputs, count)
            result[rows, cols] = part
            if b is None and not same:
                result[cols, rows] = (
                    part.transpose(0, 1).transpose(-1, -2) if outputs == "full" else part.T
                )
    if b is None and outputs == "trace":
        result = (result + result.T) / 2  # equal up to the order of sums
    return numpy(result)


def _contract(left: Factors, right: Factors, outputs: str, count: int) -> Tensor:
    if outputs == "full":
        parts = (left[name].full(right[name]) for name in left)
        return sum(parts).cpu()
    traces = (left[name].trace(right[name]) for name in left)
    return sum(traces).cpu() / count


def features(module: Module, x: Any, *, parameters: Parameters | None = None) -> Array:
    """The last hidden layer's features: what the last affine layer (torch's Linear too) is handed.

    Parameters
    ----------
    module : torch.nn.Module
    x : array_like or tensor of shape (n, ...)
        Samples.
    parameters : mapping of str to tensor, optional
        By name; by default the module's own.

    Returns
    -------
    ndarray of shape (n, width)

    Raises
    ------
    ValueError
        For a module without such a layer.
    """
    return numpy(_features(module, as_tensor(module, x, "x"), parameters)[0])


def empirical_nngp(
    module: Module, x1: Any, x2: Any = None, *, parameters: Parameters | None = None
) -> Array:
    """The covariance of the outputs over new read-outs, given the features phi.

    W_std^2/fan-in phi phi'^T + b_std^2. In every parameterization it is that of the NTK
    parameterization's read-out, without alpha, and so converges to ``ntkcore.kernel(net, x1, x2,
    "nngp")``. Of other modules: phi phi'^T/fan-in.

    Parameters
    ----------
    module : torch.nn.Module
    x1, x2 : array_like or tensor of shapes (n1, ...) and (n2, ...)
        Samples; by default x2 is x1.
    parameters : mapping of str to tensor, optional
        By name; by default the module's own.

    Returns
    -------
    ndarray of shape (n1, n2)

    Raises
    ------
    ValueError
        For a module without an affine layer.

    References
    ----------
    Lee et al. 2018, equation 5.
    """
    a, layer = _features(module, as_tensor(module, x1, "x1"), parameters)
    b = a if x2 is None else _features(module, as_tensor(module, x2, "x2"), parameters)[0]
    weight, bias = getattr(layer, "nngp", (1 / a.shape[1], 0.0))
    return numpy(weight * a @ b.T + bias)


def _features(module: Module, x: Tensor, parameters: Parameters | None) -> tuple[Tensor, Module]:
    layer = readout(module)
    check_functional(module, x)
    caught: list[Tensor] = []
    own = {} if parameters is None else {name: p.detach() for name, p in parameters.items()}
    found = []
    handle = layer.register_forward_hook(lambda module, given, out: caught.append(given[0]))
    try:
        with torch.no_grad():
            for rows in batches(len(x), ROWS):
                caught.clear()
                torch.func.functional_call(module, own, (x[rows],))
                _check_calls(module, caught, len(x[rows]))
                found.append(caught[0].flatten(1))
    finally:
        handle.remove()
    return torch.cat(found), layer


def _check_calls(module: Module, caught: list[Tensor], count: int) -> None:
    """ValueError unless the read-out was handed all samples, once (a centred network's twice)."""
    if (
        not caught
        or len(caught[0]) != count
        or (len(caught) > 1 and not isinstance(module, FiniteNet))
    ):
        raise ValueError(
            f"{type(module).__name__} has no features: its last affine layer is called"
            f" {len(caught)} times for {count} samples, and must be once, with all of them"
        )


def readout(module: Module) -> Any:
    """The last affine layer: of `to_torch`'s, or a torch Linear; ValueError where there is none."""
    found = [layer for layer in module.modules() if isinstance(layer, (Affine, torch.nn.Linear))]
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no affine layer (torch.nn.Linear) whose inputs could be"
            " features"
        )
    return found[-1]
