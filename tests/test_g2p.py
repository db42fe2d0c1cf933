"""The task: the model is g2p-en's to the phoneme, the errors are counted right, the job runs."""

import ast
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgest.runs import Clock
from pgest.seq2seq import Sequences
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
