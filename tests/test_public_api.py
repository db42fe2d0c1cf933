"""Every public name is documented and annotated, and every example in a docstring runs."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch

import pgest

SKIP = {"pgest.__main__", "pgest._C", "pgest._text"}


def module_names() -> list[str]:
    """Every module of the package that Python source defines and that runs nothing on import."""
    found = pkgutil.walk_packages(pgest.__path__, "pgest.")
    return ["pgest", *(module.name for module in found if module.name not in SKIP)]


def public(module: ModuleType) -> dict[str, Any]:
    """A module's public names: those in `__all__`, else those that it defines itself."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    own = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    return {k: v for k, v in own.items() if getattr(v, "__module__", None) == module.__name__}


def functions(item: object, name: str) -> Iterator[tuple[str, FunctionType, bool]]:
    """A function, or a class's own methods, and whether each inherits what it is."""
    if isinstance(item, FunctionType):
        yield name, item, False
    elif isinstance(item, type):
        for key, value in vars(item).items():
            method = value.fget if isinstance(value, property) else value
            method = getattr(method, "__func__", method)
            if not isinstance(method, FunctionType) or method.__module__ != item.__module__:
                continue  # what a Protocol or NamedTuple adds is not ours
            if key == "__init__" or not key.startswith("_"):
                yield f"{name}.{key}", method, any(hasattr(base, key) for base in item.__bases__)


def lacks(item: object, name: str) -> Iterator[str]:
    """What a public item's documentation or annotations lack."""
    if isinstance(item, type) and not vars(item).get("__doc__"):
        yield f"{name} has no docstring"
    for place, function, inherits in functions(item, name):
        if not function.__doc__ and not inherits:
            yield f"{place} has no docstring"
        signature = inspect.signature(function)
        names = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
        bare = [parameter for parameter in names if parameter not in ("self", "cls")]
        if bare:
            yield f"{place} does not annotate {', '.join(bare)}"
        if signature.return_annotation is signature.empty:
            yield f"{place} does not annotate its return"


@pytest.mark.parametrize("name", module_names())
def test_public_names_are_documented_and_annotated(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    found = [lack for key, item in public(module).items() for lack in lacks(item, key)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    reader_has = {"pgest": pgest, "torch": torch}
    assert doctest.testmod(module, extraglobs=reader_has).failed == 0


def test_the_ops_show_an_example() -> None:
    assert ">>>" in (pgest.token_stats.__doc__ or "")


def test_what_is_lacking_is_found() -> None:
    class Base:
        """Documented."""

        def forward(self, x: int) -> int:
            """Documented."""
            return x

    class Derived(Base):
        def __init__(self, y) -> None:  # type: ignore[no-untyped-def]
            self.y = y

        def forward(self, x: int) -> int:
            return x

        @property
        def size(self):  # type: ignore[no-untyped-def]
            return 1

        @staticmethod
        def make(**options: int) -> int:
            return 1

    assert list(lacks(Base, "Base")) == []
    assert list(lacks(Derived, "Derived")) == [
        "Derived has no docstring",
        "Derived.__init__ does not annotate y",
        "Derived.size has no docstring",
        "Derived.size does not annotate its return",
        "Derived.make has no docstring",
    ]
