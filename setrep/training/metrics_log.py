"""What a run logs: one JSON object a line, and TensorBoard events where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from setrep import distributed
from setrep.errors import InputError
from setrep.files import write_atomically

FILE = "metrics.jsonl"


class MetricsLog:
    """Write `metrics.jsonl` and TensorBoard events in a run directory, on rank 0 only.

    Records after `start` are dropped first: a continued run writes them again.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.path = directory / FILE
        self.is_writer = distributed.rank() == 0
        self.board: Any = None
        if self.is_writer:
            cut_metrics(self.path, start)
            self.board = tensorboard_writer(directory, start)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.board:
            self.board.close()

    def write(self, step: int, record: dict[str, float]) -> None:
        """Append the record of a step.

        Raises:
            InputError: the disk is full, or the file cannot be written.
        """
        if not self.is_writer:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step} | record) + "\n")
        except OSError as error:
            raise InputError(
                f"Cannot write {self.path}: {error.strerror}. The last checkpoint is kept; "
                f"free some space and continue with --resume."
            ) from error
        if self.board:
            for name, value in record.items():
                self.board.add_scalar(name, value, step)


def tensorboard_writer(directory: Path, start: int) -> Any:
    """Return a writer of events that replace those after `start`, or none without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(directory / "tensorboard", purge_step=start + 1)


def cut_metrics(path: Path, step: int) -> None:
    """Drop records of steps after the one a run continues from."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if is_record_up_to(line, step)]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def is_record_up_to(line: str, step: int) -> bool:
    """Return whether a line is a whole record of a step no later than `step`."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):  # the line that a kill cut short
        return False
