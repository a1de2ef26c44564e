"""Network specs from JSON text, as `Layer.to_json` writes it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from ntkcore.specs import (
    activations,
    attention,
    beside,
    branches,
    convolutions,
    elementwise,
    positions,
    recurrent,
)
from ntkcore.specs.layers import LAYERS, Container, Layer

WRITTEN_IN = (
    activations,
    attention,
    beside,
    branches,
    convolutions,
    elementwise,
    positions,
    recurrent,
)  # imported, their layers are known by name


def _layer(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_layer(v) for v in value)
    if not (isinstance(value, dict) and "layer" in value):
        return value
    arguments = {k: _layer(v) for k, v in value.items() if k != "layer"}
    if not isinstance(value["layer"], str) or value["layer"] not in LAYERS:
        raise ValueError(f"unknown layer {value['layer']!r}; known: {', '.join(sorted(LAYERS))}")
    cls = LAYERS[value["layer"]]
    unknown = arguments.keys() - {f.name for f in fields(cls)}
    if unknown:
        raise ValueError(f"layer {cls.__name__} has no field {', '.join(sorted(unknown))}")
    try:
        return cls._from_fields(arguments) if issubclass(cls, Container) else cls(**arguments)
    except (KeyError, TypeError) as error:
        raise ValueError(f"layer {cls.__name__} has missing or ill-typed fields: {error}") from None


def from_json(text: str) -> Layer:
    """The spec written by `Layer.to_json`. ValueError names an unknown layer or field."""
    if not isinstance(text, (str, bytes)):
        raise TypeError(
            "a network spec must be JSON text, as Layer.to_json writes it, not"
            f" {type(text).__name__}"
        )
    try:
        net = _layer(json.loads(text))
    except RecursionError:
        raise ValueError("a network spec must not be nested so deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"a network spec must be JSON text, as Layer.to_json writes it: {error}"
        ) from None
    if not isinstance(net, Layer):
        raise ValueError(
            'a network spec must be a JSON object with a "layer" name, as Layer.to_json writes it'
        )
    return net
