"""What `pgest run NAME` runs: one folder for each task.

A task offers `run(argv) -> int` and, where its model can be asked, `predict(argv) -> int`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from pgest.errors import InputError

VERBS = ("run", "predict")


def task_names() -> list[str]:
    """Return the names of all tasks: the folders of this package, with a hyphen for `_`.

    Example:
        >>> "g2p" in task_names()
        True
    """
    return sorted(
        module.name.replace("_", "-") for module in iter_modules(__path__) if module.ispkg
    )


def main(verb: str, argv: list[str]) -> int:
    """Do `pgest VERB NAME ...`, the name being `argv[0]`, and return its exit status.

    Without a name, or with `--help`, the tasks are listed; an unknown name lists them on standard
    error and returns 2. What the user can mend, such as a missing package or a damaged file, is
    said in one line and returns 1.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_listing(verb))
        return 0
    name, *rest = argv
    if name not in _able(verb):
        print(f"pgest {verb}: there is no task {name!r}\n\n{_listing(verb)}", file=sys.stderr)
        return 2
    function: Callable[[list[str]], int] = getattr(_task(name), verb)
    try:
        return function(rest)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"pgest {verb} {name}: {error}", file=sys.stderr)
    except (InputError, FloatingPointError) as error:
        print(f"pgest {verb} {name}: {error}", file=sys.stderr)
    return 1


def _task(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def _able(verb: str) -> list[str]:
    """Return the tasks that offer this."""
    return [name for name in task_names() if hasattr(_task(name), verb)]


def _listing(verb: str) -> str:
    usage = {"run": "NAME [--preset PRESET] [flags]", "predict": "NAME [flags] INPUT..."}[verb]
    lines = [f"usage: pgest {verb} {usage} | NAME --help", "", "tasks:"]
    for name in _able(verb):
        summary = (_task(name).__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<12} {summary}")
    return "\n".join(lines)
