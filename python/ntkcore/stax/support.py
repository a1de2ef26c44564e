"""Arguments of neural-tangents that have one value here, and what to do instead of others."""

from __future__ import annotations

from typing import Any

# What an argument may be, and what to do for other values.
SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "batch_axis": ((0,), "samples lie along axis 0; move them there with np.moveaxis"),
    "batch_axis_out": ((0,), "samples stay along axis 0"),
    "channel_axis": (
        (-1,),
        "features or channels lie along the last axis; move them there with np.moveaxis",
    ),
    "dimension_numbers": (
        (None, ("NHWC", "HWIO", "NHWC")),
        "images are NHWC; move their channels to the end with np.moveaxis(x, 1, -1)",
    ),
    "s": (((1, 1),), "give every layer its own width as out_dim or out_chan, and leave s out"),
    "diagonal_batch": (
        (None, True),
        "cov1 is every sample's variance; for all pairs ask for 'nngp' of x1 alone",
    ),
    "diagonal_spatial": (
        (None, False),
        "pixels are followed as the network needs them: leave it out",
    ),
    "do_stabilize": ((False, True), "say True or False"),
    "do_clip": ((False, True), "say True or False"),
    "approximate": (
        (False,),
        "it concerns finite networks, which are not here, and leaves the kernel as it is",
    ),
    "device_count": (
        (-1, 0),
        "name GPUs by backend='cuda' and devices= of ntkcore.kernel, and leave it out",
    ),
    "store_on_device": ((True, False), "say True or False; kernels are NumPy arrays either way"),
}


def check(layer: str, **arguments: Any) -> None:
    """NotImplementedError for a value that is not supported."""
    for name, value in arguments.items():
        allowed, advice = SUPPORTED[name]
        value = tuple(value) if isinstance(value, list) else value
        if not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed
        ):
            raise NotImplementedError(f"stax.{layer}: {name}={value!r} is not supported: {advice}")
