"""The FS network beside other runtimes and simulators: who they are, how they are compared."""
