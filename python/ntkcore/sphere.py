"""Networks on the sphere: the address of `ntkcore.theory.sphere`."""

from ntkcore.theory.sphere import (
    SphereSpectrum,
    degeneracy,
    dot_product_kernel,
    legendre,
    order_power,
    random_points,
    sphere_spectrum,
)

__all__ = [
    "SphereSpectrum",
    "degeneracy",
    "dot_product_kernel",
    "legendre",
    "order_power",
    "random_points",
    "sphere_spectrum",
]
