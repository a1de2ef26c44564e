"""Slow and obvious, like reference.py, for samples with any axes of positions: full matrices over
all pairs of positions, and every layer a dense matrix acting on both sides. What samples have of
their own (masks, patterns, attention) is one such matrix for each of them.

Positions are flattened: a signal of reference.py P pixels high and 1 wide, beside its axes. Layers
that do not look at axes are reference.py's own.
"""

import itertools
import math

import numpy as np

import ntkcore as nk
import reference as plain


class Axes(plain.Signal):
    """A signal whose rows are positions along these axes.

    ``seen``: of both sides' samples, which positions are in use; all else is 0. ``patterns``: of
    both sides' samples, the matrices of `nk.Aggregate`.
    """

    def __init__(self, signal, axes, seen=None, patterns=None):
        super().__init__(
            signal.k, signal.t, signal.left, signal.right, signal.width, getattr(signal, "flat", 0)
        )
        self.axes, self.seen, self.patterns = tuple(axes), seen, patterns
        if seen is not None and (axes or self.flat):
            a, b = seen
            self.k, self.t = hidden(self.k, a, b), hidden(self.t, a, b)
            self.left, self.right = hidden(self.left, a, a), hidden(self.right, b, b)


def hidden(m, a, b):
    """M[i, j, p, 1, p', 1], 0 where p of i or p' of j is masked."""
    return np.where(np.einsum("ip,jq->ijpq", a, b)[:, :, :, None, :, None], m, 0.0)


def scattered(n, window, stride, padding):
    """The same of a transposed convolution: position i adds tap t, mirrored, to an output."""
    length = n * stride + max(window - stride, 0)  # under VALID
    cut = {"VALID": 0, "CIRCULAR": (length - n * stride) // 2}.get(padding)
    if cut is None:  # SAME: the output of VALID without its borders
        cut = max(window - 1 - (window + stride - 1) // 2, 0) if stride <= window - 1 else 0
    out = length if padding == "VALID" else n * stride
    found = [[None] * window for _ in range(out)]
    for i, t in itertools.product(range(n), range(window)):
        o = i * stride + (window - 1 - t) - cut
        if padding == "CIRCULAR":
            o %= out
        if 0 <= o < out:
            found[o][t] = i
    return found


def tap_matrices(axes, sides):
    """One matrix (outputs, positions) for each place of the window, 1 where it reads."""
    out = [len(side) for side in sides]
    matrices = []
    for taps in itertools.product(*(range(len(side[0])) for side in sides)):
        matrix = np.zeros((*out, *axes))
        for o in np.ndindex(*out):
            at = [side[i][t] for side, i, t in zip(sides, o, taps, strict=True)]
            if None not in at:
                matrix[(*o, *at)] += 1
        matrices.append(matrix.reshape(math.prod(out), -1))
    return matrices, out


def both_sides(matrix, m):
    """L M L' of M[i, j, p, 1, p', 1]."""
    return np.einsum("op,ijpaqb,rq->ijoarb", matrix, m, matrix, optimize=True)


def sides_of(layer, axes, window):
    padding, steps = layer.padding, getattr(layer, "dilation", (1,) * len(axes))
    each = zip(axes, window, layer.strides, steps, strict=True)
    return [plain.windows(n, k, s, padding, d) for n, k, s, d in each]


def conv(layer, signal):
    name, window = type(layer).__name__, layer.filter_shape
    if name == "ConvTranspose":
        each = zip(signal.axes, window, layer.strides, strict=True)
        sides = [scattered(n, k, s, layer.padding) for n, k, s in each]
    else:
        sides = sides_of(layer, signal.axes, window)
    taps, out = tap_matrices(signal.axes, sides)

    def mean(m):
        return sum(both_sides(tap, m) for tap in taps) / len(taps)

    done = plain._affine(layer, signal, mean, len(taps), layer.channels)
    if name == "ConvLocal":
        same = np.eye(math.prod(out))[:, None, :, None]
        done = plain.Signal(
            *(m * same for m in (done.k, done.t, done.left, done.right)), done.width
        )
    return Axes(done, out, seen_behind(signal, sides))


def seen_behind(signal, sides):
    """What is in use in the middle of every window."""
    if signal.seen is None:
        return None
    middle = [[taps[(len(taps) - 1) // 2] for taps in side] for side in sides]
    return [
        s.reshape(-1, *signal.axes)[(slice(None), *np.ix_(*middle))].reshape(len(s), -1)
        for s in signal.seen
    ]


def pool(layer, signal):
    sides = sides_of(layer, signal.axes, layer.window_shape)
    taps, out = tap_matrices(signal.axes, sides)
    matrix = sum(taps)
    if type(layer).__name__ == "AvgPool":
        edges = layer.normalize_edges
        matrix = matrix / (matrix.sum(1, keepdims=True) if edges else len(taps))
    return Axes(signal.plain(lambda m: both_sides(matrix, m)), out, seen_behind(signal, sides))


def by_constants(function):
    """A layer that is a function of arrays (samples, …, channels), linear in positions."""

    def apply(layer, signal):
        if getattr(layer, "scale", None) is not None:
            done = signal.plain(lambda m: layer.scale**2 * m)
            return Axes(done, signal.axes, signal.seen, signal.patterns)
        basis = np.eye(math.prod(signal.axes)).reshape(-1, *signal.axes, 1)
        done = function(layer, basis)[..., 0]
        matrix = done.reshape(len(basis), -1).T
        return Axes(signal.plain(lambda m: both_sides(matrix, m)), done.shape[1:])

    return apply


def resized(layer, x):
    """Sums over the distance in samples, one output after another."""
    for axis, size in enumerate(layer.shape, 1):
        n = x.shape[axis]
        size = n if size == -1 else size
        rows = []
        for o in range(size):
            middle = (o + 0.5) * n / size
            spread = max(n / size, 1) if layer.antialias else 1
            far = [abs(middle - 0.5 - i) / spread for i in range(n)]
            hats = [max(0, 1 - d) for d in far]
            if layer.method == "nearest":
                hats = [float(i == math.floor(middle)) for i in range(n)]
            rows.append(np.array(hats) / sum(hats))
        x = np.moveaxis(np.tensordot(np.array(rows), x, (1, axis)), 0, axis)
    return x


def indexed(layer, x):
    given = [
        ... if item == "..." else slice(*item) if isinstance(item, tuple) else item
        for item in layer.items
    ]
    return x[(slice(None), *given, *([slice(None)] if ... in given else [...]))]


def dotted(layer, x):
    """Contractions of one axis each, and no batch axes."""
    ((left, right), _) = layer.dimension_numbers
    if layer.lhs is None:
        return np.moveaxis(
            np.tensordot(x, np.array(layer.rhs), (left, right)), x.ndim - 1 - len(left), -1
        )
    done = np.tensordot(np.array(layer.lhs), x, (left, right))
    return np.moveaxis(done, np.ndim(layer.lhs) - len(left), 0)


def normalised(layer, signal):
    """By the mean of variances over the axes that it names besides that of channels."""
    over = layer.axes(len(signal.axes) + 2) - {len(signal.axes) + 1}

    def scale(side):
        q = np.einsum("iipp->ip", side[..., 0, :, 0]).reshape(-1, *signal.axes)
        mean = np.broadcast_to(q.mean(tuple(over), keepdims=True), q.shape)
        return 1 / np.sqrt(mean.reshape(len(q), -1) + layer.eps)

    a, b = scale(signal.left), scale(signal.right)
    parts = [
        m * np.einsum("ip,jq->ijpq", *scales)[:, :, :, None, :, None]
        for m, scales in (
            (signal.k, (a, b)),
            (signal.t, (a, b)),
            (signal.left, (a, a)),
            (signal.right, (b, b)),
        )
    ]
    return Axes(plain.Signal(*parts, signal.width), signal.axes, signal.seen, signal.patterns)


def global_mean(layer, signal):
    """Over the positions in use."""
    a, b = (np.ones((1, math.prod(signal.axes))),) * 2 if signal.seen is None else signal.seen

    def mean(m, x, y):
        pairs = np.einsum("i,j->ij", x.sum(1), y.sum(1))
        return (m.sum((2, 3, 4, 5)) / pairs)[:, :, None, None, None, None]

    parts = mean(signal.k, a, b), mean(signal.t, a, b), mean(signal.left, a, a)
    return Axes(plain.Signal(*parts, mean(signal.right, b, b), signal.width), ())


# --- what samples have of their own


def beside(layer, signal):
    """The data, without the channels that say something of their positions."""
    x, y = signal.data
    positions = x.shape[1]
    features = x.shape[2] - 1 - (positions if isinstance(layer, nk.GraphInput) else 0)
    seen = [side[..., features] != 0 for side in (x, y)]
    start = of_data(*(side[..., :features] for side in (x, y)))
    return Axes(start, signal.axes, seen, [side[..., features + 1 :] for side in (x, y)])


def aggregated(layer, signal):
    return between(signal, signal.patterns, lambda m, k: m)


def between(signal, matrices, tangent, slope=1.0, offset=0.0):
    """K <- slope A K B' + offset, T <- slope A tangent(T, K) B' + offset, A and B those of the
    samples of both sides.
    """
    a, b = matrices

    def product(x, m, y):
        return slope * np.einsum("iop,ijpaqb,jrq->ijoarb", x, m, y, optimize=True) + offset

    done = plain.Signal(
        product(a, signal.k, b),
        product(a, tangent(signal.t, signal.k), b),
        product(a, signal.left, a),
        product(b, signal.right, b),
        signal.width,
    )
    return Axes(done, signal.axes, signal.seen, signal.patterns)


def attention(layer, signal):
    """Hron et al. 2020, theorems 3 and 4; embeddings as random features beside the signal's."""
    seen, own = embedded(layer, signal)
    values = own if layer.val_pos_emb else signal
    bias = (layer.b_std or 0) ** 2
    if layer.linear_scaling:
        weights = [
            [attends(layer, side[i, i, :, 0, :, 0], s[i]) for i in range(len(side))]
            for side, s in zip((own.left, own.right), seen, strict=True)
        ]
        done = between(
            values,
            [np.array(w) for w in weights],
            lambda t, k: t + 2 * k,
            (layer.W_out_std * layer.W_value_std) ** 2,
            bias,
        )
    else:
        done = random_logits(layer, own, values, bias)
    done.width = layer.width
    return Axes(done, signal.axes, signal.seen, signal.patterns)


def embedded(layer, signal):
    """What is in use, and the signal that keys and queries see."""
    axes, places = signal.axes, list(np.ndindex(*signal.axes))
    n1, n2 = signal.k.shape[:2]
    seen = signal.seen or [np.ones((n, len(places)), bool) for n in (n1, n2)]
    if layer.pos_emb_type == "none":
        return seen, signal
    decay = {
        None: lambda d: float(d == 0),
        "inverse": lambda d: 1 / (1 + d),
        "exponential": lambda d: math.exp(-d),
    }.get(layer.pos_emb_decay, layer.pos_emb_decay)
    R = np.zeros((len(places),) * 2)
    for (p, one), (q, other) in itertools.product(enumerate(places), repeat=2):
        R[p, q] = decay(
            sum(abs(i - j) ** layer.pos_emb_p_norm for i, j in zip(one, other, strict=True))
        )
    share, weight = 1.0, layer.W_pos_emb_std**2
    if layer.pos_emb_type == "concat":
        # Without a number of channels of their own, embeddings have as many as the signal.
        channels, added = (
            (1, 1) if layer.pos_emb_channels is None else (signal.width, layer.pos_emb_channels)
        )
        share, weight = channels / (channels + added), weight * added / (channels + added)
    added = weight * R[:, None, :, None]
    return seen, Axes(signal.plain(lambda m: share * m + added), axes, seen, signal.patterns)


def attends(layer, own, seen):
    """One sample's attention matrix."""
    logits = layer.W_query_std * layer.W_key_std * own
    if layer.attention_mechanism == "softmax":
        powers = np.exp(logits - logits.max()) * seen
        return powers / powers.sum(1, keepdims=True)
    mechanisms = {"relu": lambda z: np.maximum(z, 0), "abs": np.abs, "identity": lambda z: z}
    return mechanisms[layer.attention_mechanism](logits) * seen


def random_logits(layer, own, values, bias):
    """Logits of variance 1, and no nonlinearity."""
    c = (layer.W_query_std * layer.W_key_std * layer.W_out_std * layer.W_value_std) ** 2

    def total(m):
        return m.sum((2, 3, 4, 5), keepdims=True)

    k, left, right = (
        c * total(m * v) * m + bias
        for m, v in ((own.k, values.k), (own.left, values.left), (own.right, values.right))
    )
    changes = total(own.k * values.t) + total(own.t * values.k)
    t = c * (changes * own.k + total(own.k * values.k) * (own.t + 4 * own.k)) + bias
    return plain.Signal(k, t, left, right, None)


def apply(layer, signal):
    name = type(layer).__name__
    if name in ("Serial", "Residual", "Parallel"):
        return branches(layer, signal)
    if name == "LocalAvgPool":
        window = (layer.window,) * len(signal.axes)
        return apply(nk.Serial(nk.AvgPool(window, padding="SAME"), nk.Flatten()), signal)
    if name in LAYERS and getattr(signal, "axes", ()):
        return LAYERS[name](layer, signal)
    done = plain.apply(layer, signal)
    if isinstance(done, list):
        return done
    if isinstance(signal, list):
        return Axes(done, signal[0].axes, joined(signal), signal[0].patterns)
    readout = name in ("Flatten", "GlobalAvgPool", "GlobalSumPool")
    return Axes(done, () if readout else signal.axes, signal.seen, signal.patterns)


def joined(signals):
    """In use is what is in use in any branch."""
    masks = [signal.seen for signal in signals if signal.seen is not None]
    return [np.logical_or.reduce(side) for side in zip(*masks, strict=True)] if masks else None


def branches(layer, signal):
    name = type(layer).__name__
    if name == "Serial":
        for inner in layer.layers:
            signal = apply(inner, signal)
        return signal
    if name == "Parallel":
        return [apply(branch, part) for branch, part in zip(layer.branches, signal, strict=True)]
    both = [apply(layer.shortcut, signal), apply(nk.Serial(*layer.branch), signal)]
    return apply(nk.FanInSum(), both)


LAYERS = {
    **dict.fromkeys(("Conv", "ConvLocal", "ConvTranspose"), conv),
    **dict.fromkeys(("AvgPool", "SumPool"), pool),
    "LayerNorm": normalised,
    "Index": by_constants(indexed),
    "ImageResize": by_constants(resized),
    "DotGeneral": by_constants(dotted),
    "GlobalAvgPool": global_mean,
    "GlobalSelfAttention": attention,
    "Aggregate": aggregated,
    **dict.fromkeys(("MaskedInput", "GraphInput"), beside),
}


def of_data(a, b):
    k, left, right = (
        (np.einsum("ipc,jqc->ijpq", x, y) / x.shape[-1])[:, :, :, None, :, None]
        for x, y in ((a, b), (a, a), (b, b))
    )
    return plain.Signal(k, np.zeros_like(k), left, right, a.shape[-1])


def reference(net, x1, x2=None):
    """(nngp, ntk) of shape (n1, n2) for samples (n, …, channels)."""
    a = np.asarray(x1, float)
    b = a if x2 is None else np.asarray(x2, float)
    axes = a.shape[1:-1]
    a, b = (x.reshape(len(x), -1, x.shape[-1]) for x in (a, b))
    start = Axes(of_data(a, b), axes)
    start.data = a, b
    out = apply(net, start).vector()
    assert out.k.shape[2:] == (1, 1, 1, 1)
    return out.k[:, :, 0, 0, 0, 0], out.t[:, :, 0, 0, 0, 0]
