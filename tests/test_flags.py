"""Flags, presets and the file of a run's configuration."""

import json
from pathlib import Path

import pytest

from pgest.runs import Config, SequenceConfig, configure, load_config, save_config

PRESETS = {
    "demo": {"reinforce": SequenceConfig(steps=7), "xe": SequenceConfig(steps=8, objective="xe")},
    "long": {
        "reinforce": SequenceConfig(steps=70, seed=2),
        "xe": SequenceConfig(steps=80, seed=2, objective="xe"),
    },
}


def chosen(*flags: str) -> SequenceConfig:
    pytest.importorskip("tyro")
    return configure(list(flags), PRESETS, "x").config


def test_flags_override_the_preset() -> None:
    assert chosen() == PRESETS["demo"]["reinforce"]
    assert chosen("--preset", "long") == PRESETS["long"]["reinforce"]
    assert chosen("--objective", "xe") == PRESETS["demo"]["xe"]
    assert chosen("--objective=xe", "--preset=long") == PRESETS["long"]["xe"]
    config = chosen("--seed", "9", "--preset=long", "--schedule", "cosine", "--no-tensorboard")
    assert (config.steps, config.seed, config.schedule, config.tensorboard) == (
        70,
        9,
        "cosine",
        False,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "none"], "invalid choice: 'none'"),
        (["--stepz", "1"], "--stepz"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--schedule", "square"], "square"),
        (["--objective", "xe", "--entropy-coef", "1"], "entropy_coef must be left at 0.0"),
        (["--resume", "a", "--steps", "5"], "--resume takes the run's own settings"),
        (["--resume", "nowhere"], "nowhere/config.json must be the configuration of a run"),
    ],
)
def test_misuse_is_named(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        chosen(*flags)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chosen("--help")
    printed = capsys.readouterr().out
    for words in ("--kl-coef", "Penalty for the divergence", "--resume FOLDER", "--patience"):
        assert words in printed


def test_a_configuration_comes_back_from_its_file(tmp_path: Path) -> None:
    config = SequenceConfig(steps=5, output=tmp_path / "deep", objective="xe")
    path = tmp_path / "config.json"
    save_config(config, "x", path)
    assert load_config(SequenceConfig, "x", path) == config
    pytest.importorskip("tyro")
    resumed = configure(["--resume", str(tmp_path)], PRESETS, "x")
    assert resumed.resume == tmp_path
    assert resumed.config.output == tmp_path.parent
    with pytest.raises(ValueError, match="must be of the task 'y', got 'x'"):
        load_config(SequenceConfig, "y", path)
    with pytest.raises(ValueError, match=r"got a difference in .*kl_coef"):
        load_config(Config, "x", path)
    document = json.loads(path.read_text())
    for broken in ("", "[]", json.dumps({**document, "config": 3})):
        path.write_text(broken)
        with pytest.raises(ValueError, match="must be the configuration of a run, got"):
            load_config(SequenceConfig, "x", path)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Config(steps=0)
    with pytest.raises(ValueError, match="learning_rate must be positive, got -1"):
        Config(learning_rate=-1)
    with pytest.raises(ValueError, match="clip_norm must be positive, got nan"):
        Config(clip_norm=float("nan"))
