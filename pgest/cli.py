"""The command `pgest`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pgest
from pgest import doctor

DESCRIPTION = "Gradients through discrete choices, for PyTorch."


def parser() -> argparse.ArgumentParser:
    """The command line, except for what follows a command that has one of its own."""
    top = argparse.ArgumentParser("pgest", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"pgest {pgest.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("doctor", help="what this installation can do, and what it lacks")
    compare = "which gradient estimator to use for a cost and a distribution, measured"
    commands.add_parser("compare", help=compare, add_help=False)
    commands.add_parser("run", help="run a task: `pgest run` lists them", add_help=False)
    commands.add_parser("predict", help="ask a task's tuned model", add_help=False)
    return top


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The extra that would bring the module which was not found, None when none would."""
    wanted = (error.name or "").partition(".")[0].replace("_", "-").lower()
    return next((name for name, needs in doctor.extras().items() if wanted in needs), None)


def delegate(verb: str, args: list[str]) -> int:
    """Another module's command; says which extra to install where one is missing."""
    try:
        if verb == "compare":
            from pgest.comparison import command

            return command.main(args)
        from pgest import tasks

        return tasks.main(verb, args)
    except ModuleNotFoundError as error:
        name = missing_extra(error)
        if name is None:
            raise
        print(f"pgest {verb} needs {error.name}: pip install 'pgest[{name}]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        if str(stop):
            print(f"\npgest {verb}: {stop}", file=sys.stderr)
        return 130  # what a shell reports for a command that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 on success, 1 on failure, 2 on misuse."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["run"], ["predict"], ["compare"]):  # `--help` behind them is theirs
        return delegate(args[0], args[1:])
    parser().parse_args(args)
    return doctor.main()
