"""Random finite networks, wide, several draws: their empirical kernels scatter about the infinite-width ones.

Written out in NumPy with its own backward pass. A layer gives its output and a function that turns the gradient of the
output into that of the input and appends the layer's parameters' share of the empirical NTK.
"""

import numpy as np
import pytest
from scipy.special import erf

import ntkcore as nk

WIDTH, DRAWS = 384, 16
CONV, STRIDED = nk.Conv((3, 3), (1, 1), "SAME", 1.3, 0.2), nk.Conv((3, 2), (2, 1), "SAME", 1.2)
DENSE, RELU = nk.Dense(1.1, 0.1), nk.Relu()
NETS = {
    "dense": nk.Serial(DENSE, RELU, DENSE, nk.Erf(), DENSE),
    "dense residual": nk.Serial(DENSE, nk.Residual(RELU, DENSE), RELU, DENSE),
    "flatten": nk.Serial(CONV, RELU, CONV, RELU, nk.Flatten(), DENSE),
    "gap": nk.Serial(CONV, RELU, CONV, nk.Erf(), nk.GlobalAvgPool(), DENSE),
    "strides": nk.Serial(CONV, RELU, STRIDED, RELU, nk.GlobalAvgPool(), DENSE),
    "pool": nk.Serial(CONV, RELU, nk.AvgPool((2, 2), (2, 2)), CONV, RELU, nk.Flatten(), DENSE),
    "residual": nk.Serial(CONV, nk.Residual(RELU, CONV), RELU, nk.GlobalAvgPool(), DENSE, RELU, DENSE),
}


def affine(patches, layer, rng, width):
    """y = patches W + b, (n, pixels, fan_in) to (n, pixels, width), W = W_std w / sqrt(fan_in), b = b_std beta."""
    scale, b_std = layer.W_std / patches.shape[2] ** 0.5, layer.b_std or 0
    W = scale * rng.standard_normal((patches.shape[2], width))

    def backward(gradient, shares):
        weights = np.einsum("npf,npc->nfc", patches, gradient).reshape(len(patches), -1)
        shares.append(scale**2 * weights @ weights.T + b_std**2 * gradient.sum(1) @ gradient.sum(1).T)
        return gradient @ W.T

    return patches @ W + b_std * rng.standard_normal(width), backward


def dense(layer, x, rng, width):
    y, backward = affine(x[:, None], layer, rng, width)
    return y[:, 0], lambda g, shares: backward(g[:, None], shares)[:, 0]


def conv(layer, x, rng, width):
    """SAME: patches cut from the padded image."""
    n, h, w, channels = x.shape
    (kh, kw), (sh, sw) = layer.filter_shape, layer.strides
    oh, ow = -(-h // sh), -(-w // sw)
    top, left = (max((o - 1) * s + k - m, 0) // 2 for o, s, k, m in ((oh, sh, kh, h), (ow, sw, kw, w)))
    padded = np.zeros((n, h + kh, w + kw, channels))
    inside = (slice(None), slice(top, top + h), slice(left, left + w))
    padded[inside] = x
    cuts = [np.s_[:, i : i + oh * sh : sh, j : j + ow * sw : sw] for i in range(kh) for j in range(kw)]
    patches = np.concatenate([padded[cut] for cut in cuts], axis=3)
    y, backward = affine(patches.reshape(n, oh * ow, -1), layer, rng, width)

    def scatter(gradient, shares):
        into = np.zeros_like(padded)
        parts = backward(gradient.reshape(n, oh * ow, width), shares).reshape(n, oh, ow, -1)
        for part, cut in zip(np.split(parts, kh * kw, axis=3), cuts, strict=True):
            into[cut] += part
        return into[inside]

    return y.reshape(n, oh, ow, width), scatter


def pool(layer, x, rng, width):
    """2x2 blocks; an odd last row or column is left out."""
    n, h, w = len(x), x.shape[1] // 2, x.shape[2] // 2
    beyond = ((0, 0), (0, x.shape[1] - 2 * h), (0, x.shape[2] - 2 * w), (0, 0))
    mean = x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, -1).mean((2, 4))
    return mean, lambda g, shares: np.pad(g.repeat(2, 1).repeat(2, 2) / 4, beyond)


def global_pool(layer, x, rng, width):
    pixels = x.shape[1] * x.shape[2]
    return x.mean((1, 2)), lambda g, shares: np.broadcast_to(g[:, None, None] / pixels, x.shape)


def residual(layer, x, rng, width):
    y, backward = serial(layer.branch, x, rng, width)
    return x + y, lambda g, shares: g + backward(g, shares)


def serial(layers, x, rng, width):
    backs = []
    for layer in layers:
        x, backward = FINITE[type(layer)](layer, x, rng, width)
        backs.append(backward)

    def through(gradient, shares):
        for backward in reversed(backs):
            gradient = backward(gradient, shares)
        return gradient

    return x, through


FINITE = {
    nk.Dense: dense,
    nk.Conv: conv,
    nk.AvgPool: pool,
    nk.GlobalAvgPool: global_pool,
    nk.Residual: residual,
    nk.Flatten: lambda layer, x, rng, width: (x.reshape(len(x), -1), lambda g, shares: g.reshape(x.shape)),
    nk.Relu: lambda layer, x, rng, width: (np.maximum(x, 0), lambda g, shares: g * (x > 0)),
    nk.Erf: lambda layer, x, rng, width: (erf(x), lambda g, shares: g * 2 / np.pi**0.5 * np.exp(-(x**2))),
}


def empirical(net, x, rng):
    """(nngp, ntk) of one draw; nngp is the read-out's covariance given its features."""
    *hidden, last = net.layers
    features, backward = serial(hidden, x, rng, WIDTH)
    nngp = last.W_std**2 / features.shape[1] * features @ features.T + last.b_std**2
    shares = []
    gradient = dense(last, features, rng, 1)[1](np.ones((len(x), 1)), shares)
    backward(gradient, shares)
    return nngp, sum(shares)


@pytest.mark.parametrize("name", NETS)
def test_wide_networks_scatter_about_the_kernel(name):
    """Within 4 standard errors (each below 7 %) and a bias of order 1/width."""
    image = any(isinstance(layer, nk.Conv) for layer in NETS[name].layers)
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 2) if image else (4, 7))
    rng = np.random.default_rng(1)
    draws = np.array([empirical(NETS[name], x, rng) for _ in range(DRAWS)])
    exact = nk.kernel(NETS[name], x, None, ("nngp", "ntk"))
    for k in (0, 1):
        mean, error = draws[:, k].mean(0), draws[:, k].std(0, ddof=1) / DRAWS**0.5
        scale = np.sqrt(np.outer(*[np.diag(exact[k])] * 2))
        assert (error < 0.07 * scale).all()
        assert (np.abs(mean - exact[k]) < 4 * error + 2 / WIDTH * scale).all()
