"""The commands of the task: runs, controls, questions to the tuned model, and their errors."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgest.errors import InputError
from pgest.runs.files import save_tensors
from pgest.tasks import main, task_names
from pgest.tasks.g2p.checkpoint import distribution_file, initial_model

for package in ("tqdm", "tyro", "matplotlib", "rapidfuzz", "safetensors"):
    pytest.importorskip(package)
try:
    distribution_file("checkpoint20.npz")
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)
pytestmark = pytest.mark.usefixtures("one_thread")


def smoke(output: Path, *flags: str) -> Path:
    """Run the smoke preset and return its folder."""
    before = set(output.iterdir()) if output.exists() else set()
    common = ["--preset", "smoke", "--threads", "1", "--no-tensorboard", "--output", str(output)]
    assert main("run", ["g2p", *common, *flags]) == 0
    (folder,) = set(output.iterdir()) - before
    return folder


def test_the_job_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = smoke(tmp_path, "--steps", "3")
    record = json.loads((folder / "record.json").read_text())
    assert record["config"]["steps"] == 3
    assert len(record["history"]["updates"]) == 3
    assert set(record["after"]["figures"]) == {
        "PER with stress",
        "WER with stress",
        "PER without stress",
        "WER without stress",
        "length ratio",
    }
    assert (folder / "checkpoint20.npz").is_file()
    lines = (folder / "test_errors.csv").read_text().splitlines()
    assert lines[0].split(",")[:3] == ["word", "before with stress", "before without stress"]
    wrong = sum(int(line.split(",")[3]) > 0 for line in lines[1:])
    assert 100 * wrong / 64 == pytest.approx(record["after"]["figures"]["WER with stress"])
    printed = capsys.readouterr().out
    assert "No reference was a target" in " ".join(printed.split())
    assert "64 test words" in printed
    assert str(folder / "plot.png") in printed


def test_the_controls_are_one_flag_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = smoke(tmp_path, "--objective", "xe", "--init", "random", "--reference-noise", "0.2")
    printed = " ".join(capsys.readouterr().out.split())
    assert "training words in the dictionary were targets, each phoneme spoilt" in printed
    assert "g2p-en itself was trained" not in printed
    smoke(tmp_path, "--reward", "constant", "--init", str(folder))
    printed = " ".join(capsys.readouterr().out.split())
    assert "was told 1 for each" in printed
    assert f"It started from {folder}:" in printed


def test_the_tuned_model_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("predict", ["g2p", "--model", "shipped", "Hello"]) == 0
    assert capsys.readouterr().out == "word   shipped\nHello  HH EH1 L OW0\n"
    folder = smoke(tmp_path, "--objective", "xe", "--init", "random", "--steps", "2")
    capsys.readouterr()
    for flags in (["--output", str(tmp_path)], ["--model", str(folder)]):
        assert main("predict", ["g2p", *flags, "hello", "world"]) == 0
        title, *rows = capsys.readouterr().out.splitlines()
        assert f"tuned ({folder}" in title
        assert [row.split()[0] for row in rows] == ["hello", "world"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["naïve"], "words must consist of the letters a to z, got 'naïve'"),
        (["x", "--model", "none.npz"], "init must be shipped, random or the path of a file"),
        (["x", "--model", "README.md"], "README.md must be a whole safetensors file"),
        (["x", "--output", "nowhere"], "nowhere must hold a finished run of g2p, got none"),
        ([], "the following arguments are required: WORD"),
    ],
)
def test_bad_questions_are_named(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main("predict", ["g2p", *argv])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_weights_of_another_model_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)})
    flags = ["--preset", "smoke", "--init", str(tmp_path / "other.safetensors")]
    assert main("run", ["g2p", *flags]) == 1
    assert "other.safetensors must hold the weights of this model" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["empty", "array", "strings", "names", "cut"])
def test_what_is_no_file_of_g2p_en_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.npz"
    original = distribution_file("checkpoint20.npz")
    if content == "empty":
        path.write_bytes(b"")
    elif content == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif content == "strings":
        words: dict[str, Any] = {name: np.array("x") for name in np.load(original)}
        np.savez(path, **words)
    elif content == "names":
        np.savez(path, enc_emb=np.zeros(3))
    else:
        path.write_bytes(original.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"weights\.npz must be a whole file in g2p-en's format"):
        initial_model(str(path))


def test_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "g2p" in task_names()
    for verb in ("run", "predict"):
        assert main(verb, []) == 0
        assert "g2p" in capsys.readouterr().out
        assert main(verb, ["nope"]) == 2
        assert f"pgest {verb}: there is no task 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["tyro", "tqdm", "matplotlib", "safetensors", "tensorboard"])
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main("run", ["g2p", "--preset", "smoke"]) == 1
    assert 'pip install "pgest[tasks]"' in capsys.readouterr().err
