"""A network behind another, of which the Kernel is known: kernel_fn(Kernel)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.covariances import of_covariances
from ntkcore.specs import layers
from ntkcore.specs.lowering import lower
from ntkcore.specs.program import Builder, Law, Value
from ntkcore.stax.kernel import Kernel

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Given(layers.Layer, abstract=True):
    """Stands for the network before: features of covariance K, tangent kernel ``ntk`` everywhere,
    jointly Gaussian or not.
    """

    gaussian: bool
    ntk: float = 0.0

    def lower(self, builder: Builder, value: layers.Signal) -> Value:
        """K stays; T, which starts at 0, becomes ``ntk``."""
        value = layers.single(self, builder, value)
        width = value.width
        value = replace(builder.affine(value, 1.0, 0.0, 0.0, self.ntk, width), width=width)
        return value if self.gaussian else replace(value, law=Law.OTHER, centred=False)


def values_after(
    net: layers.Layer, kernel: Kernel, names: Sequence[str], options: dict[str, Any]
) -> dict[str, Any]:
    """nngp, ntk, cov1 and cov2, those of ``names``, of a network of vectors behind the kernel's.

    The tangent kernel is affine in that before: T = T_0 + (T_1 - T_0) ntk, T_c that of ntk = c.
    ValueError for a Kernel whose arrays do not fit each other; others as of `ntkcore.kernel`.
    """
    nngp, ntk, cov1, cov2 = _arrays(kernel, "ntk" in names)
    features = kernel.shape1[kernel.channel_axis]

    def run(wanted: Sequence[str], start: float) -> dict[str, Any]:
        whole = layers.Serial(Given(kernel.is_gaussian, start), net)
        program: Any = lower(whole, (features,), wants_ntk="ntk" in wanted)
        return of_covariances(program, nngp, cov1, cov2, wanted, **options)

    found = run([name for name in names if name in ("nngp", "ntk")], 0.0)
    if ntk is not None:
        slope = run(["ntk"], 1.0)["ntk"] - found["ntk"]
        found["ntk"] = found["ntk"] + slope * ntk
    return found


def _arrays(kernel: Kernel, wants_ntk: bool) -> tuple[Matrix, Matrix | None, Matrix, Matrix | None]:
    """nngp, ntk and both variances, checked."""
    if len(kernel.shape1) != 2:
        raise NotImplementedError(
            f"kernel_fn takes a Kernel of vectors, not of outputs of shape {kernel.shape1}: join"
            " the layers with stax.serial and call its kernel_fn on the data"
        )
    n1 = len(kernel.cov1)
    n2 = n1 if kernel.cov2 is None else len(kernel.cov2)
    ntk = None
    if wants_ntk:
        if kernel.ntk is None:
            raise ValueError("the Kernel holds no ntk: ask for 'nngp', or compute it with its ntk")
        ntk = _numbers("ntk", kernel.ntk, (n1, n2))
    cov1, cov2 = (
        None if cov is None else _variances(name, cov, kernel.diagonal_batch)
        for name, cov in (("cov1", kernel.cov1), ("cov2", kernel.cov2))
    )
    assert cov1 is not None
    return _numbers("nngp", kernel.nngp, (n1, n2)), ntk, cov1, cov2


def _variances(name: str, given: Any, diagonal: bool) -> Matrix:
    """Of every sample, from them or from the covariances of all samples."""
    n = len(given)
    cov = _numbers(name, given, (n,) if diagonal else (n, n))
    cov = cov if diagonal else np.diagonal(cov).copy()
    if (cov < 0).any():
        raise ValueError(f"the Kernel's {name} holds variances, which must not be negative")
    return cov


def _numbers(name: str, given: Any, shape: tuple[int, ...]) -> Matrix:
    array = np.ascontiguousarray(given, np.float64)
    if array.shape != shape:
        raise ValueError(f"the Kernel's {name} has shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"the Kernel's {name} holds NaN or infinity")
    return array
