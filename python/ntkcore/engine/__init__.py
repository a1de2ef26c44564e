"""Kernels of data: inputs checked, tiles shared out, CPU and GPU behind one call."""
