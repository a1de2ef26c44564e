"""Finite networks from the same spec as the kernels.

    module = to_torch(net, width=1024, input_shape=(784,), alpha=10.0, centred=True)

In the NTK parameterization the module's empirical kernels converge to ``ntkcore.kernel(net, x, x,
("nngp", "ntk"))`` with its width (Jacot et al. 2018); the other parameterizations train otherwise
(Yang & Hu 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.finite import modules
from ntkcore.finite.arrays import check_module
from ntkcore.finite.making import Features, Maker
from ntkcore.finite.parameterizations import ABC, ADAM, SGD, parameterization_of
from ntkcore.specs import activations
from ntkcore.specs import layers as specs
from ntkcore.specs.lowering import lower
from ntkcore.theory.rules import not_negative, positive


class FiniteNet(Module):
    """A finite network: ``alpha * (body(x) - body_0(x))``, the second term only with ``centred``.

    Takes (samples, features), or images (samples, height, width, channels), as the kernels do;
    gives (samples, outputs). Made by `to_torch`.
    """

    def __init__(
        self, spec: specs.Layer, body: Module, abc: ABC, alpha: float, centred: bool, shape: Any
    ) -> None:
        super().__init__()
        self.spec, self.body, self.abc, self.alpha, self.centred = spec, body, abc, alpha, centred
        self.input_shape = shape
        if centred:
            for name, value in body.named_parameters():
                self.register_buffer(_initial(name), value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(samples, outputs)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"made for samples of shape {self.input_shape}, got {tuple(x.shape[1:])}"
            )
        x = channels_first(x)
        f = self.body(x)
        if self.centred:
            start = {
                name: getattr(self, _initial(name)) for name, _ in self.body.named_parameters()
            }
            f = f - torch.func.functional_call(self.body, start, (x,))
        return self.alpha * f

    def affine(self) -> Iterator[tuple[str, modules.Affine]]:
        """Names and modules of the layers with weights, in order."""
        for name, module in self.named_modules():
            if isinstance(module, modules.Affine):
                yield name, module


def _initial(name: str) -> str:
    return "initial_" + name.replace(".", "_")


def channels_first(x: Tensor) -> Tensor:
    """NHWC to NCHW, or the like; vectors stay."""
    return x.movedim(-1, 1)


def to_torch(
    net: specs.Layer,
    width: int,
    *,
    input_shape: Any,
    parameterization: str | ABC = "ntk",
    alpha: float = 1.0,
    centred: bool = False,
    heads: int | None = None,
    seed: int = 0,
    dtype: Any = None,
) -> FiniteNet:
    """A finite network of this spec, its weights drawn by ``seed``.

    Parameters
    ----------
    net
        The spec. Its last layer is a Dense: the outputs, as many as its ``width`` says (1 if it
        says none). W_std and b_std are those of the kernel. Layers that declare a width or channels
        keep it.
    width
        Units, or channels, of all other layers.
    input_shape
        Of one sample: (features,), (height, width, channels), or other axes before the channels.
    parameterization
        "ntk", "standard", "mean_field" (one hidden layer), "mup", or an `ABC`. The spec's own
        ``parameterization`` is that of the infinite kernel and plays no part here.
    heads
        Of every `GlobalSelfAttention`, of width // heads channels of keys and values each. By
        default as its limit wants: one, or with ``linear_scaling=False`` as many as ``width``.
    alpha, centred
        The output is alpha * (f - f_0 if centred), f_0 the network as drawn (Chizat et al. 2019).
    dtype
        torch or NumPy's float32 or float64; by default torch's.

    Raises
    ------
    ValueError, TypeError
        For a spec that has no infinite kernel, or a layer without a finite counterpart:
        the message names it.

    References
    ----------
    Jacot et al. 2018; Chizat et al. 2019; Yang & Hu 2021; Yang et al. 2022.
    """
    shape = _shape(input_shape)
    if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
        raise ValueError(f"width must be a positive number of units, not {width!r}")
    if heads is not None and (
        isinstance(heads, bool) or not isinstance(heads, Integral) or heads < 1
    ):
        raise ValueError(f"heads must be a positive number of heads, not {heads!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 < float(alpha) < math.inf:
        raise ValueError(f"alpha must be a positive finite number, not {alpha!r}")
    lower(net, shape, wants_ntk=False)  # whatever has no kernel ends here, its layer named
    abc = parameterization_of(parameterization)
    _check_depth(net, parameterization)
    start = Features(shape[-1], shape[:-1] or None)
    body = Maker(int(width), abc, heads).network(net, start)
    body.to(torch_dtype(dtype))
    generator = torch.Generator().manual_seed(seed)
    for module in body.modules():
        if isinstance(module, modules.Affine):
            module.draw(generator)
    return FiniteNet(net, body, abc, float(alpha), bool(centred), shape)


def torch_dtype(dtype: Any) -> Any:
    """torch.float32 or torch.float64 from torch's or NumPy's spelling; ValueError for others."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype):
        dtype = {"float32": torch.float32, "float64": torch.float64}.get(
            np.dtype(dtype).name, dtype
        )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be float32 or float64, not {dtype}")
    return dtype


def _shape(given: Any) -> tuple[int, ...]:
    shape = (given,) if isinstance(given, Integral) else tuple(given)
    if not shape or not all(isinstance(n, Integral) and int(n) > 0 for n in shape):
        raise ValueError(
            f"input_shape must be (features,), (height, width, channels) or the like, not {given!r}"
        )
    return tuple(map(int, shape))


def _check_depth(net: specs.Layer, parameterization: str | ABC) -> None:
    depth = sum(isinstance(layer, activations.Activation) for layer in net.walk())
    if parameterization == "mean_field" and depth != 1:
        raise ValueError(
            f"'mean_field' is the limit of one hidden layer, and this network has {depth}: use"
            " 'mup', the same for one and going on to deep ones (Yang & Hu 2021)"
        )


def parameter_groups(
    module: Module,
    lr: float,
    optimizer: str = "sgd",
    *,
    base_width: float = 1.0,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Parameter groups for torch's optimizers, with learning rates by the abc table.

    A layer of width n gets lr (n/base_width)^-c, c being that of SGD or of Adam; of an output
    scaled by alpha it is further divided by alpha^2 (SGD) or alpha (Adam), so that time passes as
    for alpha = 1 (Chizat et al. 2019). AdamW multiplies its weight decay by the layer's learning
    rate; the groups take that back: lr * weight_decay is the same in all layers. Frozen parameters
    are left out; modules not made by `to_torch` have the rate ``lr`` everywhere.

    Parameters
    ----------
    module : torch.nn.Module
    lr : float
        The learning rate.
    optimizer : {"sgd", "adam", "adamw"}, default="sgd"
    base_width : float, default=1
        The width at which all layers have the rate ``lr``.
    weight_decay : float, default=0

    Returns
    -------
    list of dict
        With the keys params, lr, weight_decay and name.

    Raises
    ------
    ValueError
        For another optimizer, and numbers out of range.

    References
    ----------
    Yang & Hu 2021; Yang et al. 2022, table 3.
    """
    check_module(module)
    if optimizer not in SGD + ADAM:
        raise ValueError(f"optimizer must be one of {', '.join(SGD + ADAM)}, not {optimizer!r}")
    positive("lr", lr)
    positive("base_width", base_width)
    not_negative("weight_decay", weight_decay)
    groups = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = learning_rate_factor(module, name, optimizer, base_width)
            decay = weight_decay / rate if optimizer == "adamw" else weight_decay
            groups.append(
                {"params": [parameter], "lr": lr * rate, "weight_decay": decay, "name": name}
            )
    return groups


def learning_rate_factor(
    module: Module, name: str, optimizer: str = "sgd", base_width: float = 1.0
) -> float:
    """The learning rate of the parameter ``name`` in units of the global one;
    1 for modules not made by `to_torch`.
    """
    net = getattr(module, "network", module)  # a linearised network has its network's rates
    name = name if net is module else name.removeprefix("network.")
    if not isinstance(net, FiniteNet):
        return 1.0
    layer = net.get_submodule(name.rpartition(".")[0])
    assert isinstance(layer, modules.Affine)
    bias = name.endswith("bias")
    n, role = (layer.n_bias, "input") if bias else (layer.n, layer.role)
    scale = net.alpha**2 if optimizer in SGD else net.alpha
    width = 1.0 if n == 1 else n / base_width
    return net.abc.rate(role, width, optimizer) / scale
