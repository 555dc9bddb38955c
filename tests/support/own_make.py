"""The environment of a make of its own: nothing of the make that runs the tests."""

import os
import re

# What was typed behind `make test` comes along as variables, too.
TYPED = re.findall(r"(?:^|\s)(\w+)=", os.environ.get("MAKEFLAGS", ""))
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("MAKE", "MFLAGS", "FSKERNEL_")) and name not in TYPED
}
