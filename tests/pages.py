"""Running the pages that readers copy from."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(page: Path) -> Iterator[tuple[str, str]]:
    """Run a page's Python blocks top to bottom; yields what each `text` block says, and what the
    blocks since the one before have printed."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": page.stem}
    printed = io.StringIO()
    for block in BLOCK.finditer(text):
        if block.group(1) == "text":
            yield block.group(2), printed.getvalue()
            printed = io.StringIO()
            continue
        padded = "\n" * text.count("\n", 0, block.start(2)) + block.group(2)
        with contextlib.redirect_stdout(printed):
            exec(compile(padded, str(page), "exec"), names)
