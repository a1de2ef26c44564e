"""PyTorch, or an error that names the extra."""

try:
    import torch as torch
except ImportError:
    raise ImportError('finite networks need PyTorch: pip install "ntkcore[torch]"') from None
