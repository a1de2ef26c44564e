"""The falsifier under its first address: `ntkcore.falsifier`."""

from ntkcore.falsifier import *  # noqa: F403
from ntkcore.falsifier import __all__ as __all__
