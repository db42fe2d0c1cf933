"""The README's code runs, top to bottom, as a reader would paste it."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def blocks(text: str) -> list[str]:
    """The Python blocks of a page, each padded so that a traceback shows the page's own lines."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, block.start(1)) + block.group(1) for block in found]


def test_blocks_are_found() -> None:
    page = "a\n```python\nx = 1\n```\n```bash\nrm x\n```\n```python\nx += 1\n```\n"
    assert [block.strip() for block in blocks(page)] == ["x = 1", "x += 1"]
    assert blocks(page)[1].splitlines()[8] == "x += 1"


def test_the_readme_runs() -> None:
    found = blocks(README.read_text(encoding="utf-8"))
    assert found
    names: dict[str, object] = {"__name__": "readme"}
    for block in found:
        exec(compile(block, str(README), "exec"), names)
