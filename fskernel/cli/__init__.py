"""The work of the command `fskernel`, a module per command; `fskernel_command` is its face."""
