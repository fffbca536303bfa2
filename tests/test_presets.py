"""Presets: settings in a file under those of the command line and of a study, and the two of the paper."""

import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lab import recipes
from entropy_lab.cli import main
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.presets.preset import PRESETS, Preset, read_preset
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.studies.settings import configured


@dataclass(frozen=True)
class Model:
    path: str = ""
    layers: int = 2


@dataclass
class Config:
    """A trainer's settings."""

    out: Path
    """Directory."""
    advantage: str = "grpo"
    """Estimator."""
    advantage_params: dict[str, int | float | str] = field(default_factory=dict)
    """Its parameters."""
    lr: float = 1e-4
    """Learning rate."""
    log_to: tuple[str, ...] = ()
    """Sinks."""
    fast: bool = False
    """Whether."""
    model: Model = field(default_factory=Model)
    """The policy."""


MINE = """
about = "Mine."
advantage = "asym_grpo"
advantage_params = { beta_pos = 0.9, beta_neg = 0.4 }
lr = 2e-6
log_to = ["tensorboard"]
fast = true
[model]
path = "here"
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(MINE)
    return file


def parse(*words):
    return from_command_line(Config, [str(word) for word in words])


def test_without_a_preset_the_defaults_stay():
    assert parse("--out", "run") == Config(Path("run"))
    changed = Config(Path("run"), advantage_params={"beta_pos": 1}, lr=1.0)
    assert parse("--out", "run", "--lr", "1", "--advantage-params", "beta_pos", "1") == changed


def test_a_preset_fills_what_no_option_says(mine):
    whole = Config(
        Path("run"), "asym_grpo", {"beta_pos": 0.9, "beta_neg": 0.4}, 2e-6, ("tensorboard",), True, Model("here")
    )
    assert parse("--preset", mine, "--out", "run") == whole == parse("--out", "run", f"--preset={mine}")
    options = ("--lr", "1e-3", "--no-fast", "--log-to", "wandb", "--model.layers", "3")
    said = replace(whole, lr=1e-3, fast=False, log_to=("wandb",), model=Model("here", 3))
    assert parse("--preset", mine, "--out", "run", *options) == said


def test_parameters_are_merged_and_belong_to_what_they_are_of(mine):
    begin = ("--preset", mine, "--out", "run")
    assert parse(*begin, "--advantage-params", "beta_neg", "0.5").advantage_params == {"beta_pos": 0.9, "beta_neg": 0.5}
    assert parse(*begin, "--advantage", "grpo").advantage_params == {}
    other = parse(*begin, "--advantage", "pass_at_k", "--advantage-params", "k", "4")
    assert other.advantage_params == {"k": 4}


values = st.dictionaries(st.sampled_from("abc"), st.integers() | st.dictionaries(st.sampled_from("xy"), st.integers()))


@given(values, values)
def test_what_is_given_goes_before_the_preset(preset, said):
    both = Preset("", preset).under(said)
    assert both.keys() == preset.keys() | said.keys()
    for name, value in both.items():
        if name not in said:
            assert value == preset[name]
        elif isinstance(value, dict) and isinstance(preset.get(name), dict):
            assert value.items() >= said[name].items()
            assert value.keys() == preset[name].keys() | said[name].keys()
        else:
            assert value == said[name]


def test_out_is_asked_for_and_help_names_the_presets(mine, capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--preset", mine)
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("--preset", *PRESETS.names(), "Learning rate."))


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("lrr = 1.0", UnknownNameError, r"bad\.toml: there is no setting 'lrr'.*did you mean lr\?"),
        ("lr = 'much'", ParameterError, r"bad\.toml: lr: is 'much'; input should be a valid number"),
        ("fast = 1", ParameterError, r"bad\.toml: fast: is 1"),
        ("[model]\nlayer = 1", UnknownNameError, r"bad\.toml\.model: there is no setting 'layer'"),
        ("out = 'run'", ParameterError, r"bad\.toml: out: is set"),
        ("about = 1", ParameterError, r"bad\.toml: about: is 1"),
        ("lr = ", ParameterError, r"bad\.toml: is not TOML"),
    ],
)
def test_what_is_wrong_in_a_preset_is_named_with_file_and_key(tmp_path, text, error, said):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(error, match=said):
        parse("--preset", tmp_path / "bad.toml", "--out", "run")


@pytest.mark.parametrize("name", ["qwen3-4b-mat", "nowhere/mine.toml"])
def test_there_is_no_such_preset(name):
    with pytest.raises(UnknownNameError):
        parse("--preset", name, "--out", "run")


def test_a_study_begins_from_a_preset_too(mine):
    made = configured(Config, "study.toml: methods.grpo", {"preset": str(mine), "advantage": "grpo"}, Path("run"))
    assert (made.advantage, made.advantage_params, made.lr, made.model) == ("grpo", {}, 2e-6, Model("here"))
    mine.write_text("lrr = 1")
    with pytest.raises(UnknownNameError, match=r"mine\.toml"):
        configured(Config, "study.toml", {"preset": str(mine)}, Path("run"))
    with pytest.raises(ParameterError, match="preset"):
        configured(Config, "study.toml", {"preset": 1}, Path("run"))


def test_presets_are_listed_and_copied(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["list"])
    assert set(PRESETS.names()) <= set(capsys.readouterr().out.split())
    main(["copy", f"presets/{PRESETS.names()[0]}", "mine.toml"])
    assert "--preset ./mine.toml" in capsys.readouterr().out
    assert read_preset("./mine.toml").values == read_preset(PRESETS.names()[0]).values
    with pytest.raises(SystemExit) as stop:
        main(["copy", "presets/nothing", "."])
    assert stop.value.code == 2


PAPER = {
    "qwen3-4b-math": {"prompts_per_step": 128, "mini_batch": 64, "max_new_tokens": 4096, "model": "Qwen/Qwen3-4B"},
    "qwen2.5-math-1.5b-math": {
        "prompts_per_step": 512,
        "mini_batch": 128,
        "max_new_tokens": 2560,
        "model": "Qwen/Qwen2.5-Math-1.5B",
    },
}


@pytest.mark.parametrize("name", PRESETS.names())
def test_the_papers_settings_are_in_its_presets(name):
    trainer = recipes.load("trainers", "grpo")
    config = from_command_line(trainer.Config, ["--preset", name, "--out", "run"])
    paper = PAPER[name]
    assert (config.task, config.group_size, config.eval_every) == ("math", 8, 10)
    assert config.prompts_per_step == paper["prompts_per_step"]
    assert config.prompts_per_step // config.mini_batches == paper["mini_batch"]
    assert config.max_new_tokens == paper["max_new_tokens"]
    assert config.model.path == paper["model"]
    if name == "qwen3-4b-math":
        assert config.lr == 2e-6
        assert config.advantage_params == {"beta_pos": 0.9, "beta_neg": 0.4}


@pytest.mark.parametrize("name", PRESETS.names())
def test_every_line_of_a_preset_says_where_it_is_from(name):
    text = PRESETS.find(name).read_text(encoding="utf-8")
    settings = [line for line in text.splitlines() if re.match(r"\w+ = ", line) and not line.startswith("about")]
    assert not [line for line in settings if not re.search(r"# (paper|ASSUMED|not of the paper|of 7,500)", line)]
    known = {each.name for each in fields(recipes.load("trainers", "grpo").Config)}
    assert tomllib.loads(text).keys() - {"about"} <= known
