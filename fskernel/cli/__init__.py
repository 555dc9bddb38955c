"""The work of the command `fskernel`, a module per command; `fskernel.command` is its face."""
