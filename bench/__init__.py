"""What measures fskernel: the commands, and what they need in a folder for each thing it does.

Start reading at `run.py`, which measures a network as ANN, as FS network and rate-coded, and at
`measures/harness.py`; `conf/` holds the Hydra groups it is configured with.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the repository
