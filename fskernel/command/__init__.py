"""The face of the command `fskernel`: what it is told, before torch is loaded.

Importing `fskernel` loads torch, which takes seconds: too long for --help, for a misspelt option
and for completion. So the installed command, the file `fskernel` beside this one, imports these
files without the package around them; they name each other relatively, and nothing else of
fskernel. The work is in `fskernel.cli`.
"""
