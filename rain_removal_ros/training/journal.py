"""The log of a training run: a progress bar, lines of JSON, and TensorBoard if it is installed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Journal:
    """The log of one run; of several processes only the first keeps one."""

    def __init__(self, folder: Path, *, step: int, steps: int) -> None:
        self.file = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._forget_after(step)
        self._board = _tensorboard(folder, step)
        # A log file does not need a progress line ten times a second.
        every_s = 0.1 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=steps, initial=step, unit="step", dynamic_ncols=True, mininterval=every_s
        )

    def advance(self) -> None:
        self._bar.update()

    def note(
        self, step: int, seconds: float, core_seconds: float, values: Mapping[str, float]
    ) -> None:
        """Write numbers by name to the log and to TensorBoard, with wall time and processor
        time.
        """
        line = {"step": step, "seconds": round(seconds, 1), "core_seconds": round(core_seconds, 3)}
        line |= {name: float(f"{value:.6g}") for name, value in values.items()}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def show(self, values: Mapping[str, float]) -> None:
        """Show numbers beside the progress bar."""
        shown = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._bar.set_postfix_str(shown, refresh=False)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def _forget_after(self, step: int) -> None:
        """Drop lines of steps that were lost when the run was killed; they will be repeated."""
        if not self.file.is_file():
            return
        text = self.file.read_text(encoding="utf-8", errors="replace")
        kept = [line for line in text.splitlines(keepends=True) if _step_of(line) <= step]
        self.file.write_text("".join(kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite if a killed run left the line unfinished."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("no TensorBoard here; the log is in log.jsonl alone", file=sys.stderr)
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
