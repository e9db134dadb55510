"""What is shown while a run trains: a live line on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

SHOWN = {"loss": "loss", "active_share": "active", "embedding_spread": "spread"}


def clock(seconds: float) -> str:
    """Write a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class TrainingProgress:
    """Show step, loss, active-triplet share, embedding spread, images a second and time left."""

    def __init__(self, console: Console, max_steps: int, start: int, *, log_seconds: float = 30.0):
        self.console = console
        self.max_steps, self.start = max_steps, start
        self.log_seconds = log_seconds
        self.last_line = float("-inf")
        self.bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=max_steps, completed=start)

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def note(self, step: int, measured: dict[str, float]) -> None:
        """Print what was measured between epochs, above the live line."""
        values = "  ".join(f"{name} {100 * value:.1f} %" for name, value in measured.items())
        if values:
            self.console.print(f"step {step}/{self.max_steps}  {values}", highlight=False)

    def show(self, step: int, record: dict[str, float]) -> None:
        """Show the record of a step."""
        parts = [f"{label} {record[key]:.3g}" for key, label in SHOWN.items() if key in record]
        rate = record["images_per_second"]
        left = record["seconds_per_step"] * (self.max_steps - step)
        text = f"{'  '.join(parts)}  {rate:.0f} images/s  {clock(left)} left"
        self.bar.update(self.task, completed=step, description=text)
        now = time.monotonic()
        due = now - self.last_line >= self.log_seconds or step == self.max_steps
        if not self.console.is_terminal and due:
            line = f"step {step}/{self.max_steps}  {text}"
            self.console.print(line, highlight=False, soft_wrap=True)
            self.last_line = now
