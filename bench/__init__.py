"""The harness: one command measures a network as ANN, as FS network and rate-coded.

Start reading at `run.py`; `conf/` holds the Hydra groups it is configured with.
"""
