"""What a person sees while a run trains: a progress bar and TensorBoard's curves."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pgest.runs.config import Config
from pgest.runs.history import Figures, History

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

WINDOW = 50
"""Updates over which the progress bar averages."""


class Logs:
    """Shows the figures of updates and evaluations; a context manager, which closes both.

    `shown` names the figures of the progress bar. Of what an earlier attempt wrote for TensorBoard
    that is kept which `history` has.

    Raises:
        ImportError: where tqdm or tensorboard is missing.
    """

    def __init__(
        self, config: Config, folder: Path, history: History, shown: tuple[str, ...], bar: bool
    ) -> None:
        start = len(history.updates)
        self.shown = shown
        self.writer = _writer(folder, start) if config.tensorboard else None
        self.bar = _bar(config.steps, start, bar)
        if history.evaluations and history.evaluations[-1]["step"] == start:
            self.evaluation(history)  # the purge took it

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def update(self, history: History) -> None:
        """Show the last update."""
        row = history.updates[-1]
        self._write("update", row)
        self.bar.update()
        if row["step"] % 10 == 0:
            self.bar.set_postfix_str(summary(history, self.shown))

    def evaluation(self, history: History) -> None:
        """Show the last evaluation."""
        self._write("held-out", history.evaluations[-1])
        self.bar.set_postfix_str(summary(history, self.shown))

    def warn(self, sentence: str) -> None:
        """Print a warning above the progress bar."""
        self.bar.write(f"warning: {sentence}")

    def _write(self, group: str, row: Figures) -> None:
        if self.writer is None:
            return
        for name, value in row.items():
            if name != "step":
                self.writer.add_scalar(f"{group}/{name}", value, int(row["step"]))


def summary(history: History, shown: tuple[str, ...]) -> str:
    """Return the mean of recent updates and the last held-out figures on one line.

    Example:
        >>> summary(History([{"step": 0, "reward": 0.5}], [{"step": 0, "WER": 31.25}]), ("WER",))
        'WER 31.2'
    """
    held_out: Figures = history.evaluations[-1] if history.evaluations else {}
    parts = []
    for name in shown:
        recent = [row[name] for row in history.updates[-WINDOW:] if name in row]
        if name in held_out:
            parts.append(f"{name} {held_out[name]:.3g}")
        elif recent:
            parts.append(f"{name} {sum(recent) / len(recent):.3g}")
    return "  ".join(parts)


def _bar(total: int, start: int, visible: bool) -> tqdm[Any]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('the progress bar needs tqdm: pip install "pgest[tasks]"') from error
    return tqdm(total=total, initial=start, disable=not visible, dynamic_ncols=True, smoothing=0.05)


def _writer(folder: Path, start: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            'curves for TensorBoard need tensorboard: pip install "pgest[tasks]"; '
            "--no-tensorboard does without"
        ) from error
    return SummaryWriter(str(folder), purge_step=start)
