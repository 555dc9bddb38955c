"""What the site needs beyond the pages in docs/: other files of the repository as pages.

The first page is README.md. A page may link to any file of the repository as GitHub wants it,
`../CONTRIBUTING.md` for example: every file that is linked to becomes a page, and the link leads
there.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[2]
# What `make tutorial` writes: the notebook with what its cells give, as Markdown, and the figures.
TUTORIAL = ROOT / "outputs" / "tutorial"
# Pages whose place on the site does not follow from their file's.
PAGES = {"README.md": "index.md", "docs/tutorial.ipynb": "tutorial.md"}
FILES = {page: file for file, page in PAGES.items()}

LINK = re.compile(r'(\]\(|\b(?:src|srcset|href)=")([^()\s"]+)')
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def on_files(files, config):
    """Adds the executed notebook, the first page, and whatever pages link to outside docs/."""
    if not (TUTORIAL / "tutorial.md").is_file():
        raise PluginError(f"{TUTORIAL} has no tutorial.md: run `make docs`, which makes it")
    for path in sorted(p for p in TUTORIAL.rglob("*") if p.is_file()):
        name = path.relative_to(TUTORIAL).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    pages = [(source(f.src_uri), f.content_string) for f in files.documentation_pages()]
    waiting = ["README.md"] + [target for page in pages for target in targets(*page)]
    while waiting:
        target = waiting.pop()
        if target.startswith("docs/") or files.get_file_from_path(place(target)) is not None:
            continue
        text = (ROOT / target).read_text()
        if target.endswith(".md"):
            waiting += targets(target, text)
        else:
            text = f"# {target}\n\n```{language(target)}\n{text.rstrip()}\n```\n"
        page = {"content": text, "inclusion": InclusionLevel.NOT_IN_NAV}
        files.append(File.generated(config, place(target), **page))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads links to files of the repository to their pages."""
    here = source(page.file.src_uri)

    def led(link):
        target, mark, anchor = link[2].partition("#")
        target = file_of(here, target)
        if target in (None, here):
            return link[0]
        return link[1] + posixpath.relpath(place(target), place(here) + "/..") + mark + anchor

    parts = split(markdown)
    return "".join(part if is_code else LINK.sub(led, part) for part, is_code in parts)


def source(uri):
    """The file of the repository that a page of the site shows."""
    return FILES.get(uri) or (f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri)


def place(file):
    """Where the site has a file of the repository."""
    if file in PAGES:
        return PAGES[file]
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    return file if file.endswith(".md") else f"{file}.md"


def file_of(page, link):
    """The file of the repository that a link on a page leads to, or None."""
    if not link or ":" in link:
        return None
    file = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return file if (ROOT / file).is_file() else None


def targets(page, text):
    """The files of the repository that a page links to."""
    links = (
        m[2].partition("#")[0]
        for part, is_code in split(text)
        if not is_code
        for m in LINK.finditer(part)
    )
    return [file for file in (file_of(page, link) for link in links) if file]


def split(markdown):
    """The parts of a page, and whether each is a block of code."""
    end, parts = 0, []
    for block in CODE.finditer(markdown):
        parts += [(markdown[end : block.start()], False), (block[0], True)]
        end = block.end()
    return [*parts, (markdown[end:], False)]


def language(file):
    """What a file's text is highlighted as."""
    return {".py": "python", ".yaml": "yaml"}.get(Path(file).suffix, "text")
