"""The task: the model is g2p-en's to the phoneme, the errors are counted right, the job runs."""

import ast
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgest.tasks import main, task_names
from pgest.tasks.g2p.checkpoint import (
    GRAPHEMES,
    PHONEMES,
    distribution_file,
    load_model,
    save_model,
)
from pgest.tasks.g2p.words import Words, count_errors, phonemes, pronounce, spell

for package in ("tqdm", "tyro", "matplotlib", "rapidfuzz"):
    pytest.importorskip(package)
try:
    distribution_file("checkpoint20.npz")
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def their_decoder() -> Any:
    """g2p-en's own class, cut down to the methods of its decoder: its module downloads things."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an escape sequence in a method that is not used
        tree = ast.parse(distribution_file("g2p.py").read_text(encoding="utf-8"))
    (original,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    wanted = {"load_variables", "sigmoid", "grucell", "gru", "encode", "predict", "__init__"}
    methods = [n for n in original.body if isinstance(n, ast.FunctionDef) and n.name in wanted]
    for method in methods:
        if method.name == "__init__":  # its first lines make the tables, its last read other files
            last = next(i for i, n in enumerate(method.body) if "self.cmu" in ast.unparse(n))
            method.body = [*method.body[:last], ast.parse("self.load_variables()").body[0]]
    original.body = [*methods]
    scope = {"np": np, "os": os, "dirname": str(distribution_file("g2p.py").parent)}
    exec(compile(ast.Module([original], []), "g2p.py", "exec"), scope)
    return scope["G2p"]()  # type: ignore[operator]


def ids(text: str) -> tuple[int, ...]:
    return tuple(PHONEMES.index(phoneme) for phoneme in text.split())


def test_the_model_speaks_as_g2p_en_does() -> None:
    theirs = their_decoder()
    assert tuple(theirs.graphemes) == GRAPHEMES
    assert tuple(theirs.phonemes) == PHONEMES
    words = Words.of("test", limit=1000)
    spoken = pronounce(load_model(), words.source, words.lengths)
    assert [phonemes(s) for s in spoken] == [" ".join(theirs.predict(w)) for w in words.words]


def test_the_model_is_saved_in_g2p_ens_format(tmp_path: Path) -> None:
    save_model(load_model(), tmp_path / "checkpoint20.npz")
    saved = np.load(tmp_path / "checkpoint20.npz")
    original = np.load(distribution_file("checkpoint20.npz"))
    assert set(saved) == set(original)
    assert all(np.array_equal(saved[name], original[name]) for name in original)


def test_errors_with_and_without_stress() -> None:
    hypotheses = [ids("UW1 AH0"), ids("K AE1 T"), ids("UW T")]
    references = [[ids("UW0 AH0")], [ids("K AE1 T"), ids("K")], [ids("UW2 T AH0 T")]]
    stress = count_errors(hypotheses, references)
    assert stress.distance.tolist() == [1, 0, 3]
    assert stress.rate == pytest.approx(100 * 4 / 9)
    assert stress.word_rate == pytest.approx(200 / 3)
    plain = count_errors(hypotheses, references, stress=False)
    assert plain.distance.tolist() == [0, 0, 2]


def test_standard_errors_match_resampling() -> None:
    generator = torch.Generator().manual_seed(0)
    words = Words.of("validation", limit=400)
    spoken = pronounce(load_model(), words.source, words.lengths)
    errors = count_errors(spoken, words.references)
    rows = torch.randint(400, (4000, 400), generator=generator)
    distance, length = errors.distance[rows], errors.length[rows]
    rates = 100 * distance.sum(-1) / length.sum(-1)
    assert errors.rate_error == pytest.approx(rates.std().item(), rel=0.1)
    word_rates = 100 * (distance > 0).double().mean(-1)
    assert errors.word_rate_error == pytest.approx(word_rates.std().item(), rel=0.1)


def test_parts_do_not_share_words() -> None:
    parts = [set(Words.of(part).words) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert Words.of("test", limit=5).words == Words.of("test").words[:5]


def test_spelling_refuses_other_letters() -> None:
    with pytest.raises(
        ValueError, match=r"words must consist of the letters a to z, got \"don't\""
    ):
        spell(["don't"])


def test_the_job_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--preset", "smoke", "--output", str(tmp_path), "--steps", "3", "--threads", "1"]
    assert main(["g2p", *flags]) == 0
    (folder,) = tmp_path.iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["config"]["steps"] == 3
    assert len(record["history"]["updates"]) == 3
    assert set(record["after"]["figures"]) == {
        "PER with stress",
        "WER with stress",
        "PER without stress",
        "WER without stress",
    }
    assert (folder / "checkpoint20.npz").is_file()
    assert (folder / "plot.png").is_file()
    printed = capsys.readouterr().out
    assert "No reference was ever a target" in " ".join(printed.split())
    assert "64 test words" in printed


def test_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "g2p" in task_names()
    assert main([]) == 0
    assert "g2p" in capsys.readouterr().out
    assert main(["nope"]) == 2
    assert "no task 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["tyro", "tqdm", "matplotlib"])
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["g2p", "--preset", "smoke"]) == 1
    assert 'pip install "pgest[tasks]"' in capsys.readouterr().err
