"""The comparison of g2p's controls runs, goes on, and writes a table."""

from pathlib import Path

import pytest

from benchmarks import g2p
from benchmarks.g2p_arms import GROUPS, Arm

for package in ("tqdm", "tyro", "matplotlib", "rapidfuzz", "safetensors"):
    pytest.importorskip(package)


@pytest.mark.slow
def test_a_group_runs_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = (
        Arm("first", "supervised", "--preset smoke --objective xe", seeds=1),
        Arm("second", "policy gradient after it", "--preset smoke", start="first", seeds=1),
    )
    monkeypatch.setitem(GROUPS, "stories", arms)
    argv = ["stories", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert g2p.main(argv) == 0
    table = (tmp_path / "g2p-stories.md").read_text()
    assert "| policy gradient after it | " in table
    assert "`pgest run g2p --preset smoke --init FOLDER` of first" in table
    assert capsys.readouterr().out.count("$ -m pgest run g2p") == 2
    assert g2p.main(argv) == 0
    assert "$ -m pgest" not in capsys.readouterr().out
    assert (tmp_path / "g2p-stories.md").read_text() == table
    with pytest.raises(ValueError, match=r"must hold a run with the flags .*--steps 3"):
        g2p.main([*argv, "--flags", "--steps 3"])


def test_arms_start_from_arms_that_come_before_them() -> None:
    for arms in GROUPS.values():
        for i, arm in enumerate(arms):
            assert arm.start is None or arm.start in [before.name for before in arms[:i]]
