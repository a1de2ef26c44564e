"""Networks of graphs of finite width, and their empirical kernels, by PyTorch alone."""

import math

import numpy as np
import torch

import ntkcore as nk


def outputs(layers, h, pattern, params):
    """Of a spec's layers, one after another; parameters are taken as they come."""
    for layer in layers:
        if isinstance(layer, nk.Aggregate):
            h = pattern @ h
        elif isinstance(layer, nk.Dense):
            h = h @ next(params) * (layer.W_std / math.sqrt(h.shape[-1]))
            if layer.b_std is not None:
                h = h + layer.b_std * next(params)
        elif isinstance(layer, nk.Relu):
            h = torch.relu(h)
        elif isinstance(layer, nk.GlobalSumPool):
            h = h.sum(-2)
        elif isinstance(layer, nk.Residual):
            h = h + outputs(layer.branch, h, pattern, params)
        else:
            assert isinstance(layer, nk.GraphInput)
    return h


def drawn(layers, channels, width, generator):
    """Parameters of all layers, in their order."""
    params = []
    for layer in layers:
        if isinstance(layer, nk.Dense):
            params.append(torch.randn(channels, width, generator=generator, dtype=torch.float64))
            channels = width
            if layer.b_std is not None:
                params.append(torch.randn(width, generator=generator, dtype=torch.float64))
        elif isinstance(layer, nk.Residual):
            params += drawn(layer.branch, channels, width, generator)
    return params


def empirical(layers, samples, width, seed, few=1):
    """NNGP (over all outputs) and NTK (over the first few) of all rows that samples (features,
    pattern) give.
    """
    generator = torch.Generator().manual_seed(seed)
    params = drawn(layers, samples[0][0].shape[1], width, generator)
    for p in params:
        p.requires_grad_()
    rows = []
    for features, pattern in samples:
        h, P = (torch.as_tensor(np.asarray(a, float)) for a in (features, pattern))
        rows.append(outputs(layers, h, P, iter(params)).reshape(-1, width))
    out = torch.cat(rows)
    ntk = 0
    for channel in range(few):
        grads = [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(f, params, retain_graph=True)])
            for f in out[:, channel]
        ]
        J = torch.stack(grads)
        ntk = ntk + J @ J.T / few
    out = out.detach()
    return (out @ out.T / width).numpy(), ntk.numpy()


def deviations(layers, samples, expected, width, seeds):
    """How many standard errors the mean of finite kernels is from the expected ones, (2, n, n)."""
    found = np.array([empirical(layers, samples, width, seed) for seed in range(seeds)])
    return (found.mean(0) - expected) / (found.std(0, ddof=1) / math.sqrt(seeds))
