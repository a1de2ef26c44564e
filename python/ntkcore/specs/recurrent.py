"""Recurrent networks in the limit of infinitely many units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ntkcore.specs.activations import Activation, Relu
from ntkcore.specs.layers import Layer, Signal, check_flag, check_number, is_whole, single
from ntkcore.specs.program import Builder, Value

RELU = Relu()


@dataclass(frozen=True, repr=False)
class Recurrent(Layer):
    """States that go on from position to position of a sequence,
    h_p = W phi(h_{p-1}) + U x_p + b (Elman 1990; Alemohammad et al. 2021).

    The output is h_p itself, before phi: what follows, such as the same nonlinearity, acts on it.

    Parameters
    ----------
    activation : Layer, default=Relu()
        The phi; any nonlinearity but `Elementwise` and `Polynomial`.
    W_std : float, default=1
        Standard deviation of the weights W of the states, of scale 1/sqrt(units).
    U_std : float, default=1
        That of the weights U of the inputs, of scale 1/sqrt(channels).
    b_std : float, optional
        That of the biases; None: no biases.
    return_sequences : bool, default=True
        The states at all positions, or the last one alone, a vector.
    width : int, optional
        Number of units; only needed by a following layer.

    Notes
    -----
    With the input's K and T over pairs of positions, and E and D of phi at the state's covariance
    one position before on either side, in order of p:

        K'(p, p') = U_std^2 K(p, p') + b_std^2 + W_std^2 E(p-1, p'-1)
        T'(p, p') = K'(p, p') + U_std^2 T(p, p') + W_std^2 D(p-1, p'-1) T'(p-1, p'-1)

    The state before the first position is 0, and so it is at masked positions (`MaskedInput`). They
    stand before the sequence alone, ``pack_sequences(…, align="right")``: sequences of different
    lengths end at the same position. A mask behind a position in use is refused.

    A pair of sequences of S positions costs O(S^2); where only pairs p = p' are wanted, as of the
    last state, O(S).

    Raises
    ------
    TypeError, ValueError
        For values that do not fit, and activations without one closed dual; when a kernel is asked
        for, samples that are no sequences.

    References
    ----------
    Alemohammad, Wang, Balestriero & Baraniuk 2021 (arXiv 2006.10246), theorems 1 and 2, whose first
    state is random; here it is 0.

    Examples
    --------
    >>> import ntkcore as nk
    >>> net = nk.Serial(nk.Recurrent(return_sequences=False), nk.Relu(), nk.Dense())
    >>> nk.kernel(net, [[[1.0], [0.0]]])
    array([[0.75]])
    """

    activation: Layer = RELU
    W_std: float = 1.0
    U_std: float = 1.0
    b_std: float | None = None
    return_sequences: bool = True
    width: int | None = None

    nonlinear: ClassVar[bool] = False  # the nonlinearity behind it ends the stage

    def __post_init__(self) -> None:
        phi = self.activation
        if not isinstance(phi, Activation):
            raise TypeError(
                f"Recurrent: activation must be a nonlinearity such as Relu() or Erf(), not {phi!r}"
            )
        if type(phi).lower is not Activation.lower:
            raise ValueError(
                f"Recurrent: activation={phi!r} is not supported, for its dual is no single closed"
                " form: use another, such as Erf() in place of tanh, Gelu() of silu"
            )
        for name in ("W_std", "U_std"):
            check_number(self, name, minimum=0)
        if self.b_std is not None:
            check_number(self, "b_std", minimum=0)
        if self.width is not None:
            if not is_whole(self.width) or self.width < 1:
                raise ValueError(
                    f"Recurrent: width must be a positive number of units, not {self.width!r}"
                )
            object.__setattr__(self, "width", int(self.width))
        check_flag(self, "return_sequences")

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = builder.read(single(self, builder, value))
        if len(value.shape) != 2:
            what = f"images, with {len(value.image)} axes of positions" if value.is_image else ""
            raise builder.error(
                self,
                "runs along a sequence, samples of shape (positions, features), but its input is"
                f" {what or 'a vector'} of shape {value.shape}: Index() takes rows of an image",
            )
        a, b = self.U_std**2, (self.b_std or 0.0) ** 2
        value = builder.affine(value, a, b, a, b, self.width)
        phi = self.activation
        assert isinstance(phi, Activation)
        phi.gaussian(builder, value)  # refuses what has no NTK
        value = builder.recur(value, phi.dual, phi.constants(), self.W_std**2)
        if self.return_sequences:
            return value
        return builder.pick(value, [np.array([[value.image[0] - 1]], np.int32)], ())
