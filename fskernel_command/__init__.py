"""The face of the command `fskernel`: what it is told, before torch is loaded.

A package of its own, because importing anything of `fskernel` loads torch, which takes seconds:
too long for --help, for a misspelt option and for completion. The work is in `fskernel.cli`.
"""
