"""Flags, presets and the file of a run's configuration."""

import json
from pathlib import Path

import pytest

from pgest.errors import InputError
from pgest.runs import Config, SequenceConfig, configure, load_config, save_config

PRESETS = {
    "demo": {"reinforce": SequenceConfig(steps=70), "xe": SequenceConfig(steps=80, objective="xe")},
    "long": {
        "reinforce": SequenceConfig(steps=700, seed=2),
        "xe": SequenceConfig(steps=800, seed=2, objective="xe"),
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
        700,
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
        (["--warmup", "70"], "warmup must be shorter than the run"),
        (["--device", "moon"], "device must be one of this machine, got moon"),
        (["--seed", "99999999999999999999"], "seed must be below 2**63"),
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
    config = SequenceConfig(output=tmp_path / "deep", objective="xe")
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
        with pytest.raises(InputError, match="must be the configuration of a run, got"):
            load_config(SequenceConfig, "x", path)
    for name, value in {"steps": "6", "seed": 1.5, "output": None, "objective": "XE"}.items():
        path.write_text(json.dumps({**document, "config": {**document["config"], name: value}}))
        with pytest.raises(InputError, match=r"config\.json"):
            load_config(SequenceConfig, "x", path)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Config(steps=0)
    with pytest.raises(ValueError, match="learning_rate must be positive, got -1"):
        Config(learning_rate=-1)
    with pytest.raises(ValueError, match="clip_norm must be positive, got nan"):
        Config(clip_norm=float("nan"))
    with pytest.raises(ValueError, match=r"steps must be int, got 6\.5"):
        Config(steps=6.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be int, got True"):
        Config(steps=True)
    with pytest.raises(ValueError, match="schedule must be one of linear, cosine, constant, got x"):
        Config(schedule="x")  # type: ignore[arg-type]
    assert Config(clip_norm=float("inf"), learning_rate=1).learning_rate == 1
