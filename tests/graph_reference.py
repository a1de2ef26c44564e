"""Kernels of graphs as their papers write them, slow and plain: no code of the engine's."""

import numpy as np


def relu(K, q, r):
    """Both duals of ReLU, times 2, from covariances and variances."""
    scale = np.sqrt(np.outer(q, r))
    c = K / scale
    c = np.where(1 - np.abs(c) < 1e-14, np.sign(c), c)  # arccos takes its rounding's root
    angle = np.arccos(c)
    return scale * (c * (np.pi - angle) + np.sqrt(1 - c * c)) / np.pi, (np.pi - angle) / np.pi


class PlainGntk:
    """The recursion of Du et al. 2019 in the order of its authors' code, Kronecker products and
    all: ``num_layers`` counts the input.
    """

    def __init__(self, num_layers, num_mlp_layers, jk, scale):
        self.num_layers, self.num_mlp_layers, self.jk, self.scale = (
            num_layers,
            num_mlp_layers,
            jk,
            scale,
        )

    def aggregate(self, S, A1, A2):
        out = (np.kron(A1, A2) @ S.reshape(-1)).reshape(S.shape)
        if self.scale == "degree":
            out = out / np.outer(A1.sum(axis=1), A2.sum(axis=1))
        return out

    def variances(self, features, A):
        """Of every node before every ReLU."""
        found = []
        sigma = self.aggregate(features @ features.T, A, A)
        for layer in range(1, self.num_layers):
            for _ in range(self.num_mlp_layers):
                q = np.diag(sigma).copy()
                found.append(q)
                sigma, _ = relu(sigma, q, q)
                np.fill_diagonal(sigma, q)
            if layer != self.num_layers - 1:
                sigma = self.aggregate(sigma, A, A)
        return found

    def gntk(self, graph1, graph2, q1, q2):
        """The kernel of two graphs (features, A + I)."""
        (features1, A1), (features2, A2) = graph1, graph2
        sigma = features1 @ features2.T
        jump = sigma.copy()
        sigma = self.aggregate(sigma, A1, A2)
        theta = sigma.copy()
        stage = 0
        for layer in range(1, self.num_layers):
            for _ in range(self.num_mlp_layers):
                sigma, slope = relu(sigma, q1[stage], q2[stage])
                theta = theta * slope + sigma
                stage += 1
            jump += theta
            if layer != self.num_layers - 1:
                sigma = self.aggregate(sigma, A1, A2)
                theta = self.aggregate(theta, A1, A2)
        return 2 * np.sum(jump if self.jk else theta)

    def matrix(self, graphs):
        """Of graphs (features, adjacency)."""
        looped = [(features, A + np.eye(len(A))) for features, A in graphs]
        q = [self.variances(*graph) for graph in looped]
        return np.array(
            [
                [self.gntk(a, b, qa, qb) for b, qb in zip(looped, q, strict=True)]
                for a, qa in zip(looped, q, strict=True)
            ]
        )


def random_graph(rng, nodes, features, chords=0.3, weighted=True):
    """A cycle with chords, its edges weighted (else nodes may have equal neighbours), and Gaussian
    features.
    """
    A = np.triu(rng.random((nodes, nodes)) < chords, 1).astype(float)
    at = np.arange(nodes)
    A[at, (at + 1) % nodes] = 1
    A *= rng.uniform(0.5, 1.5, A.shape) if weighted else 1
    A = np.maximum(A, A.T) * (1 - np.eye(nodes))
    return rng.standard_normal((nodes, features)), A
