"""Without the compiled metrics: the libraries give the same, under the same names."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from test_rewards_refusals import REFUSED
from text_cases import pairs, sentences

from pgest.rewards import backend, libraries

_text = import_module("pgest._text")
UNITS = ("characters", "visible", "words", "chrf_words")


def batch(text: Any, unit: str, items: list[Any]) -> tuple[Any, ...]:
    """Hypotheses (twice: two samples) and references, encoded by one of the two."""
    vocabulary: dict[Any, int] = {}
    kind = getattr(text.Unit, unit)
    h = text.encode("hypotheses", [h for h, _ in items] * 2, kind, vocabulary)
    r, starts = text.encode_groups("references", [r for _, r in items], kind, vocabulary)
    return h, r, starts, 1


def calls(text: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    """What each metric says of a batch."""
    settings = [
        text.Bleu(4, "exp", 0.0, True, sys.version_info >= (3, 12)),
        text.Bleu(2, "add-k", 1.0, False, sys.version_info >= (3, 12)),
    ]
    width = args[0].longest + 2
    statistics = text.bleu_statistics(*args, settings[0])
    return {
        **{
            f"bleu {i} {w}": text.bleu(*args, s, w)
            for i, s in enumerate(settings)
            for w in (0, width)
        },
        "bleu statistics": statistics,
        "bleu scores": text.bleu_scores(statistics, settings[0]),
        "chrf": text.chrf(*args, None, None, 6, 0, 2.0, False, 0),
        "chrf of prefixes": text.chrf(*args, None, None, 3, 0, 1.0, True, width),
        "distance": text.closest_reference(*args, 0)[0],
        "length": text.closest_reference(*args, width)[1],
        "rouge 2": text.rouge_n(*args, 2),
        "rouge l": text.rouge_l(*args, width),
        "exact": text.exact_match(*args[:3]),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("unit", ["tokens", *UNITS])
def test_both_say_the_same(unit: str) -> None:
    items = list(pairs(1, 60, longest=20) if unit == "tokens" else sentences(1, 60))
    native, library = (batch(text, unit, items) for text in (_text, libraries))
    for mine, its in zip(native[:2], library[:2], strict=True):
        assert np.array_equal(mine.ids, its.ids)
        assert np.array_equal(mine.offsets, its.offsets)
        assert len(mine) == len(its)
        assert mine.longest == its.longest
    assert np.array_equal(native[2], library[2])
    found, expected = calls(_text, native), calls(libraries, library)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_words_beside_characters() -> None:
    items = list(sentences(2, 200))
    scores = []
    for text in (_text, libraries):
        words, characters = batch(text, "chrf_words", items), batch(text, "visible", items)
        scores.append(text.chrf(*characters, words[0], words[1], 6, 2, 2.0, False, 0))
    assert np.array_equal(*scores)


def test_the_ends_of_pieces() -> None:
    strings = [h for h, _ in sentences(3, 200)]
    for items in (strings, [[s[:2], "", s[2:]] for s in strings] + [[]], []):
        for whitespace in (False, True):
            mine, its = (t.piece_ends("x", items, whitespace) for t in (_text, libraries))
            assert np.array_equal(mine, its)


def test_ends_and_masks() -> None:
    ids = np.random.default_rng(0).integers(0, 5, (40, 9))
    mask = np.random.default_rng(1).random((40, 9)) < 0.7
    for keep in (False, True):
        for eos in (None, 3):
            mine, its = (text.padded(ids, mask, eos, keep) for text in (_text, libraries))
            assert np.array_equal(mine.ids, its.ids)
            assert np.array_equal(mine.offsets, its.offsets)
        whole = [text.padded(ids, None, None, False) for text in (_text, libraries)]
        mine, its = _text.cut(whole[0], 3, keep), libraries.cut(whole[1], 3, keep)
        assert np.array_equal(mine.ids, its.ids)
        assert np.array_equal(mine.offsets, its.offsets)


@pytest.mark.parametrize("case", REFUSED, ids=[case[1] for case in REFUSED])
def test_both_refuse_in_the_same_words(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgest.rewards import edit, error_rate, sequences

    for module in (edit, sequences):
        monkeypatch.setattr(module, "text", libraries)
        monkeypatch.setattr(module, "Unit", libraries.Unit)
    error, message, args, options = case
    with pytest.raises(error, match=message):
        error_rate(*args, **options)


def test_the_libraries_have_every_name() -> None:
    """What is added to the extension is added to its double."""
    mine = {n for n, x in vars(_text).items() if not n.startswith("_") and callable(x)}
    its = {n for n in libraries.__all__ if callable(getattr(libraries, n))}
    assert mine == its
    assert inspect.ismodule(libraries)


def test_the_extension_is_what_runs() -> None:
    assert backend() == "native"


@pytest.mark.parametrize("required", [False, True])
def test_without_the_extension(required: bool) -> None:
    """Python that cannot load it says so, or fails where it was required."""
    code = "import sys; sys.modules['pgest._text'] = None\nfrom pgest import rewards\n"
    code += "print(rewards.backend(), rewards.bleu(['a b c'], ['a b c']).item())"
    variables = {"PGEST_REQUIRE_KERNELS": "1" if required else "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    if required:
        assert "PGEST_REQUIRE_KERNELS=1 but the compiled extension pgest._text" in done.stderr
    else:
        assert done.stdout.split()[0] == "libraries", done.stderr
        assert float(done.stdout.split()[1]) == pytest.approx(100)


def test_a_missing_library_names_what_to_install() -> None:
    """Each by itself, in one process: starting one takes longest."""
    code = """
import sys
sys.modules["pgest._text"] = None
from pgest import rewards
for module, reward in (
    ("sacrebleu.metrics.bleu", rewards.bleu),
    ("sacrebleu.metrics.chrf", rewards.chrf),
    ("rapidfuzz.distance", rewards.edit_distance),
    ("rouge_score.rouge_scorer", rewards.rouge_l),
):
    sys.modules[module] = None
    try:
        reward([[1]], [[1]])
    except ImportError as error:
        print('pip install "pgest[text]"' in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 4, done.stderr
