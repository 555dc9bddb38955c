"""Risk: a link in the docs leads nowhere, a page or public name is missing, the tutorial fails."""

import json
import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

import fskernel
from bench import ROOT

DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "tutorial.ipynb"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), NOTEBOOK]
LINK = re.compile(r'(?:\]\(|\b(?:src|srcset|href)=")([^()\s"]+)')


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text())
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind]


def text_of(page):
    """Markdown without code."""
    text = "\n\n".join(cells("markdown")) if page == NOTEBOOK else page.read_text()
    return re.sub(r"^(```|~~~).*?^\1|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """What GitHub makes of a page's headings."""
    text = "\n\n".join(cells("markdown")) if page == NOTEBOOK else page.read_text()
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    wrong = []
    for link in LINK.findall(text_of(page)):
        url = urlsplit(link)
        if url.scheme:
            good = url.scheme == "https" and "." in url.netloc
        else:
            target = (page.parent / url.path).resolve() if url.path else page
            good = target.exists() and (not url.fragment or url.fragment in anchors(target))
        if not good:
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_fits_into_120_columns(page):
    text = "\n\n".join(cells("markdown")) if page == NOTEBOOK else page.read_text()
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert not long


def test_headings_of_a_page_have_anchors_of_their_own():
    for page in PAGES:
        found = anchors(page)
        assert len(found) == len(set(found)), page


def test_every_page_is_in_the_navigation_once():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0]
    named = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    other = ["index.md", "tutorial.md", "CONTRIBUTING.md", "SECURITY.md"]
    assert sorted(named) == sorted(pages + other)


def test_every_public_name_is_in_the_reference_once():
    texts = [page.read_text() for page in (DOCS / "api").glob("*.md")]
    named = re.findall(r"^::: fskernel\.(\w+)$", "\n".join(texts), re.MULTILINE)
    assert sorted(named) == sorted({*fskernel.__all__, "ops"} - {"__version__"})


def test_the_notebook_is_kept_without_what_it_printed():
    """Outputs are of the day and the machine: `make tutorial` makes them anew for the site."""
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_the_tutorial_runs():
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    program = "\n".join(cells("code")).replace("%matplotlib inline", "")
    program += "\nassert accuracy(logits) > 0.95 and rows[-1]['agreement'] > 0.95"
    settings = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "same logits: True" in done.stdout
