"""`pgest predict g2p`: pronounce words with a tuned model."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from pgest.runs.loop import BEST
from pgest.runs.run import RECORD
from pgest.tasks.g2p.checkpoint import initial_model
from pgest.tasks.g2p.words import phonemes, pronounce, spell

EPILOG = "Without --model, the newest finished run in --output is used."


def main(argv: list[str]) -> int:
    """Print the pronunciation of each word as shipped and as tuned."""
    parser = ArgumentParser("pgest predict g2p", description=__doc__, epilog=EPILOG)
    parser.add_argument("words", nargs="+", metavar="WORD", help="letters a to z; case is ignored")
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="a run's folder, its best.safetensors, an .npz in g2p-en's format, or: shipped",
    )
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the runs")
    args = parser.parse_args(argv)
    try:
        letters = spell([word.lower() for word in args.words])
        source = model_of(args.model, args.output)
        models = {"shipped": initial_model("shipped")}
        if source != "shipped":
            models[f"tuned ({source})"] = initial_model(source)
    except ValueError as error:
        parser.error(str(error))
    columns = [["word", *args.words]]
    for name, model in models.items():
        columns.append([name, *map(phonemes, pronounce(model, *letters))])
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    return 0


def model_of(name: str | None, output: Path) -> str:
    """Return the path of the weights that `--model` names, or those of the newest finished run.

    Raises:
        ValueError: where there is no finished run.
    """
    if name is not None:
        return name
    finished = sorted(
        (path for path in output.glob(f"g2p-*/{RECORD}")), key=lambda path: path.stat().st_mtime
    )
    if not finished:
        raise ValueError(
            f"output: {output} must hold a finished run of g2p, got none; make one with `pgest run "
            "g2p`, or name a model with --model"
        )
    return str(finished[-1].parent / BEST)
