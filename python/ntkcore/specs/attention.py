"""Self-attention over the positions of a sample, in the limit of many heads and wide keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.specs.layers import Layer, Signal, check_flag, check_number, is_whole, single
from ntkcore.specs.program import Attention, Builder, Matrix, Value
from ntkcore.specs.windows import Shape

MECHANISMS = ("softmax", "relu", "abs", "identity")
EMBEDDINGS = ("none", "sum", "concat")
Decay = Callable[[npt.NDArray[np.float64]], Any]
DECAYS: dict[str, Decay] = {
    "inverse": lambda d: 1 / (1 + d),
    "exponential": lambda d: np.exp(-d),
}
PSD = 1e-9  # of the largest eigenvalue


@dataclass(frozen=True, repr=False)
class GlobalSelfAttention(Layer):
    """Self-attention over all positions, in the limit of infinitely many heads and channels of
    keys, queries and values (Hron et al. 2020).

    Parameters
    ----------
    linear_scaling : bool, default=True
        True: logits are divided by the number of channels of keys, and keys and queries share their
        weights; then logits become deterministic. False: divided by its root, with weights of their
        own; known for ``attention_mechanism="identity"`` alone.
    W_key_std, W_query_std, W_value_std, W_out_std : float, default=1
        Standard deviations of the weights; only the products of the first two and of the last two
        count.
    b_std : float, optional
        That of the bias of the output; None: no bias.
    attention_mechanism : {"softmax", "relu", "abs", "identity"}, default="softmax"
        What turns logits into weights.
    pos_emb_type : {"none", "sum", "concat"}, default="none"
        Whether random embeddings of the positions are added to the features, or put beside them.
    pos_emb_decay : {"inverse", "exponential"} or callable, optional
        Covariance of the embeddings of two positions s, t, a function of the distance
        sum over axes of |s - t|^p: 1/(1 + d), exp(-d), or a function of a NumPy array. By default
        embeddings are independent. Refused, when a kernel is asked for, where it is no covariance.
    pos_emb_p_norm : float, default=2
        The p of the distance.
    pos_emb_channels : int, optional
        Channels of the embeddings, for "concat"; as many as those of the features by default. If
        given, the layer before must have declared its ``width``.
    W_pos_emb_std : float, default=1
        Standard deviation of the embeddings.
    val_pos_emb : bool, default=False
        Whether values see the embeddings, as keys and queries do.
    width : int, optional
        Number of channels of the output; only needed by a following layer.

    Notes
    -----
    With K~ = K + W_pos^2 R (or its mean, where embeddings stand beside features), R the covariance
    of the positions, G = mechanism(W_query W_key K~(x, x)) of every sample and s = W_out W_value:

        K <- s^2 G K G'^T + b^2,   T <- s^2 (G T G'^T + 2 G K G'^T) + b^2

    (with K~, T~ in place of K, T where values see the embeddings), and for logits divided by the
    root, with c = W_query W_key s, S = sum K~ K and S' = sum K~ T + T~ K over pairs of positions:

        K <- c^2 S K~ + b^2,   T <- c^2 (S' K~ + S (T~ + 4 K~)) + b^2.

    A pair of samples of S positions costs four products of S x S matrices (two for the NNGP alone),
    and O(S^2) where `GlobalAvgPool` follows at once.

    Raises
    ------
    ValueError
        For values that do not fit; for ``linear_scaling=False`` with any mechanism but "identity",
        whose kernel is not known.

    References
    ----------
    Hron, Bahri, Sohl-Dickstein & Novak 2020 (arXiv 2006.10540), theorems 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> import ntkcore as nk
    >>> net = nk.Serial(nk.GlobalSelfAttention(), nk.GlobalAvgPool(), nk.Dense())
    >>> x = np.random.default_rng(0).standard_normal((2, 5, 3))
    >>> nk.kernel(net, x).shape
    (2, 2)
    """

    linear_scaling: bool = True
    W_key_std: float = 1.0
    W_query_std: float = 1.0
    W_value_std: float = 1.0
    W_out_std: float = 1.0
    b_std: float | None = None
    attention_mechanism: str = "softmax"
    pos_emb_type: str = "none"
    pos_emb_decay: str | Decay | None = None
    pos_emb_p_norm: float = 2.0
    pos_emb_channels: int | None = None
    W_pos_emb_std: float = 1.0
    val_pos_emb: bool = False
    width: int | None = None

    def __post_init__(self) -> None:
        for name in ("W_key_std", "W_query_std", "W_value_std", "W_out_std", "W_pos_emb_std"):
            check_number(self, name, minimum=0)
        if self.b_std is not None:
            check_number(self, "b_std", minimum=0)
        for name in ("pos_emb_channels", "width"):
            self._check_channels(name)
        check_number(self, "pos_emb_p_norm", minimum=0)
        check_flag(self, "linear_scaling")
        check_flag(self, "val_pos_emb")
        self._check_choice("attention_mechanism", MECHANISMS)
        self._check_choice("pos_emb_type", EMBEDDINGS)
        if not callable(self.pos_emb_decay):
            self._check_choice("pos_emb_decay", (None, *DECAYS))
        if self.pos_emb_type == "none" and (self.pos_emb_decay or self.val_pos_emb):
            raise ValueError(
                "GlobalSelfAttention: pos_emb_decay and val_pos_emb say how positions are embedded,"
                " but pos_emb_type is 'none': give 'sum' or 'concat'"
            )
        if not self.linear_scaling and self.attention_mechanism != "identity":
            raise ValueError(
                "GlobalSelfAttention: no kernel is known of attention_mechanism="
                f"{self.attention_mechanism!r} with linear_scaling=False, whose logits stay random:"
                " use linear_scaling=True, or attention_mechanism='identity'"
            )

    def _check_channels(self, name: str) -> None:
        count = getattr(self, name)
        if count is not None and (not is_whole(count) or count < 1):
            raise ValueError(
                f"GlobalSelfAttention: {name} must be a positive number of channels, not {count!r}"
            )

    def _check_choice(self, name: str, choices: tuple[Any, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(
                f"GlobalSelfAttention: {name} must be one of {', '.join(map(repr, choices))}, not"
                f" {getattr(self, name)!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As for every layer; TypeError for a function, which has no name to write down."""
        if callable(self.pos_emb_decay):
            raise TypeError(
                f"{self!r} holds a function, which JSON cannot: use one of the names"
                f" {', '.join(DECAYS)}"
            )
        return super().to_dict()

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = builder.read(single(self, builder, value))
        if not value.is_image:
            raise builder.error(
                self,
                "attends between positions, but its input is a vector: give it samples of shape"
                " (positions, features), or images, and put Flatten() or GlobalAvgPool() behind it",
            )
        features, embedding = self._shares(builder, value)
        grid = None
        if self.pos_emb_type != "none":
            grid = embedding * self._covariance(builder, value.image)
        lowered = self._deterministic if self.linear_scaling else self._random
        return lowered(builder, value, features, grid)

    def _deterministic(
        self, builder: Builder, value: Value, share: float, grid: Matrix | None
    ) -> Value:
        """Logits of scale 1/d."""
        scale = self.W_query_std * self.W_key_std
        if grid is not None and self.val_pos_emb:
            value = self._embedded(builder, value, share, grid)
            attention = Attention(self.attention_mechanism, scale)
        else:
            own = None if grid is None else scale * grid
            attention = Attention(self.attention_mechanism, scale * share, own)
        a, b = (self.W_out_std * self.W_value_std) ** 2, (self.b_std or 0.0) ** 2
        return builder.affine(builder.attend(value, attention), a, b, 2 * a, b, self.width)

    def _random(self, builder: Builder, value: Value, share: float, grid: Matrix | None) -> Value:
        """Logits of scale d^-1/2."""
        if grid is not None and self.val_pos_emb:
            value = self._embedded(builder, value, share, grid)
        other = builder.copy(value)
        if grid is not None and not self.val_pos_emb:
            value = self._embedded(builder, value, share, grid)
        c = self.W_query_std * self.W_key_std * self.W_out_std * self.W_value_std
        b = (self.b_std or 0.0) ** 2
        return builder.affine(builder.relate(value, other), c**2, b, 0.0, b, self.width)

    @staticmethod
    def _embedded(builder: Builder, value: Value, share: float, grid: Matrix) -> Value:
        if share != 1:
            value = builder.scaled(value, share)
        return builder.embed(value, 1.0, grid)

    def _shares(self, builder: Builder, value: Value) -> tuple[float, float]:
        """Weights of K and of R in K~."""
        if self.pos_emb_type == "none":
            return 1.0, 0.0
        if self.pos_emb_type == "sum":
            return 1.0, self.W_pos_emb_std**2
        if self.pos_emb_channels is None:
            return 0.5, 0.5 * self.W_pos_emb_std**2
        if value.width is None:
            raise builder.error(
                self,
                "pos_emb_channels is a share of all channels: give the layer before its width=…,"
                " or leave pos_emb_channels out",
            )
        share = value.width / (value.width + self.pos_emb_channels)
        return share, (1 - share) * self.W_pos_emb_std**2

    def _covariance(self, builder: Builder, image: Shape) -> Matrix:
        try:
            return self.position_covariance(image)
        except ValueError as problem:
            raise builder.error(self, str(problem)) from None

    def position_covariance(self, image: Shape) -> Matrix:
        """R over all pairs of positions; ValueError where it is no covariance."""
        size = math.prod(image)
        if self.pos_emb_decay is None:
            return np.eye(size)
        decay = self.pos_emb_decay
        function = DECAYS[decay] if isinstance(decay, str) else decay
        places = np.indices(image).reshape(len(image), size)
        distance = (np.abs(places[:, :, None] - places[:, None]) ** self.pos_emb_p_norm).sum(0)
        found = np.asarray(function(distance.astype(np.float64)), np.float64)
        if found.shape != (size, size) or not np.isfinite(found).all():
            raise ValueError("pos_emb_decay must give a finite number for every entry of an array")
        values = np.linalg.eigvalsh(found)
        if values[0] < -PSD * max(values[-1], 0):
            raise ValueError(
                f"pos_emb_decay is no covariance: its matrix over {size} positions has the"
                f" eigenvalue {values[0]:.3g}"
            )
        return found
