"""What `pgest run NAME` runs: one folder for each task, with `main(argv) -> int` in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules


def task_names() -> list[str]:
    """Return the names of all tasks: the folders of this package.

    Example:
        >>> "g2p" in task_names()
        True
    """
    return sorted(module.name for module in iter_modules(__path__) if module.ispkg)


def main(argv: list[str]) -> int:
    """Run the task named by `argv[0]` with the arguments that follow, and return its exit status.

    Without a name, or with `--help`, the tasks are listed; an unknown name lists them on standard
    error and returns 2. A task whose optional packages are missing says so and returns 1.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_listing())
        return 0
    name, *rest = argv
    if name not in task_names():
        print(f"pgest run: there is no task {name!r}\n\n{_listing()}", file=sys.stderr)
        return 2
    run: Callable[[list[str]], int] = import_module(f"{__name__}.{name}").main
    try:
        return run(rest)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"pgest run {name}: {error}", file=sys.stderr)
        return 1


def _listing() -> str:
    lines = ["usage: pgest run NAME [--preset PRESET] [flags] | NAME --help", "", "tasks:"]
    for name in task_names():
        summary = (import_module(f"{__name__}.{name}").__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<12} {summary}")
    return "\n".join(lines)
