"""Pictures of dynamics and spectra, with Matplotlib."""
