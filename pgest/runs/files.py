"""Files that are whole or absent, whenever the process is killed; tensors as safetensors."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from pgest.errors import InputError

_TEMPORARY = ".tmp"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, and sweep what a killed one has left half-written.

    Raises:
        InputError: where another process is at work in it.
    """
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder} must not be in use, but another run holds it") from None
        for left in folder.glob(f".*{_TEMPORARY}*"):
            left.unlink()
        yield


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write(temporary)` make a file and give it the name `path` once it is on the disk."""
    # The suffix stays: some writers choose the format by it, or add their own.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{_TEMPORARY}{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_atomically(path, lambda temporary: _write(temporary, text.encode()))


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors and strings as one safetensors file, whole or not at all.

    Raises:
        ImportError: where safetensors is missing.
    """
    from safetensors.torch import save

    # Copies: the format has no place for tensors that share memory, as tied weights do.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = save(plain, dict(metadata or {}))
    write_atomically(path, lambda temporary: _write(temporary, content))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, on the CPU, and the strings of a safetensors file.

    Raises:
        ImportError: where safetensors is missing.
        InputError: for a file that is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself is no iterable
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} must be a whole safetensors file, got: {error}") from None


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
