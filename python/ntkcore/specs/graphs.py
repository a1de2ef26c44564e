"""Ready networks of graphs."""

from __future__ import annotations

from ntkcore.specs.activations import Relu
from ntkcore.specs.beside import Aggregate, GraphInput
from ntkcore.specs.branches import Residual
from ntkcore.specs.convolutions import GlobalSumPool
from ntkcore.specs.layers import Dense, Layer, Serial, is_whole
from ntkcore.specs.nets import HE


def gntk(
    blocks: int,
    layers: int = 2,
    jumping_knowledge: bool = True,
    W_std: float = HE,
    b_std: float | None = None,
    activation: Layer | None = None,
) -> Serial:
    """The graph network of the graph neural tangent kernel, on graphs packed by `pack_graphs`.

    A block sums over neighbours, then has ``layers`` hidden layers at every node; the read-out sums
    over nodes.

    Parameters
    ----------
    blocks : int
        Sums over neighbours: BLOCK operations.
    layers : int, default=2
        Hidden layers of a block.
    jumping_knowledge : bool, default=True
        Whether the read-out is that of the features and of all blocks together, or of the last
        block alone.
    W_std : float, default=sqrt(2)
        Standard deviation of all weights but the first layer's, which is 1: He's scaling.
    b_std : float, optional
        That of all biases; None: no biases.
    activation : Layer, optional
        By default `Relu`.

    Returns
    -------
    Serial

    Notes
    -----
    The authors' kernel is 2 d times this network's NTK, d the number of features: they sum where
    this package takes means over features, and count the read-out twice. (Their ``num_layers`` is
    ``blocks + 1``, their ``num_mlp_layers`` is ``layers``.) Weights of sums over neighbours, c_u in
    the paper, are those of `pack_graphs`: "uniform" or "degree".

    References
    ----------
    Du et al. 2019 (arXiv 1905.13192), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> import ntkcore as nk
    >>> path = np.eye(3, k=1) + np.eye(3, k=-1)
    >>> graphs = nk.pack_graphs([(np.ones((3, 1)), path), (np.ones((2, 1)), path[:2, :2])])
    >>> nk.kernel(nk.gntk(1, 1), graphs)
    array([[107.,  62.],
           [ 62.,  36.]])
    """
    for name, count in (("blocks", blocks), ("layers", layers)):
        if not is_whole(count) or count < 1:
            raise ValueError(f"gntk: {name} must be a positive number, not {count!r}")
    if not isinstance(jumping_knowledge, bool):
        raise TypeError(f"gntk: jumping_knowledge must be True or False, not {jumping_knowledge!r}")
    block = Aggregate(), *(activation or Relu(), Dense(W_std, b_std)) * int(layers)
    body: tuple[Layer, ...] = block * int(blocks)
    if jumping_knowledge:
        body = ()
        for _ in range(int(blocks)):
            body = (Residual(*block, *body),)
    return Serial(GraphInput(), Dense(1.0, b_std), *body, GlobalSumPool())
