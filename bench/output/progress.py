"""What is said while working: lines and progress bars on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console()
Say = Callable[[str], None]


def say(text: str) -> None:
    """One line of news."""
    console.print(text, style="dim", highlight=False, soft_wrap=True)


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar; the function it gives advances it.

    It is drawn only when it is advanced: a thread that redraws would disturb what is timed.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=quiet
    ) as progress:
        task = progress.add_task(title, total=total)
        progress.refresh()

        def advance(amount: int = 1) -> None:
            progress.update(task, advance=amount, refresh=True)

        yield advance
    if quiet:
        say(f"{title}: done")
