"""The application with all its commands."""

from ntkcore.cli import info, kernels, solutions, studies
from ntkcore.cli.app import app

__all__ = ["app", "info", "kernels", "solutions", "studies"]
