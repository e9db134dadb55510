"""What is shown while items are embedded: on a terminal a live line, in a log one now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from setrep.training.progress import clock

LOG_SECONDS = 30.0


class ItemProgress:
    """Show items done, items a second and the time left, on standard error."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.console = Console(stderr=True)
        self.total, self.before, self.done = total, done, done
        self.bar = Progress(
            TextColumn("embedding {task.completed}/{task.total}"),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, completed=done)
        self.began = self.last_line = time.monotonic()

    def __enter__(self) -> ItemProgress:
        if self.before:
            self.console.print(
                f"{self.before} of {self.total} items are embedded already.", highlight=False
            )
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        """Count items as done."""
        self.done += count
        now = time.monotonic()
        rate = (self.done - self.before) / max(now - self.began, 1e-9)
        text = f"{rate:,.0f} items/s  {clock((self.total - self.done) / rate)} left"
        self.bar.update(self.task, completed=self.done, description=text)
        if not self.console.is_terminal and now - self.last_line >= LOG_SECONDS:
            self.last_line = now
            self.console.print(f"embedding {self.done}/{self.total}  {text}", highlight=False)
