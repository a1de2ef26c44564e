"""The linearised network f_lin(x) = f(x) + df(x)/dw (w - w_0): trained in closed form,
or step by step.

    lin = Linearized(module, x, y, GradientDescent(0.5))        # the kernel and its modes, once
    lin.predict([0, 10, np.inf]), lin.predict(100, x_test)      # f_lin after so many steps
    train(linearize(module), x, y, optimizer="adamw", …)        # any optimizer

Jacot et al. 2018; Lee et al. 2019, equations 5-11.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from ntkcore.engine.inputs import real_array
from ntkcore.finite.arrays import Parameters, as_tensor, batches, check_module, numpy, trainable
from ntkcore.finite.empirical import empirical_ntk
from ntkcore.finite.functional import as_function, jvp
from ntkcore.theory.dynamics import Dynamics
from ntkcore.theory.rules import GradientDescent, GradientFlow, Rule

Array = npt.NDArray[np.float64]

ROWS = 1024  # of a forward pass without gradients


class LinearizedNet(Module):
    """f_lin as a module: linear in its parameters, which start where they were given;
    made by `linearize`.
    """

    def __init__(self, module: Module, parameters: Parameters | None = None) -> None:
        super().__init__()
        self.network = copy.deepcopy(module)
        start = trainable(module, parameters)
        own = dict(self.network.named_parameters())
        for name, value in start.items():
            own[name].data.copy_(value)
            self.register_buffer(_start(name), value.clone())
        self._names = tuple(start)

    def forward(self, x: Tensor) -> Tensor:
        """f_0(x) + J(x) (w - w_0)."""
        own = dict(self.network.named_parameters())
        start = {name: getattr(self, _start(name)) for name in self._names}
        moved = {name: own[name] - start[name] for name in self._names}
        f = as_function(self.network)
        value, change = jvp(lambda p: f(p, x), start, moved)
        return cast(Tensor, value.detach() + change)


def _start(name: str) -> str:
    return "start_" + name.replace(".", "_")


def linearize(module: Module, parameters: Parameters | None = None) -> LinearizedNet:
    """The linearised network about a module's parameters, as a torch module.

    For `train` and any optimizer; weight decay pulls its weights towards 0, as it does the
    network's. Its layers have the network's learning rates.

    Parameters
    ----------
    module : torch.nn.Module
    parameters : mapping of str to tensor, optional
        By name; by default the module's own.

    Returns
    -------
    LinearizedNet

    Raises
    ------
    ValueError
        For parameters that are not the module's.
    """
    return LinearizedNet(module, parameters)


class Linearized:
    """The linearised network, trained on the squared loss ||f - y||^2/(2N) in closed form.

    Parameters
    ----------
    module
        Any that `empirical_ntk` takes. It is copied and worked with in float64.
    x, y
        Training samples, and targets (n,) or (n, outputs).
    rule
        `GradientFlow` (default; rate 1) or `GradientDescent`: its learning rate is that of `train`,
        with the layers' own rates for modules made by `to_torch`.
    parameters
        Where to linearise; by default the module's own parameters. A network at time t gives the
        model linearised from t on (Fort et al. 2020).
    ridge, absolute_ridge
        As for `Dynamics`: weight decay towards where it starts.
    block
        As for `empirical_ntk`.

    Attributes
    ----------
    ntk
        (n, n), or (n * outputs, n * outputs) with sample-major rows.
    dynamics
        The `Dynamics` behind it, on targets of n * outputs numbers.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `empirical_ntk` and `Dynamics` do.
    """

    def __init__(
        self,
        module: Module,
        x: Any,
        y: npt.ArrayLike,
        rule: Rule | None = None,
        *,
        parameters: Parameters | None = None,
        ridge: float = 0.0,
        absolute_ridge: bool = False,
        block: int | None = None,
    ) -> None:
        check_module(module)
        self.module = copy.deepcopy(module).double()
        with torch.no_grad():
            own = dict(self.module.named_parameters())
            for name, value in trainable(module, parameters).items():
                own[name].copy_(value)
        self.x, self.block = x, block
        f0 = self._outputs(x)
        self.outputs = f0.shape[1]
        targets = real_array(y, "y")
        if targets.shape not in {(len(f0),), f0.shape} or targets.size != f0.size:
            raise ValueError(
                f"y of shape {targets.shape} does not fit the outputs of shape {f0.shape}"
            )
        self.axes = targets.shape[1:]
        self.ntk = self._kernel(x, None)
        self.dynamics = Dynamics(
            self.ntk,
            targets.reshape(-1),
            self._rule(rule or GradientFlow()),
            f0=f0.reshape(-1),
            ridge=ridge,
            absolute_ridge=absolute_ridge,
        )

    def predict(self, times: npt.ArrayLike, x: Any = None) -> Array:
        """f_lin at these times (infinity included) on ``x``,
        by default the training set: ``times.shape + (m, …)``.

        … is the shape of one target. ValueError for times that are none.
        """
        mean = (self.dynamics.train if x is None else self._points(x)).mean(times)
        return mean.reshape(*np.shape(times), -1, *self.axes)

    def loss(self, times: npt.ArrayLike, x: Any = None, y: npt.ArrayLike | None = None) -> Array:
        """||f_lin - y||^2/(2m) on ``x``, ``y``, by default the training set: ``times.shape``."""
        if (x is None) != (y is None):
            raise ValueError("give both x and y, or neither for the training set")
        f = self.predict(times, x)
        targets = self.dynamics.y.reshape(-1, *self.axes) if y is None else real_array(y, "y")
        if targets.shape != f.shape[np.ndim(times) :]:
            raise ValueError(f"y must have shape {f.shape[np.ndim(times) :]}, not {targets.shape}")
        squares = ((f - targets) ** 2).reshape(*np.shape(times), -1).sum(axis=-1)
        return cast(Array, squares / (2 * len(targets)))

    def max_learning_rate(self) -> float:
        """The step size from which gradient descent of f_lin diverges:
        2N/lambda_max (with momentum more).
        """
        return self.dynamics.max_learning_rate() / float(self.outputs)

    # --- inside

    def _rule(self, rule: Rule) -> Rule:
        """Dynamics divides the loss by samples * outputs, this one by samples."""
        assert isinstance(rule, (GradientFlow, GradientDescent))
        return replace(rule, learning_rate=self.outputs * rule.learning_rate)

    def _outputs(self, x: Any) -> Array:
        data = as_tensor(self.module, x, "x")
        with torch.no_grad():
            parts = [
                self.module(data[rows]).reshape(len(data[rows]), -1)
                for rows in batches(len(data), ROWS)
            ]
        return cast(Array, numpy(torch.cat(parts)))

    def _kernel(self, x1: Any, x2: Any) -> Array:
        if self.outputs == 1:
            return empirical_ntk(self.module, x1, x2, block=self.block, scales="sgd")
        full = empirical_ntk(self.module, x1, x2, outputs="full", block=self.block, scales="sgd")
        n, m, outputs, _ = full.shape
        return full.transpose(0, 2, 1, 3).reshape(n * outputs, m * outputs)

    def _points(self, x: Any) -> Any:
        return self.dynamics.points(self._kernel(x, self.x), f0=self._outputs(x).reshape(-1))
