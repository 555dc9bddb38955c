"""The compiled library: its kernels as functions, and on which devices they run."""
