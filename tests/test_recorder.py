"""A recorder writes the same file from whatever a loop holds, and what it writes is what the loop held."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.prompt_names import prompt_ids
from entropy_lab.run import RunWarning
from entropy_lab.schema import ROLLOUTS

BY_TOKEN = ("token_ids", "logps", "entropies", "logps_after", "sampler_logps", "advantages")


def rollouts(rng, prompts=3, group=4, width=6, exact=True):
    """What a loop holds of a step: padded arrays on the left half, a mask, texts."""
    n = prompts * group
    n_tokens = rng.integers(0, width + 1, n)
    mask = np.arange(width) < n_tokens[:, None]

    def draw(scale):
        values = np.where(mask, scale * rng.random((n, width)), 7.5).astype(np.float32)
        return torch.from_numpy(values).bfloat16().float().numpy() if not exact else values

    return {
        "prompts": [f"p{i}" for i in range(prompts) for _ in range(group)],
        "completions": [f"c{i}" for i in range(n)],
        "rewards": (rng.random(n) < 0.5).astype(np.float32),
        "truncated": n_tokens == width,
        "mask": mask,
        "token_ids": np.where(mask, rng.integers(0, 150_000, (n, width)), -1),
        "logps": draw(-3.0),
        "entropies": draw(2.0),
        "logps_after": draw(-3.0),
        "sampler_logps": draw(-3.0),
        "advantages": draw(1.0),
    }


def ragged(columns, kind=lambda row: row.tolist()):
    mask = columns["mask"]
    found = {name: [kind(row[inside]) for row, inside in zip(columns[name], mask, strict=True)] for name in BY_TOKEN}
    return {**{name: value for name, value in columns.items() if name != "mask"}, **found}


def as_torch(columns):
    made = {}
    for name, value in columns.items():
        tensor = torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        made[name] = tensor.requires_grad_() if name in ("logps", "entropies") else tensor
    return made


def as_lists(columns):
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in columns.items()}


def in_the_middle(columns):
    """Padded on both sides, as a slice of prompt and response is."""
    padded = {name: np.pad(columns[name], ((0, 0), (2, 1))) for name in ("mask", *BY_TOKEN)}
    return {**columns, **padded}


def with_lengths(columns):
    """Padded on the right, with lengths in place of a mask."""
    rest = {name: value for name, value in columns.items() if name != "mask"}
    return {**rest, "n_tokens": columns["mask"].sum(1)}


def halves(columns):
    """Ids and the sampler's log-probabilities ragged, as engines give them; the trainer's padded with a mask."""
    rows = ragged(columns)
    return {**as_torch(columns), "token_ids": rows["token_ids"], "sampler_logps": rows["sampler_logps"]}


FORMS = {
    "torch": as_torch,
    "lists": as_lists,
    "ragged lists": ragged,
    "ragged arrays": lambda columns: ragged(columns, np.array),
    "ragged tensors": lambda columns: ragged(columns, torch.tensor),
    "left and right padding": in_the_middle,
    "lengths": with_lengths,
    "lengths, lists": lambda columns: as_lists(with_lengths(columns)),
    "float mask": lambda columns: {**columns, "mask": columns["mask"].astype(np.float32)},
    "ragged and padded": halves,
}


def recorded(folder, columns, **about):
    with el.Recorder(folder, method="grpo", group_size=4, world_size=1, **about) as rec:
        return rec.step(**columns).read_bytes()


@pytest.mark.filterwarnings("ignore:advantages differ")
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.booleans())
def test_every_form_of_a_step_gives_the_same_file(tmp_path_factory, seed, tokens):
    columns = rollouts(np.random.default_rng(seed))
    expected = recorded(tmp_path_factory.mktemp("runs") / "run", columns, tokens=tokens)
    for form, turn in FORMS.items():
        found = recorded(tmp_path_factory.mktemp("runs") / "run", turn(columns), tokens=tokens)
        assert found == expected, form


@pytest.mark.filterwarnings("ignore:advantages differ")
def test_half_precision_is_float32_of_the_same_value(tmp_path):
    columns = rollouts(np.random.default_rng(0), exact=False)
    half = as_torch(columns)
    half |= {name: half[name].bfloat16() for name in BY_TOKEN if name != "token_ids"}
    assert recorded(tmp_path / "half", half) == recorded(tmp_path / "full", columns)


@pytest.mark.filterwarnings("ignore:advantages differ", "ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_rows(tmp_path):
    columns = rollouts(np.random.default_rng(1))
    nested = {**ragged(columns, torch.tensor), "mask": None}
    for name in BY_TOKEN:
        rows = [row.long() if name == "token_ids" else row for row in nested[name]]
        nested[name] = torch.nested.nested_tensor(rows)  # the jagged layout works too, and takes seconds to import
    assert recorded(tmp_path / "nested", nested) == recorded(tmp_path / "padded", columns)


def test_sums_and_means_are_of_response_tokens(tmp_path):
    columns = rollouts(np.random.default_rng(2), prompts=8, width=40)
    with el.Recorder(tmp_path / "run", method="grpo", group_size=4, world_size=1) as rec:
        with pytest.warns(RunWarning, match="advantages differ between tokens"):
            frame = pl.read_parquet(rec.step(**columns))
        line = json.loads((rec.path / "metrics.jsonl").read_text())
    inside = [row[mask] for row, mask in zip(columns["logps"].astype(float), columns["mask"], strict=True)]
    assert frame["logp"].to_list() == pytest.approx([row.sum() for row in inside], rel=1e-6)
    assert frame["n_tokens"].to_list() == [len(row) for row in inside]
    entropies = columns["entropies"].astype(float)[columns["mask"]]
    assert line["entropy"] == pytest.approx(entropies.mean(), rel=1e-6)
    assert line["n_tokens"] == len(entropies)
    assert line["truncated"] == columns["truncated"].mean()
    solved = columns["rewards"].reshape(-1, 4).mean(1)
    assert (line["all_solved"], line["none_solved"]) == ((solved == 1).mean(), (solved == 0).mean())
    assert frame["group_accuracy"].to_list() == np.repeat(solved, 4).tolist()
    pairs = zip(columns["advantages"], columns["mask"], strict=True)
    means = [row[mask].mean() if mask.any() else None for row, mask in pairs]
    assert frame["advantage"].to_list() == pytest.approx(means, rel=1e-6)
    assert frame["token_advantage"].list.len().to_list() == frame["n_tokens"].to_list()


def test_constant_token_advantages_are_the_rollouts_own(tmp_path):
    columns = rollouts(np.random.default_rng(3))
    own = np.linspace(-1, 1, 12, dtype=np.float32)
    columns["advantages"] = own[:, None] * columns["mask"]
    frame = pl.read_parquet(recorded(tmp_path / "run", columns))
    some = columns["mask"].any(1)
    assert frame["advantage"].to_list() == [
        value if has else None for value, has in zip(own.tolist(), some, strict=True)
    ]
    assert not {"advantage_spread", "token_advantage", "interrupted"} & set(frame.columns)


def test_sums_and_means_of_rollouts_are_taken_as_they_are(tmp_path):
    given = {"prompts": ["a", "a"], "rewards": [0.5, 1], "logps": torch.tensor([-1.5, -2.0]), "entropies": [0.5, None]}
    frame = pl.read_parquet(recorded(tmp_path / "run", {**given, "n_tokens": [3, 0], "groups": [0, 0]}))
    assert frame.select("logp", "entropy", "n_tokens", "correct").rows() == [
        (-1.5, 0.5, 3, None),
        (-2.0, None, 0, None),
    ]


def test_what_is_not_to_be_kept_is_not(tmp_path):
    columns = {**rollouts(np.random.default_rng(4)), "prompt_token_ids": [[1, 2]] * 12}
    del columns["advantages"]
    frame = pl.read_parquet(recorded(tmp_path / "run", columns, tokens=False, texts=False))
    assert not [name for name in frame.columns if name.startswith("token_") or name.endswith("token_ids")]
    assert not {"prompt", "completion"} & set(frame.columns)
    assert frame["prompt_id"].n_unique() == 3


def test_a_tools_tokens_are_left_out_and_told(tmp_path):
    columns = {name: value for name, value in rollouts(np.random.default_rng(5)).items() if name not in BY_TOKEN}
    columns |= {"token_ids": np.arange(72).reshape(12, 6), "logps": np.full((12, 6), -1.0)}
    columns["mask"] = np.tile([True, True, False, False, True, False], (12, 1))
    columns["mask"][0] = [True, True, True, False, False, False]
    frame = pl.read_parquet(recorded(tmp_path / "run", columns))
    assert frame["interrupted"].to_list() == [False] + [True] * 11
    assert frame["token_ids"].to_list()[1] == columns["token_ids"][1, [0, 1, 4]].tolist()


def test_a_run_is_valid_and_every_analysis_reads_it(tmp_path, capsys):
    rng = np.random.default_rng(6)
    with el.Recorder(tmp_path / "run", method={"name": "grpo", "params": {}}, group_size=4, world_size=1) as rec:
        for step in range(3):
            columns = rollouts(rng)
            columns["advantages"] = columns["rewards"] - 0.5
            rec.step(**columns, epoch=step, source="test", metrics={"loss": torch.tensor(0.25), "lr": np.float64(1e-4)})
        answers = {"benchmark": ["b"] * 2, "problem_id": ["x", "y"], "sample": [0, 0], "correct": [True, False]}
        rec.evals(2, answers)
    main(["check", str(rec.path)])
    output = capsys.readouterr().out
    assert "valid: every file" in output
    assert "warning" not in output
    for analysis in ("advantages", "covariance", "entropy", "likelihood", "solve_rates", "training", "validation"):
        assert re.search(rf"{analysis} +yes", output), analysis
    run = el.open_run(rec.path)
    assert run.metrics().select("step", "loss").rows() == [(0, 0.25), (1, 0.25), (2, 0.25)]
    columns = set(run.scan().collect_schema())
    assert columns == set(ROLLOUTS) - {"answer"}


def test_groups_are_named_or_neighbours_or_of_one_prompt(tmp_path):
    def groups(**given):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        size = given.pop("group_size", None)
        with el.Recorder(folder, method="grpo", group_size=size, world_size=1) as rec:
            frame = pl.read_parquet(rec.step(rewards=[0] * 4, extra={"row": range(4)}, **given)).sort("row")
        return list(zip(frame["group_id"], frame["sample"], strict=True))

    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    crossed = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert groups(prompts=list("aabb")) == pairs
    assert groups(prompts=list("abab")) == crossed
    assert groups(prompts=list("aabb"), group_size=2) == pairs
    assert groups(prompts=list("aaaa"), group_size=2) == pairs
    assert groups(prompts=list("aaaa"), groups=["x", "y", "x", "y"]) == crossed
    assert groups(prompts=list("abab"), groups=torch.tensor([7, 3, 7, 3]), group_size=2) == crossed
    assert groups(prompt_ids=np.array([5, 5, 2, 2])) == pairs
    assert groups(prompt_token_ids=[[1], [1, 2], [1], [1, 2]]) == crossed


def test_a_prompts_name_is_the_same_in_every_step_and_kind_of_message(tmp_path):
    messages = [{"role": "user", "content": "1+1"}]
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1) as rec:
        for prompts in (["a", messages], [messages, "a"]):
            rec.step(prompts=prompts, rewards=[0, 1])
    frame = el.open_run(rec.path).scan().collect()
    assert frame.group_by("prompt").agg(pl.col("prompt_id").n_unique())["prompt_id"].to_list() == [1, 1]
    assert json.loads(frame["prompt"][1]) == messages
    assert frame["prompt_id"][0] == prompt_ids(["a"])[0]  # as in an imported run


def test_verdicts_come_from_rewards_only_while_all_are_0_or_1(tmp_path):
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1) as rec:
        rec.step(prompts=["a", "a"], rewards=[1, 0])
        with pytest.warns(RunWarning, match="no longer 0 or 1"):
            rec.step(prompts=["a", "a"], rewards=[1, 0.1])
        rec.step(prompts=["a", "a"], rewards=[1, 0])
        rec.step(prompts=["a", "a"], rewards=[1, 0.1], correct=[1.0, float("nan")])
    correct = el.open_run(rec.path).scan().collect()["correct"].to_list()
    assert correct == [True, False, None, None, None, None, True, None]


def pieces(columns, *cuts):
    for start, end in zip((0, *cuts), (*cuts, 12), strict=True):
        yield {name: value[start:end] for name, value in columns.items()}


@pytest.mark.filterwarnings("ignore:advantages differ")
def test_a_step_in_pieces_is_the_step(tmp_path):
    columns = rollouts(np.random.default_rng(7))
    with el.Recorder(tmp_path / "pieces", method="grpo", group_size=4, world_size=1) as rec:
        for piece in pieces(columns, 3, 4):
            rec.add(**piece)
        file = rec.step()
    assert file.read_bytes() == recorded(tmp_path / "whole", columns)


@pytest.mark.filterwarnings("ignore:advantages differ")
@pytest.mark.parametrize("cuts", [(), (5, 6)])
def test_log_probabilities_after_the_update_may_come_later(tmp_path, cuts):
    columns = rollouts(np.random.default_rng(8))
    before = {name: value for name, value in columns.items() if name != "logps_after"}
    with el.Recorder(tmp_path / "later", method="grpo", group_size=4, world_size=1) as rec:
        rec.add(**before)
        for piece in pieces(columns, *cuts) if cuts else []:
            rec.after(piece["logps_after"], piece["mask"])
        file = rec.step() if cuts else rec.step(logps_after=columns["logps_after"])  # padded on the right
    expected = pl.read_parquet(recorded(tmp_path / "whole", columns))
    assert pl.read_parquet(file).equals(expected)
