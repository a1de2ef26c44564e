"""neural_tangents.stax of neural-tangents 0.6.5 under a JAX newer than 0.5,
which lacks names that 0.6.5 imports.

`install()` before `import neural_tangents`: the names that stax needs are put back, and the
package's own __init__ is left out, since it imports TensorFlow and rules of JAX's interpreter that
are gone. Tried with JAX 0.11.2.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types

_MOVED = ("Jaxpr", "JaxprEqn", "Literal", "Var", "Primitive", "AbstractValue", "ShapedArray")


def needed() -> bool:
    import jax

    return jax.__version_info__ >= (0, 6)


def install() -> None:
    import jax._src.core
    import jax._src.util
    import jax.core

    for name in _MOVED:
        setattr(jax.core, name, getattr(jax._src.core, name))
    sys.modules["jax.util"] = jax._src.util
    spec = importlib.util.find_spec("neural_tangents")
    if spec is None:
        raise ModuleNotFoundError("no package neural_tangents on this Python's path")
    package = types.ModuleType("neural_tangents")
    package.__path__ = list(spec.submodule_search_locations or [])
    package.__version__ = importlib.metadata.version("neural-tangents")  # type: ignore[attr-defined]
    sys.modules["neural_tangents"] = package
