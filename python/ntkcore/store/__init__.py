"""Kernels on disk: plain Zarr stores that are built, enlarged, resumed and verified,
whatever interrupts it.
"""
