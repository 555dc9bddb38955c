"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8x8 pixels.

They are the test half of the UCI repository's "Optical Recognition of Handwritten Digits"
(E. Alpaydin, C. Kaynak, 1998; CC BY 4.0). Nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.errors import UserError
from bench.inputs.in_memory import InMemory

TRAINING = 1200  # the first images, in the file's order; those behind them are the test split
BRIGHTEST = 16  # grey levels there are 0 to 16


def load(split: str) -> InMemory:
    """The images of `split`, "train" or "test"; the split is fixed, by their order there.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(
            "data=digits: the digits are those of scikit-learn: pip install scikit-learn"
        ) from error
    found = load_digits()
    part = slice(None, TRAINING) if split == "train" else slice(TRAINING, None)
    levels = np.rint(found.images[part] * 255 / BRIGHTEST).astype(np.uint8)
    return InMemory(
        torch.from_numpy(levels[..., None]),
        torch.from_numpy(found.target[part]).long(),
        f"scikit-learn's digits, {'training' if split == 'train' else 'test'} part",
        classes=len(found.target_names),
        shift=1,
        mirrored=False,  # a mirrored 3 is no digit
    )
