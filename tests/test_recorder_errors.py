"""Wrong input costs a recorder one clear line; what cannot be recorded costs a step; a run only goes forward."""

import numpy as np
import pytest

import entropy_lab as el
from entropy_lab.errors import OutputError, ParameterError, RunFormatError
from entropy_lab.run import RunWarning

GOOD = {"prompts": ["a"] * 4, "rewards": [0, 1, 0, 1]}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"reward": [0]}, "reward: is not recorded; .*Hint: did you mean rewards?"),
        ({"rewards": None}, "rewards: are missing"),
        ({"prompts": None}, "prompts: are missing"),
        ({"prompts": ["a"]}, "prompts: has 1 entries for 4 rollouts"),
        ({"prompts": "aaaa"}, "prompts: is one str; a list"),
        ({"rewards": np.zeros((4, 2))}, r"rewards: has shape \(4, 2\); shape \(rollouts,\)"),
        ({"rewards": list("abcd")}, "rewards: are String; numbers"),
        ({"logps": np.zeros((4, 3))}, r"logps: has shape \(4, 3\), and nothing says which .* mask"),
        ({"logps": np.zeros((4, 3)), "mask": np.ones((4, 5))}, r"logps: has shape \(4, 3\); the mask's shape \(4, 5\)"),
        ({"logps": np.zeros((3, 3)), "mask": np.ones((4, 3))}, "logps: has 3 entries for 4 rollouts"),
        (
            {"logps": np.zeros((4, 3, 2)), "mask": np.ones((4, 3))},
            r"logps: has shape \(4, 3, 2\); \(rollouts, tokens\)",
        ),
        ({"logps": [[-1.0]] * 4, "token_ids": [[1]] * 3 + [[1, 2]]}, "logps: has 1 values in row 3, which has 2"),
        ({"logps": [[-1.0], None, [-1.0], [-1.0]]}, r"logps: row 1 has shape \(\)"),
        ({"mask": np.full((4, 2), 2)}, "mask: holds 2; 0 or 1"),
        ({"mask": np.ones((4, 2)), "n_tokens": [2, 2, 2, 1]}, "n_tokens: is 1 in row 3, where the mask has 2 tokens"),
        ({"n_tokens": [1.5] * 4}, "n_tokens: has shape .*float64"),
        ({"token_ids": [[0.5]] * 4}, "token_ids: are float64; integers"),
        ({"correct": [0, 1, 2, 1]}, "correct: hold"),
        ({"prompt_ids": [[5, 6]] * 4}, "prompt_ids: has 4 rows of 2 to 2 values; one text .*prompt_token_ids"),
        ({"prompt_token_ids": np.ones((4, 2), int)}, "prompt_token_ids: has shape .* padded without a mask"),
        ({"groups": [0, 0, 0, None]}, "groups: holds None"),
        ({"groups": [0] * 4, "prompts": list("abab")}, "groups: '0' has rollouts of 2 prompts"),
        ({"groups": [0] * 4}, "group_size: is 2, and a group has 4 rollouts"),
        ({"prompts": list("aaab")}, "group_size: is 2, and rollouts 2 to 3 are of several prompts"),
        ({"prompts": ["a"] * 3, "rewards": [0] * 3}, "group_size: is 2, and the step has 3 rollouts"),
        ({"extra": {"logp": [0] * 4}}, "extra: holds 'logp'"),
        ({"metrics": {"loss": np.zeros(3)}}, r"metrics: loss has shape \(3,\)"),
        ({"metrics": {"losses": [1]}}, "metrics: losses is a list"),
    ],
)
def test_wrong_calls_cost_one_line_and_leave_nothing(tmp_path, change, line):
    with el.Recorder(tmp_path / "run", method="grpo", group_size=2, world_size=1) as rec:
        with pytest.raises(ParameterError, match=line) as error:
            rec.step(**{**GOOD, **change})
        assert "\n" not in str(error.value)
        assert not list(rec.path.rglob("*.parquet"))
        assert rec.step(**GOOD).name == "step-000000.parquet"


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"group_size": 0}, "group_size: is 0"),
        ({"timeout": 0}, "timeout: is 0"),
        ({"on_error": "ignore"}, "on_error: is 'ignore'"),
        ({"rank": 2, "world_size": 2}, "rank: is 2 of 2"),
        ({"last_step": 3}, "last_step: is 3 without resume"),
    ],
)
def test_wrong_settings_cost_one_line(tmp_path, about, line):
    with pytest.raises(ParameterError, match=line):
        el.Recorder(tmp_path / "run", method="grpo", **about)
    assert not list(tmp_path.iterdir())


def test_an_after_pass_over_other_rollouts_is_refused(tmp_path):
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1) as rec:
        rec.add(**GOOD, logps=[[-1.0]] * 4)
        with pytest.raises(ParameterError, match="are of 5 rollouts, and 4 were added"):
            rec.after([[-1.0]] * 5)
        with pytest.raises(ParameterError, match="has 2 values in row 1, which has 1 response"):
            rec.after([[-1.0], [-1.0, -1.0]])
        with pytest.raises(ParameterError, match="have 2 tokens in row 0, where 1 were recorded"):
            rec.after(np.full((2, 2), -1.0), mask=[[1, 1], [1, 0]])
        rec.after([[-1.0]] * 2)
        with pytest.raises(ParameterError, match=r"after: gives other columns .*token_logp_after"):
            rec.after([-1.0, -1.0])
        with pytest.raises(ParameterError, match=r"add: gives other columns .*logp"):
            rec.add(**GOOD)
        with pytest.raises(ParameterError, match="are of 2 rollouts, and the step has 4"):
            rec.step()


def test_steps_only_go_forward(tmp_path):
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1, on_error="raise") as rec:
        rec.step(5, **GOOD)
        assert rec.next_step == 6
        with pytest.raises(ParameterError, match="step: is 5; above 5"):
            rec.step(5, **GOOD)
        assert rec.step(**GOOD).name == "step-000006.parquet"


def test_rollouts_that_no_step_closed_are_told(tmp_path):
    with (
        pytest.warns(RunWarning, match="4 rollouts were added after the last step"),
        el.Recorder(tmp_path / "run", method="grpo", world_size=1) as rec,
    ):
        rec.add(**GOOD)


@pytest.mark.parametrize(("last", "kept"), [(None, 3), (1, 2), (-1, 0)])
def test_a_run_goes_on(tmp_path, last, kept):
    begun = {"method": "grpo", "world_size": 1}
    with el.Recorder(tmp_path / "run", resume=True, **begun) as rec:  # nothing to go on with: it begins
        for _ in range(3):
            rec.step(**GOOD)
    (rec.path / "rollouts" / "step-000003.parquet").write_bytes(b"killed before its line of metrics")
    with el.Recorder(tmp_path / "run", resume=True, last_step=last, **begun) as rec:
        assert rec.next_step == kept
        rec.step(**GOOD)
    run = el.open_run(rec.path)
    assert [file.step for file in run.step_files] == run.metrics()["step"].to_list() == list(range(kept + 1))
    assert run.metrics()["time"].is_sorted()
    with pytest.raises(ParameterError, match=r"method: is 'dapo', and .* was made by 'grpo'"):
        el.Recorder(tmp_path / "run", method="dapo", resume=True)
    with pytest.raises(OutputError, match="not empty"):
        el.Recorder(tmp_path / "run", method="grpo")


def test_what_cannot_be_recorded_costs_a_step_and_not_the_training(tmp_path):
    wrong = {**GOOD, "logps": [0.5, -1.0, -1.0, -1.0]}
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1) as rec:
        with pytest.raises(RunFormatError, match=r"logp: is 0\.5"):
            rec.step(**wrong)  # nothing is lost yet: better now than after the training
        rec.step(**GOOD)
        with pytest.warns(RunWarning, match=r"step 1 is not recorded .*is 0\.5"):
            assert rec.step(**wrong) is None
        rec.step(**GOOD)
        (rec.path / "rollouts").chmod(0o500)
        rec.add(prompts="one text", rewards=[1])  # a second time nobody is told
        assert rec.step() is None
        assert rec.step(**GOOD) is None
        (rec.path / "rollouts").chmod(0o700)
        rec.step(**GOOD)
        assert rec.step(2, **GOOD) is None  # an index that was there: nothing is overwritten
        with pytest.warns(RunWarning, match="the validation pass of step 5 is not recorded"):
            rec.evals(5, {"correct": [True]})
    run = el.open_run(rec.path)
    assert [file.step for file in run.step_files] == run.metrics()["step"].to_list() == [0, 2, 5]
    assert run.info["incomplete"]["steps"] == [1, 3, 4, 2]
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1, resume=True, last_step=1) as rec:
        assert el.open_run(rec.path).info["incomplete"]["steps"] == [1]


def test_errors_stop_whoever_asks_for_it(tmp_path):
    with el.Recorder(tmp_path / "run", method="grpo", world_size=1, on_error="raise") as rec:
        rec.step(**GOOD)
        with pytest.raises(ParameterError):
            rec.step(prompts=["a"], rewards=[1, 0])
