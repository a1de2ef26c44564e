"""Infinitely wide training in closed form, spectra, and what theory makes of them."""
