"""What torch asks of whoever calls kernels: gradients, compilers, exporters, forks, settings."""
