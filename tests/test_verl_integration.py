"""What our additions to verl are made of, without verl; tests/full_verl_*.py run them inside it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.advantages.registry import ESTIMATORS, MODULATIONS
from entropy_lab.errors import EntropyLabError, MissingExtraError, ParameterError
from entropy_lab.integrations import verl as door
from entropy_lab.integrations.verl_advantages import RegisteredEstimator, Update, by_session, telling
from entropy_lab.integrations.verl_data import data_files
from entropy_lab.integrations.verl_rollouts import Columns, Outputs
from entropy_lab.integrations.verl_settings import RecordSettings
from entropy_lab.presets.preset import PRESETS
from entropy_lab.recording.columns import Keep, rollout_frame
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks import get as get_task

RECIPE = recipes.load("trainers", "verl_grpo")
OWN = frozenset({"adv_estimator", "gamma", "lam"})


@pytest.mark.parametrize("name", [*ESTIMATORS, *MODULATIONS])
def test_words_of_a_command_line_give_the_advantage_back(name):
    wanted = el.advantages.modulation(name)
    words = door.words_of(name, wanted.params)
    algorithm = {key.rpartition(".")[2]: value for key, value in words.items()} | {"lam": 1.0, "gamma": 1.0}
    assert door.estimator_names({"grpo", "rloo", "gae"})[algorithm["adv_estimator"]] == name
    built = door.advantage_of(name, algorithm, OWN)
    assert (built.name, dict(built.params)) == (name, dict(wanted.params))


def test_a_parameter_is_not_given_twice():
    with pytest.raises(ParameterError, match="stands beside"):
        door.advantage_of("asym_grpo", {"beta_pos": 0.7, "entropy_lab_beta_pos": 0.8}, OWN)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_sessions_with_several_outputs_count_once(seed):
    """However outputs and padding lie between each other, each row gets its session's advantage."""
    rng = np.random.default_rng(seed)
    estimator, sessions = el.advantages.get("dr_grpo"), [(uid, s) for uid in "ab" for s in range(rng.integers(1, 5))]
    reward = {session: float(rng.integers(0, 2)) for session in sessions}
    outputs = {session: int(rng.integers(1, 4)) for session in sessions}
    keys = [(uid, s, k) for (uid, s), n in outputs.items() for k in range(n)] + [("pad", i, 0) for i in range(2)]
    keys = [keys[i] for i in rng.permutation(len(keys))]
    found = Outputs.of(["_".join(map(str, key)) for key in keys], [{"is_padding": uid == "pad"} for uid, _, _ in keys])
    # Only the last output's reward counts: the others hold what must not.
    reward_B = np.array([reward.get((u, s), 9.0) if k == outputs.get((u, s), 1) - 1 else 7.0 for u, s, k in keys])
    update = Update(estimator, found.final_B, found.padding_B)
    level_B = by_session(update, reward_B, np.array([uid for uid, _, _ in keys]))
    mean = {uid: np.mean([value for (u, _), value in reward.items() if u == uid]) for uid in "ab"}
    for (uid, s, _), level in zip(keys, level_B, strict=True):
        assert level == pytest.approx(0.0 if uid == "pad" else reward[uid, s] - mean[uid])
    assert found.rollouts == [f"{uid}_{s}_{outputs[uid, s] - 1}" for uid, s in sorted(sessions)]


def test_padding_is_in_no_group_in_verl_s_own_trainer_either():
    reward_BT = torch.tensor([[1.0], [0.0], [0.0]])
    call = {"response_mask": torch.tensor([[1], [1], [0]]), "config": {}, "index": ["a", "a", "pad1"]}
    found, _ = RegisteredEstimator("a_grae", lambda: OWN)(reward_BT, **call)
    np.testing.assert_allclose(found[:2, 0], el.advantages.get("a_grae")([[1, 0]])[0], atol=1e-6)


def test_estimators_that_read_entropies_get_them_from_our_trainer_only():
    estimator, registered = el.advantages.get("entropy_advantage"), RegisteredEstimator("entropy_advantage", set)
    reward_BT, mask_BT = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1, 1], [1, 0]])
    call = {"response_mask": mask_BT, "config": {}, "index": ["a", "a"]}
    with pytest.raises(ParameterError, match="trainer_mode=entropy_lab"):
        registered(reward_BT, **call)
    entropy_BT = torch.tensor([[0.1, 0.2], [0.3, 9.0]])
    with telling(Update(estimator, np.arange(2), np.zeros(2, dtype=bool), entropy_BT)):
        found, _ = registered(reward_BT, **call)
    level = estimator([[1.0, 0.0]])[0]
    np.testing.assert_allclose(found, estimator.at_tokens(level, entropy_BT, mask_BT), atol=1e-6)
    with pytest.raises(ParameterError, match="no uids"):
        registered(reward_BT, mask_BT, config={})


class Letters:
    """A tokenizer of the alphabet, in which 0 and 1 are special."""

    all_special_ids = (0, 1)

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(96 + int(i)) for i in ids if i > 1)


def fields(rewards, told=None):
    """What the queue holds of rollouts of two or three tokens."""
    n = len(rewards)

    def nested(row):
        return torch.nested.as_nested_tensor([torch.tensor(row[: 2 + i % 2]) for i in range(n)], layout=torch.jagged)

    scores = [[0.0] * (1 + i % 2) + [reward] for i, reward in enumerate(rewards)]
    return {
        "uid": np.array(["u", "u", "v", "v"][:n], dtype=object),
        "prompts": torch.nested.as_nested_tensor([torch.tensor([5, 6])] * n, layout=torch.jagged),
        "responses": nested([7, 8, 9]),
        "response_mask": nested([1, 0, 1]),
        "rm_scores": torch.nested.as_nested_tensor([torch.tensor(s) for s in scores], layout=torch.jagged),
        "old_log_probs": nested([1e-9, -1.0, -2.0]),
        "entropy": nested([-1e-9, 0.5, 0.7]),
        "extra_fields": [{"reward_extra_info": info} for info in told or [{"acc": r} for r in rewards]],
        "extra_info": [{"problem": f"p{i // 2}"} for i in range(n)],
    }


def test_columns_of_the_record():
    given = Columns(RecordSettings(prompt_id="problem"), Letters(), longest=3).of(fields([1.0, 0.0, 0.0, 1.0]))
    frame = rollout_frame(given, Keep(texts=False))
    assert frame["n_tokens"].to_list() == [1, 2, 1, 2]
    assert frame["logp"].to_list() == [0.0, -2.0, 0.0, -2.0]
    assert frame["entropy"].to_list() == pytest.approx([0.0, 0.35, 0.0, 0.35])
    assert frame["truncated"].to_list() == [False, True, False, True]
    assert frame["prompt_id"].to_list() == ["p0", "p0", "p1", "p1"]
    assert frame["reward"].to_list() == [1.0, 0.0, 0.0, 1.0]
    assert frame["correct"].to_list() == [True, False, False, True]
    assert "completions" not in given


def test_a_score_that_is_no_verdict_is_never_taken_for_one_again():
    columns = Columns(RecordSettings(), Letters(), longest=3)
    assert columns.of(fields([1.0, 0.0]))["correct"] == [1.0, 0.0]
    assert "correct" not in columns.of(fields([1.0, -1.0]))
    assert "correct" not in columns.of(fields([1.0, 1.0]))
    named = Columns(RecordSettings(correct="right"), Letters(), longest=3)
    assert named.of(fields([0.5, 0.2], [{"right": 1}, {"right": 0}]))["correct"] == [1, 0]
    with pytest.raises(ParameterError, match="has no 'right'; there is: acc"):
        named.of(fields([1.0, 0.0]))


def test_without_verl_only_what_needs_it_is_missing():
    try:
        import verl  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="verl is not installed"):
            RECIPE.main(from_command_line(RECIPE.Config, ["--preset", PRESETS.names()[0], "--out", "run", "--dry-run"]))


@pytest.mark.parametrize(
    "words",
    [
        ["--gpus", "7"],
        ["--advantage", "gpro"],
        ["--advantage", "pass_at_k", "--advantage-params", "k", "9"],
        ["--mini-batches", "3"],
        ["--model.path", ""],
        ["--task", "contdown"],
    ],
)
def test_what_does_not_fit_is_refused(words):
    given = ["--preset", PRESETS.names()[0], "--out", "run", *words]
    with pytest.raises(EntropyLabError):
        RECIPE.require_fitting(from_command_line(RECIPE.Config, given))


def test_data_are_made_where_verl_is_not(tmp_path):
    words = ["--model.path", "none", "--out", str(tmp_path / "run"), "--task", "countdown", "--train-prompts", "8"]
    RECIPE.main(
        from_command_line(RECIPE.Config, [*words, "--eval-every", "1", "--eval-problems", "3", "--only", "data"])
    )
    train, held_out = data_files(tmp_path / "run-verl" / "data")
    assert train.exists()
    assert len(held_out) == len(get_task("countdown").benchmarks(1))
