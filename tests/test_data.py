"""The dictionary is complete, merged and split for good."""

from collections import Counter

from pgest.data import PARTS, cmudict, part_of


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
