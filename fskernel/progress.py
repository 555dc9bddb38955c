"""A progress bar on long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, total: int | None, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar of `total` parts on stderr, or nothing.

    The function it gives says which part is done or begins.

    Raises:
        ImportError: it is to be shown, and rich is not installed.
    """
    if not shown:
        yield lambda name: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError as error:
        raise ImportError("progress=True needs rich: pip install rich") from error
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda name: bar.update(task, description=f"{title} {name}", advance=1)
