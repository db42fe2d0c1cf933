"""The model of the `g2p-en` distribution, read from its own files."""

from __future__ import annotations

import zlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pgest.errors import InputError
from pgest.runs.files import load_tensors, write_atomically
from pgest.runs.loop import BEST
from pgest.seq2seq import GRUSeq2Seq

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()

PAD, UNKNOWN, BOS, EOS = "<pad>", "<unk>", "<s>", "</s>"
GRAPHEMES = (PAD, UNKNOWN, EOS, *"abcdefghijklmnopqrstuvwxyz")
PHONEMES = (
    *(PAD, UNKNOWN, BOS, EOS),
    *sorted([vowel + stress for vowel in _VOWELS for stress in "012"] + [*_CONSONANTS, "UW"]),
)
"""The model's tokens. `UW` without a stress digit is one of them; the dictionary never uses it."""

MAX_LENGTH = 20
"""The most tokens the distribution's own decoder writes, the closing one included."""

_NAMES = {
    "enc_emb": "source_embedding.weight",
    "enc_w_ih": "encoder.weight_ih",
    "enc_w_hh": "encoder.weight_hh",
    "enc_b_ih": "encoder.bias_ih",
    "enc_b_hh": "encoder.bias_hh",
    "dec_emb": "target_embedding.weight",
    "dec_w_ih": "decoder.weight_ih",
    "dec_w_hh": "decoder.weight_hh",
    "dec_b_ih": "decoder.bias_ih",
    "dec_b_hh": "decoder.bias_hh",
    "fc_w": "output.weight",
    "fc_b": "output.bias",
}


def distribution_file(name: str) -> Path:
    """Return the path of a file of the installed `g2p-en`, which is not imported.

    Importing it would download dictionaries that are not needed here.

    Raises:
        ImportError: where `g2p-en` is not installed or lacks the file.
    """
    try:
        path = Path(str(distribution("g2p-en").locate_file(f"g2p_en/{name}")))
    except PackageNotFoundError as error:
        raise ImportError(
            'the pre-trained model comes from g2p-en: pip install "pgest[tasks]"'
        ) from error
    if not path.is_file():
        raise ImportError(f"the installed g2p-en has no {path}, expected version 2.1.0")
    return path


def initial_model(init: str, seed: int = 0) -> GRUSeq2Seq:
    """Return the model that `init` names: 834,890 parameters, 29 letters to 74 phonemes.

    `shipped` is g2p-en's own (Park and Kim 2019, https://github.com/Kyubyong/g2p, Apache-2.0),
    `random` a new one, drawn with the seed; anything else is the path of a safetensors file of
    this model, of a run's folder, or of an `.npz` in g2p-en's format.

    Raises:
        InputError: for a file that is missing, damaged, or of another model.
        ImportError: where `g2p-en` is needed and missing.
    """
    if init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _empty_model()
    path = distribution_file("checkpoint20.npz") if init == "shipped" else Path(init)
    path = path / BEST if path.is_dir() else path
    if not path.exists():
        raise InputError(f"init must be shipped, random or the path of a file, got {init}")
    model = _empty_model()
    weights = _from_npz(path) if path.suffix == ".npz" else load_tensors(path)[0]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} must hold the weights of this model, got: {reason}") from None
    return model


def save_model(model: GRUSeq2Seq, path: Path) -> None:
    """Write the model in g2p-en's own format, so that it can take that file's place."""
    weights = model.state_dict()
    arrays = {name: weights[to].cpu().numpy() for name, to in _NAMES.items()}
    write_atomically(path, lambda temporary: np.savez(temporary, **arrays))


def _empty_model() -> GRUSeq2Seq:
    return GRUSeq2Seq(len(GRAPHEMES), len(PHONEMES), 256, bos=PHONEMES.index(BOS))


def _from_npz(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            return {to: torch.from_numpy(arrays[name]) for name, to in _NAMES.items()}
    # Every way in which a file of numpy's can be something else.
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path} must be a whole file in g2p-en's format, got: {error}") from None
