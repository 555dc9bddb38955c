"""Risk: the worked example in docs/how-it-works.md does not compute what the page says."""

import re

from bench import ROOT


def test_the_example_runs():
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert program.count("assert ") == 4
    exec(compile(program, "docs/how-it-works.md", "exec"), {})
