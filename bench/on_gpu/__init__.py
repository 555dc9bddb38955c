"""The session on a GPU that `make gpu` holds: what is done, measured, kept and told.

`bench/gpu.py` is the command. It and what it imports need neither torch nor a working library to
say what will be done; whatever touches the GPU runs in a process of its own (`child.py`).
"""
