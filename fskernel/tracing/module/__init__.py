"""The module that is given, as a list of named operations: copied, exported, read."""
