"""CONTRIBUTING.md is true: its commands exist, its tables are complete."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_make_targets_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    for target in phony.split():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert set(re.findall(r"`make (\w+)", PAGE)) == set(phony.split())


def test_named_files_are_where_it_says() -> None:
    named = re.findall(r"`((?:csrc|pgest|tests|\.ci)/[\w./]+|CHANGELOG\.md)`", PAGE)
    assert len(named) > 8
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_it_fits_one_screen() -> None:
    assert len(PAGE.splitlines()) <= 60
