"""Random finite networks written out in NumPy, with their own backward pass, for any spec.

A layer gives its output and a function that turns the gradient of the output into that of the input
and appends the layer's parameters' share of the empirical NTK. Images are (samples, h, w,
channels).
"""

import itertools

import numpy as np
from scipy.special import erf

import ntkcore as nk


def affine(patches, layer, rng, width):
    """y = patches W + b, (n, pixels, fan_in) to (n, pixels, width), W = W_std w / sqrt(fan_in),
    b = b_std beta.
    """
    scale, b_std = layer.W_std / patches.shape[2] ** 0.5, layer.b_std or 0
    W = scale * rng.standard_normal((patches.shape[2], width))

    def backward(gradient, shares):
        rows, deltas = (a.reshape(-1, a.shape[2]) for a in (patches, gradient))
        shape = (len(patches), -1, *patches.shape[:2])
        outer = deltas @ deltas.T
        parts = (scale**2 * rows @ rows.T + b_std**2) * outer
        shares.append(parts.reshape(shape).sum((1, 3)))
        return gradient @ W.T

    return patches @ W + b_std * rng.standard_normal(width), backward


def dense(layer, x, rng, width):
    """On images, one for every pixel."""
    y, backward = affine(x.reshape(len(x), -1, x.shape[-1]), layer, rng, width)
    return y.reshape(*x.shape[:-1], width), lambda g, shares: backward(
        g.reshape(y.shape), shares
    ).reshape(x.shape)


def places(n, window, stride, padding):
    """For every output: the inputs in its window, None where outside the image (XLA's padding)."""
    out = (n - window) // stride + 1 if padding == "VALID" else -(-n // stride)
    low = 0 if padding == "VALID" else max((out - 1) * stride + window - n, 0) // 2
    inside = (lambda p: p % n) if padding == "CIRCULAR" else (lambda p: p if 0 <= p < n else None)
    return [[inside(o * stride + k - low) for k in range(window)] for o in range(out)]


def taps(shape, window, strides, padding):
    """One matrix for each place of the window: (its outputs, pixels), 1 where it reads."""
    rows, cols = (places(n, k, s, padding) for n, k, s in zip(shape, window, strides, strict=True))
    found = np.zeros((*window, len(rows), len(cols), *shape))
    for (o, row), (v, col) in itertools.product(enumerate(rows), enumerate(cols)):
        for (a, p), (b, q) in itertools.product(enumerate(row), enumerate(col)):
            if None not in (p, q):
                found[a, b, o, v, p, q] = 1
    return found.reshape(window[0] * window[1], len(rows) * len(cols), -1), (len(rows), len(cols))


def conv(layer, x, rng, width):
    """Patches read tap by tap."""
    reads, out = taps(x.shape[1:3], layer.filter_shape, layer.strides, layer.padding)
    n, channels = len(x), x.shape[3]
    patches = np.einsum("top,npc->notc", reads, x.reshape(n, -1, channels), optimize=True).reshape(
        n, len(reads[0]), -1
    )
    y, backward = affine(patches, layer, rng, width)

    def scatter(gradient, shares):
        parts = backward(gradient.reshape(y.shape), shares).reshape(
            n, len(reads[0]), len(reads), channels
        )
        return np.einsum("top,notc->npc", reads, parts, optimize=True).reshape(x.shape)

    return y.reshape(n, *out, width), scatter


def pool(layer, x, rng, width):
    """Sums or means over windows; local pooling is one and a Flatten."""
    local = isinstance(layer, nk.LocalAvgPool)
    window = (layer.window,) * 2 if local else layer.window_shape
    reads, out = taps(
        x.shape[1:3], window, *((1, 1), "SAME") if local else (layer.strides, layer.padding)
    )
    matrix = reads.sum(0)
    if not isinstance(layer, nk.SumPool):
        edges = not local and layer.normalize_edges
        matrix = matrix / (matrix.sum(1, keepdims=True) if edges else window[0] * window[1])
    y = np.einsum("op,npc->noc", matrix, x.reshape(len(x), -1, x.shape[3]))
    back = lambda g, shares: np.einsum("op,noc->npc", matrix, g.reshape(y.shape)).reshape(x.shape)  # noqa: E731
    return y.reshape(len(x), -1) if local else y.reshape(len(x), *out, -1), back


def global_pool(layer, x, rng, width):
    scale = 1 if isinstance(layer, nk.GlobalSumPool) else 1 / (x.shape[1] * x.shape[2])
    return scale * x.sum((1, 2)), lambda g, shares: np.broadcast_to(
        scale * g[:, None, None], x.shape
    )


def layer_norm(layer, x, rng, width):
    """Over the features, of every pixel by itself or over several axes."""
    mean = lambda a: a.mean(layer.axis, keepdims=True)  # noqa: E731
    s = np.sqrt(mean((x - mean(x)) ** 2) + layer.eps)
    y = (x - mean(x)) / s
    return y, lambda g, shares: (g - mean(g) - y * mean(g * y)) / s


def dropout(layer, x, rng, width):
    mask = (rng.random(x.shape) < layer.rate) / layer.rate
    return x * mask, lambda g, shares: g * mask


def product(layer, parts, rng, width):
    others = [np.prod(parts[:i] + parts[i + 1 :], axis=0) for i in range(len(parts))]
    return np.prod(parts, axis=0), lambda g, shares: [g * other for other in others]


def concat(layer, parts, rng, width):
    ends = np.cumsum([part.shape[-1] for part in parts])[:-1]
    return np.concatenate(parts, -1), lambda g, shares: np.split(g, ends, -1)


def residual(layer, x, rng, width):
    """Branches are as wide as what they are added to."""
    shortcut, back = finite(layer.shortcut, x, rng, x.shape[-1])
    y, backward = serial(layer.branch, x, rng, shortcut.shape[-1])
    return shortcut + y, lambda g, shares: back(g, shares) + backward(g, shares)


def parallel(layer, parts, rng, width):
    """Branches beside the signal itself are as wide as it is."""
    width = parts[0].shape[-1] if nk.Identity() in layer.branches else width
    out = [finite(branch, x, rng, width) for branch, x in zip(layer.branches, parts, strict=True)]
    return [y for y, _ in out], lambda gs, shares: [
        back(g, shares) for (_, back), g in zip(out, gs, strict=True)
    ]


def serial(layers, x, rng, width):
    backs = []
    for layer in layers:
        x, backward = finite(layer, x, rng, width)
        backs.append(backward)

    def through(gradient, shares):
        for backward in reversed(backs):
            gradient = backward(gradient, shares)
        return gradient

    return x, through


def finite(layer, x, rng, width):
    """One layer, drawn."""
    return FINITE[type(layer)](layer, x, rng, width)


FINITE = {
    nk.Dense: dense,
    nk.Conv: conv,
    nk.AvgPool: pool,
    nk.SumPool: pool,
    nk.LocalAvgPool: pool,
    nk.GlobalAvgPool: global_pool,
    nk.GlobalSumPool: global_pool,
    nk.LayerNorm: layer_norm,
    nk.Dropout: dropout,
    nk.FanInProd: product,
    nk.FanInConcat: concat,
    nk.Residual: residual,
    nk.Parallel: parallel,
    nk.Serial: lambda layer, x, rng, width: serial(layer.layers, x, rng, width),
    nk.Identity: lambda layer, x, rng, width: (x, lambda g, shares: g),
    nk.FanOut: lambda layer, x, rng, width: ([x] * layer.num, lambda gs, shares: sum(gs)),
    nk.FanInSum: lambda layer, parts, rng, width: (sum(parts), lambda g, shares: [g] * len(parts)),
    nk.Flatten: lambda layer, x, rng, width: (
        x.reshape(len(x), -1),
        lambda g, shares: g.reshape(x.shape),
    ),
    nk.Relu: lambda layer, x, rng, width: (np.maximum(x, 0), lambda g, shares: g * (x > 0)),
    nk.Erf: lambda layer, x, rng, width: (
        erf(x),
        lambda g, shares: g * 2 / np.pi**0.5 * np.exp(-(x**2)),
    ),
}


def empirical(net, x, rng, width):
    """(nngp, ntk) of one draw of a network that ends with Dense:
    its covariance given its features, its tangents.
    """
    *hidden, last = net.layers
    features, backward = serial(hidden, x, rng, width)
    nngp = last.W_std**2 / features.shape[1] * features @ features.T + (last.b_std or 0) ** 2
    shares = []
    gradient = dense(last, features, rng, 1)[1](np.ones((len(x), 1)), shares)
    backward(gradient, shares)
    return nngp, sum(shares)


def scatters_about(net, x, *, width=384, draws=16, error=0.07, errors=4, seed=1):
    """Are draws within so many standard errors (each below ``error`` of the scale)
    and a bias of order 1/width?
    """
    rng = np.random.default_rng(seed)
    found = np.array([empirical(net, x, rng, width) for _ in range(draws)])
    for k, exact in enumerate(nk.kernel(net, x, None, ("nngp", "ntk"))):
        mean, spread = found[:, k].mean(0), found[:, k].std(0, ddof=1) / draws**0.5
        scale = np.sqrt(np.outer(*[np.diag(exact)] * 2))
        near = np.abs(mean - exact) < errors * spread + 2 / width * scale
        if not (near.all() and (spread < error * scale).all()):
            return False
    return True
