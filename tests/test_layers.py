"""The layers of the package: imports point down, every module has a place, files stay short."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 300
CORE = {"pgest", "torch", "numpy"} | sys.stdlib_module_names

# From the top down. A module imports only from rows below its own; `pgest` is `pgest/__init__.py`.
ROWS = (
    ("__main__",),
    ("cli",),
    ("tasks", "doctor"),
    ("integrations",),
    ("runs",),
    ("pgest",),
    ("seq2seq", "nn", "comparison"),
    ("estimators", "trace"),
    ("objectives", "advantages", "rewards", "data"),
    ("ops", "distributions"),
    ("reference", "errors"),
    ("_C", "_text"),
)
# Pairs on one row of which the first may import the second.
SIDEWAYS = {("distributions", "ops"), ("trace", "estimators")}
# Their import may need more than torch and numpy; elsewhere an extra is imported where it is used.
USE_EXTRAS = {"tasks", "integrations"}

RANK = {unit: rank for rank, row in enumerate(ROWS) for unit in row}


def unit_of(path: Path, package: Path) -> str:
    """The name in `ROWS` that a file of the package belongs to."""
    first = path.relative_to(package).parts[0].removesuffix(".py")
    return "pgest" if first == "__init__" else first


def imported(node: ast.AST, path: Path, package: Path) -> list[str]:
    """Absolute dotted names that one import statement may bind; nothing for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = [node.module] if node.module else []
    if node.level:
        folders = path.relative_to(package.parent).parent.parts
        base = [*folders[: len(folders) - node.level + 1], *base]
    return [".".join([*base, alias.name]) for alias in node.names]


def target_unit(name: str) -> str | None:
    """The unit that `pgest.x.y` means, the face for a name that is no module, else None."""
    first, _, rest = name.partition(".")
    if first != "pgest":
        return None
    unit = rest.partition(".")[0]
    return unit if unit in RANK else "pgest"


def allowed(source: str, target: str) -> bool:
    """Whether one unit may import another."""
    return source == target or RANK[source] < RANK[target] or (source, target) in SIDEWAYS


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not functions' bodies, not what is for mypy."""
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            queue.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            queue.extend(ast.iter_child_nodes(node))


def complaints(package: Path) -> Iterator[str]:
    """Every breach of the rows in a package, one line each."""
    for path in sorted(package.rglob("*.py")):
        unit, place = unit_of(path, package), path.relative_to(package.parent).as_posix()
        if unit not in RANK:
            yield f"{place}: {unit} is on no row"
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for name in imported(node, path, package):
                target = target_unit(name)
                if target is not None and not allowed(unit, target):
                    side = RANK[unit] == RANK[target]
                    yield f"{place}: imports {'sideways' if side else 'upward'} from {target}"
        for node in at_import(tree) if unit not in USE_EXTRAS else ():
            for name in imported(node, path, package):
                if name.partition(".")[0] not in CORE:
                    yield f"{place}: importing it needs {name}"


def source_files(root: Path) -> Iterator[Path]:
    """The project's own Python, C++ and CUDA files."""
    folders = ("pgest", "csrc", "tests", "benchmarks", "examples")
    found = (path for folder in folders for path in (root / folder).rglob("*"))
    return (path for path in found if path.suffix in {".py", ".cpp", ".h", ".cu", ".cuh"})


def test_imports_point_down() -> None:
    found = list(complaints(ROOT / "pgest"))
    assert not found, "\n".join(found)


def test_files_are_short() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in source_files(ROOT)
    }
    assert len(lengths) > 10
    assert {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_only_csrc_ops_sees_torch() -> None:
    """Kernels without torch can be fuzzed, sanitised and compiled where its headers are not."""
    sees = re.compile(r"#\s*include\s*[<\"](torch|ATen|c10)/")
    sources = [path for path in source_files(ROOT) if path.is_relative_to(ROOT / "csrc")]
    seeing = {p.parent.name for p in sources if sees.search(p.read_text(encoding="utf-8"))}
    assert seeing == {"ops"}


@pytest.mark.parametrize(
    ("place", "code", "complaint"),
    [
        ("ops/fused.py", "import pgest.estimators", "imports upward from estimators"),
        ("ops/fused.py", "from ..seq2seq.decode import greedy", "imports upward from seq2seq"),
        ("ops/deep/fused.py", "from ... import trace", "imports upward from trace"),
        ("reference/stats.py", "from pgest import ops", "imports upward from ops"),
        ("nn/layers.py", "def f():\n    from pgest import tasks", "imports upward from tasks"),
        ("estimators/loo.py", "from pgest import expect", "imports upward from pgest"),
        ("__init__.py", "from .runs import Run", "imports upward from runs"),
        ("data/words.py", "from pgest.rewards import bleu", "imports sideways from rewards"),
        ("stray.py", "", "stray is on no row"),
        ("rewards/bleu.py", "if True:\n    import sacrebleu", "importing it needs sacrebleu"),
        ("ops/fused.py", "from . import other", None),
        ("ops/fused.py", "import pgest._C\nfrom .. import reference", None),
        ("seq2seq/decode.py", "from pgest.ops.fused import sample as s", None),
        ("distributions.py", "from .ops import sample", None),
        ("rewards/bleu.py", "def f():\n    import sacrebleu", None),
        ("runs/loop.py", "if TYPE_CHECKING:\n    import tqdm", None),
        ("tasks/g2p.py", "import tyro\nimport pgest\nfrom pgest.runs import Run", None),
    ],
)
def test_breaches_are_found(tmp_path: Path, place: str, code: str, complaint: str | None) -> None:
    path = tmp_path / "pgest" / place
    path.parent.mkdir(parents=True)
    path.write_text(code, encoding="utf-8")
    expected = [] if complaint is None else [f"pgest/{place}: {complaint}"]
    assert list(complaints(tmp_path / "pgest")) == expected
