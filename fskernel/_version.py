"""The one place that states fskernel's version; setup.py and the package both read it."""

__version__ = "0.1.0"
