"""The dictionary is complete, merged and split for good."""

import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from pgest.data import PARTS, cmudict, part_of
from pgest.data.cmudict import _text
from pgest.errors import InputError


def test_dictionary_holds_every_word_of_letters() -> None:
    words = cmudict()
    assert len(words) == 117_493
    assert sum(map(len, words.values())) == 125_853
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_variants_are_merged_in_order_and_comments_dropped() -> None:
    words = cmudict()
    assert words["tomato"] == (
        ("T", "AH0", "M", "EY1", "T", "OW2"),
        ("T", "AH0", "M", "AA1", "T", "OW2"),
    )
    assert words["aalborg"][0][-1] == "G"  # "# place, danish" follows it
    assert all(len(set(found)) == len(found) for found in words.values())


def test_phonemes_are_those_of_the_dictionary_with_stress() -> None:
    symbols = {symbol for found in cmudict().values() for one in found for symbol in one}
    assert len(symbols) == 69
    assert len({symbol.rstrip("012") for symbol in symbols}) == 39


def test_split_is_fixed() -> None:
    assert Counter(map(part_of, cmudict())) == {
        "train": 93_909,
        "validation": 11_698,
        "test": 11_886,
    }
    examples = {"gradient": "train", "orange": "validation", "kernel": "test"}
    assert {word: part_of(word) for word in examples} == examples
    assert set(PARTS) == set(examples.values())


@pytest.mark.parametrize("content", [None, b"", b"no xz", "cut"])
def test_a_missing_or_damaged_file_is_named(
    content: bytes | str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cmudict.dict.xz"
    if content == "cut":
        path.write_bytes(files("pgest.data").joinpath(path.name).read_bytes()[:5000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    module = sys.modules["pgest.data.cmudict"]  # the package has a function of that name
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match=r"cmudict\.dict\.xz must be the dictionary"):
        _text()
