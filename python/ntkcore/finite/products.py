"""Products of the empirical NTK with vectors, K v = J (J^T v), without the kernel:
for many samples.

Memory grows with the parameters and one block of samples. Each product is a reverse and a forward
pass over all samples (Novak et al. 2022, section 3.2).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.engine.inputs import real_array
from ntkcore.finite.arrays import Parameters, as_tensor, batches, home, numpy, trainable
from ntkcore.finite.empirical import output_count, share_scales
from ntkcore.finite.functional import as_function, check_functional, jvp, pull_back

Array = npt.NDArray[Any]

BLOCK = 256  # samples at a time


def ntk_vector_product(
    module: Module,
    x: Any,
    v: npt.ArrayLike,
    x2: Any = None,
    *,
    parameters: Parameters | None = None,
    block: int = BLOCK,
    scales: Mapping[str, float] | str | None = None,
) -> Array:
    """K(x, x2) v, K being ``empirical_ntk(module, x, x2, outputs="full")``.

    Parameters
    ----------
    module : torch.nn.Module
    x : array_like or tensor of shape (n1, ...)
        Samples of the rows.
    v : array_like of shape (n2, outputs), or (n2,) for modules of one output
    x2 : array_like or tensor of shape (n2, ...), optional
        Samples of the columns; by default x.
    parameters : mapping of str to tensor, optional
        By name; by default the module's own.
    block : int, default=256
        Samples at a time.
    scales : mapping of str to float, or "sgd" or "adam", optional
        As for `empirical_ntk`.

    Returns
    -------
    ndarray of shape (n1, outputs) or (n1,)

    Raises
    ------
    ValueError
        As for `empirical_ntk`, and for a v that does not fit.
    """
    product = _Product(module, x, x2, parameters, block, scales)
    given = real_array(v, "v")
    if given.shape != (product.n2, product.outputs) and not (
        product.outputs == 1 and given.shape == (product.n2,)
    ):
        raise ValueError(f"v must have shape ({product.n2}, {product.outputs}), not {given.shape}")
    result = product(given.reshape(product.n2, product.outputs))
    return result[:, 0] if given.ndim == 1 else result


def ntk_operator(
    module: Module,
    x: Any,
    x2: Any = None,
    *,
    parameters: Parameters | None = None,
    block: int = BLOCK,
    scales: Mapping[str, float] | str | None = None,
) -> Any:
    """K(x, x2) as SciPy's LinearOperator, with sample-major rows.

    For `ntkcore.dynamics.leading_modes`, for example.

    Parameters
    ----------
    module, x, x2, parameters, block, scales
        As for `ntk_vector_product`.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator of shape (n1 * outputs, n2 * outputs)

    Raises
    ------
    ImportError
        Without SciPy.
    """
    try:
        from scipy.sparse.linalg import LinearOperator
    except ImportError as error:
        raise ImportError('an operator needs SciPy: pip install "ntkcore[sklearn]"') from error
    there = _Product(module, x, x2, parameters, block, scales)
    back = there if x2 is None else _Product(module, x2, x, parameters, block, scales)

    def flat(product: _Product) -> Any:
        return lambda v: product(np.reshape(v, (product.n2, product.outputs))).reshape(-1)

    shape = (there.n1 * there.outputs, there.n2 * there.outputs)
    return LinearOperator(shape, matvec=flat(there), rmatvec=flat(back), dtype=there.dtype)


class _Product:
    """V (n2, outputs) to K V (n1, outputs)."""

    def __init__(
        self,
        module: Module,
        x: Any,
        x2: Any,
        parameters: Parameters | None,
        block: int,
        scales: Any,
    ) -> None:
        if isinstance(block, bool) or block < 1:
            raise ValueError(f"block must be a positive number of samples, not {block!r}")
        self.left = as_tensor(module, x, "x")
        self.right = self.left if x2 is None else as_tensor(module, x2, "x2")
        for data in (self.left,) if x2 is None else (self.left, self.right):
            check_functional(module, data)
        self.f, self.parameters, self.block = (
            as_function(module),
            trainable(module, parameters),
            block,
        )
        self.scales = share_scales(module, self.parameters, scales)
        self.outputs = output_count(module, self.parameters, self.left)
        self.n1, self.n2 = len(self.left), len(self.right)
        self.dtype = numpy(home(module)).dtype

    def __call__(self, v: Array) -> Array:
        weights = torch.as_tensor(np.ascontiguousarray(v)).to(next(iter(self.parameters.values())))
        direction = self._pull_back(weights)
        parts = [self._push(self.left[rows], direction) for rows in batches(self.n1, self.block)]
        return numpy(torch.cat(parts))

    def _pull_back(self, v: Tensor) -> dict[str, Tensor]:
        """J(x2)^T v, each parameter's share scaled."""
        total = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        for rows in batches(self.n2, self.block):
            shares = pull_back(
                functools.partial(self.f, x=self.right[rows]), self.parameters, v[rows]
            )
            for name, share in shares.items():
                total[name] += self.scales[name] * share
        return total

    def _push(self, x: Tensor, direction: dict[str, Tensor]) -> Tensor:
        """J(x) direction."""
        return jvp(functools.partial(self.f, x=x), self.parameters, direction)[1]
