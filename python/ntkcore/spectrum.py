"""What a kernel's eigenvalues say: the address of `ntkcore.theory.spectrum`."""

from ntkcore.theory.spectrum import (
    Conditioning,
    PowerLaw,
    Spectrum,
    certified_decay,
    conditioning,
    power_law,
    spectrum,
)

__all__ = [
    "Conditioning",
    "PowerLaw",
    "Spectrum",
    "certified_decay",
    "conditioning",
    "power_law",
    "spectrum",
]
