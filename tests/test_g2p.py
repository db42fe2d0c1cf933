"""The task: the model is g2p-en's to the phoneme, the errors are counted right, the job runs."""

import ast
import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgest.errors import InputError
from pgest.runs import Clock
from pgest.runs.files import save_tensors
from pgest.seq2seq import Sequences
from pgest.tasks import main, task_names
from pgest.tasks.g2p.checkpoint import (
    GRAPHEMES,
    PHONEMES,
    distribution_file,
    initial_model,
    save_model,
)
from pgest.tasks.g2p.config import PRESETS, G2PConfig
from pgest.tasks.g2p.task import G2P
from pgest.tasks.g2p.words import Words, corrupted, count_errors, padded, phonemes, pronounce, spell

for package in ("tqdm", "tyro", "matplotlib", "rapidfuzz", "safetensors"):
    pytest.importorskip(package)
try:
    distribution_file("checkpoint20.npz")
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)


pytestmark = pytest.mark.usefixtures("one_thread")


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
    spoken = pronounce(initial_model("shipped"), words.source, words.lengths)
    assert [phonemes(s) for s in spoken] == [" ".join(theirs.predict(w)) for w in words.words]


def test_the_model_is_saved_in_g2p_ens_format(tmp_path: Path) -> None:
    save_model(initial_model("shipped"), tmp_path / "checkpoint20.npz")
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
    spoken = pronounce(initial_model("shipped"), words.source, words.lengths)
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


def test_noisy_references_are_the_same_each_time() -> None:
    clean = [[tuple(range(10, 40))]] * 50
    noisy = corrupted(clean, 0.3, seed=1)
    assert noisy == corrupted(clean, 0.3, seed=1)
    assert noisy != corrupted(clean, 0.3, seed=2)
    assert corrupted(clean, 0.0, seed=1) == clean
    kept = count_errors([group[0] for group in noisy], clean)
    # A third of what is spoilt is replaced, dropped or added: each is one error.
    assert kept.distance.sum().item() / kept.length.sum().item() == pytest.approx(0.3, abs=0.04)
    assert all(p > 3 for group in noisy for p in group[0])


def test_targets_are_references_with_the_closing_token() -> None:
    task = G2P(PRESETS["smoke"]["xe"])
    batch = task.batch(200, torch.Generator().manual_seed(0))
    tokens, mask = task.targets(batch, torch.Generator().manual_seed(0))
    assert max(map(len, batch.references.references)) > 1
    seen = set()
    for row, keep, group in zip(tokens, mask, batch.references.references, strict=True):
        *ids, last = row[keep].tolist()
        assert last == task.eos
        assert (row[~keep] == task.eos).all()
        seen.add(group.index(tuple(ids)))
    assert len(seen) > 1  # not the first one alone


def test_the_rewards_count_what_they_say() -> None:
    task = G2P(PRESETS["smoke"]["reinforce"])
    batch = task.batch(2, torch.Generator().manual_seed(0))
    first = [group[0] for group in batch.references.references]
    spoilt = [first[0], (*first[1][:-1], PHONEMES.index("ZH"), PHONEMES.index("ZH"))]
    tokens, lengths = padded([(*ids, task.eos) for ids in spoilt], task.eos)
    mask = torch.arange(tokens.shape[1]) < lengths.unsqueeze(-1)
    draw = Sequences(tokens[None], mask[None], torch.zeros(1, *tokens.shape))
    expected = {
        "error_rate": [0.0, -2 / len(first[1])],
        "exact_match": [1.0, 0.0],
        "constant": [1.0, 1.0],
    }
    for name, earned in expected.items():
        task.config = replace(task.config, reward=name)  # type: ignore[arg-type]
        assert task.reward(draw, batch)[0].tolist() == [pytest.approx(earned)]


def test_a_constant_reward_tells_nothing() -> None:
    task = G2P(replace(PRESETS["smoke"]["reinforce"], reward="constant"))
    loss, figures = task.learner.loss(torch.Generator().manual_seed(0), Clock())
    assert figures["reward"] == 1
    assert loss.item() == 0  # leave-one-out takes all of it


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference_noise": 1.0}, r"reference_noise must be in \[0, 1\), got 1\.0"),
        ({"reference_noise": 0.1}, "reference_noise must be 0 where no reference is learned from"),
        ({"objective": "xe", "reward": "constant"}, "reward must be left at error_rate"),
        ({"test_words": 1}, "test_words must be at least 2, got 1"),
        ({"validation_words": 1}, "validation_words must be at least 2, got 1"),
        ({"reward": "bleu"}, "reward must be one of error_rate, exact_match, constant, got bleu"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        G2PConfig(**settings)


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
