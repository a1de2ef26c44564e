"""Finite networks beside their frozen limit: PyTorch modules of a spec, empirical kernels, linearisation, laziness.

    module = to_torch(mlp(2), width=1024, input_shape=(784,))
    history = train(module, x, y, lr=1.0, steps=1000)
    K = empirical_ntk(module, x)

Needs PyTorch: ``pip install "ntkcore[torch]"``.
"""
