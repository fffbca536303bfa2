"""Our estimators in the real TRL, and settings of them that are refused; `make test-trl` runs it.

By token, changing during training, with several rewards and with none. That they enter the loss as their closed form
however TRL spreads a step is proved in full_trl_record.py.
"""

import numpy as np
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.errors import ParameterError, UnknownNameError
from tests.full_trl_small_run import (
    GROUP,
    IGNORED_WARNINGS,
    PROMPTS,
    Watched,
    closed_form,
    ends_well,
    right,
    rows_of,
    short,
    trained,
)

pytestmark = [pytest.mark.filterwarnings("ignore::" + kind) for kind in IGNORED_WARNINGS]


def test_tokens_of_one_rollout_may_differ(tmp_path):
    class Tokens(Watched):
        shapes = ()

        def _compute_loss(self, model, inputs):
            type(self).shapes += (tuple(inputs["advantages"].shape),)
            return super()._compute_loss(model, inputs)

    params = {"base": "asym_grpo", "alpha": 0.1}  # with its default alpha most tokens' bonus is at its cap
    trained(tmp_path, watch=Tokens, advantage="entropy_advantage", advantage_params=params, max_steps=2)
    assert {len(shape) for shape in Tokens.shapes} == {2}
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert (rows["advantage_spread"] > 0).sum() > 5
    estimator = el.advantages.get("entropy_advantage", **params)
    for (_, _), group in rows.group_by("step", "group_id"):
        level = estimator(group["reward"].to_numpy()[None].astype(float))[0]
        for row, one in zip(group.iter_rows(named=True), level, strict=True):
            entropy = np.array([row["token_entropy"]])
            expected = estimator.at_tokens([one], entropy, np.ones_like(entropy))[0]
            np.testing.assert_allclose(row["token_advantage"], expected, atol=1e-5)
            assert row["advantage"] == pytest.approx(expected.mean(), abs=1e-5)


def test_advantages_that_change_go_on_after_a_checkpoint(tmp_path):
    about = {"advantage": "entropy_target", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trained(tmp_path / "whole", **about)
    for folder in ("checkpoint-4", "entropy-lab/rollouts/step-000003.parquet"):
        assert (tmp_path / "whole" / folder).exists()
    before = el.open_run(tmp_path / "whole/entropy-lab").metrics()
    cut = rows_of(el.open_run(tmp_path / "whole/entropy-lab"))
    trained(tmp_path / "whole", **about, resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    after = el.open_run(tmp_path / "whole/entropy-lab").metrics()
    assert after["step"].to_list() == before["step"].to_list() == [0, 1, 2, 3]
    names = ["step", "beta_pos", "beta_neg", "trainer_step", "entropy"]
    assert after[:2].select(names).equals(before[:2].select(names))
    rows = rows_of(el.open_run(tmp_path / "whole/entropy-lab"))
    assert rows.filter(pl.col("step") < 2).equals(cut.filter(pl.col("step") < 2))
    # The controller went on from where the checkpoint was, and not from its beginning.
    replayed = el.advantages.modulation("entropy_target")
    for row in after.iter_rows(named=True):
        replayed.at(row["step"], steps=4, entropy=row["entropy"])
        for name, value in replayed.values().items():
            assert row[name] == pytest.approx(value, abs=1e-6), (name, row["step"])


def half_told(completion_ids, **_):
    return [None if ids[0] % 2 else right(ids) for ids in completion_ids]


def test_rollouts_without_a_reward_get_no_advantage_and_are_left_out(tmp_path):
    trainer = trained(tmp_path, reward=half_told, max_steps=2)
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert 0 < rows.height < 2 * GROUP * PROMPTS
    assert all(ids[0] % 2 == 0 for ids in rows["token_ids"].to_list())
    for _, _, keys, advantages in trainer.seen:
        assert all(a == 0 for (_, ids), a in zip(keys, advantages.tolist(), strict=True) if ids[0] % 2)
    for (_, _), group in rows.group_by("step", "group_id"):
        np.testing.assert_allclose(group["advantage"], closed_form(group["reward"].to_list()), atol=1e-6)


def test_several_rewards_and_verdicts(tmp_path):
    own = {"advantage": "grpo", "correct": "ends_well", "recorder": {"texts": False, "task": "letters"}}
    trained(tmp_path, reward=[ends_well, short], reward_weights=[1.0, 0.5], max_steps=2, **own)
    run = el.open_run(tmp_path / "entropy-lab")
    rows = rows_of(run)
    right_N = [right(ids) for ids in rows["token_ids"].to_list()]
    assert rows["correct"].to_list() == [bool(each) for each in right_N]
    assert rows["reward_ends_well"].to_list() == right_N
    np.testing.assert_allclose(rows["reward"], rows["reward_ends_well"] + 0.5 * rows["reward_short"])
    assert "prompt" not in rows.columns
    assert run.info["task"] == "letters"
    for (_, _), group in rows.group_by("step", "group_id"):
        expected = el.advantages.get("grpo")(group["reward"].to_numpy()[None].astype(float))[0]
        np.testing.assert_allclose(group["advantage"], expected, atol=1e-5)


def test_trls_own_advantages_are_recorded_as_they_are(tmp_path):
    trainer = trained(tmp_path, advantage=None, max_steps=2, loss_type="grpo")
    torch_rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert el.open_run(tmp_path / "entropy-lab").info["method"]["name"] == "trl_grpo"
    for (_, _), group in torch_rows.group_by("step", "group_id"):
        reward = group["reward"].to_numpy()
        expected = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-4)
        np.testing.assert_allclose(group["advantage"], expected, atol=1e-5)
    assert len(trainer.seen) == 2


@pytest.mark.parametrize(
    ("own", "error"),
    [
        ({"advantage": "asym_gpro"}, UnknownNameError),
        ({"advantage_params": {"beta_pos": -1.0}}, ParameterError),
        ({"advantage": None, "advantage_params": {"beta_pos": 1.0}}, ParameterError),
        ({"correct": "nothing"}, ParameterError),
        ({"logp_after_every": -1}, ParameterError),
        ({"reward": short}, ParameterError),  # 0.5 is no verdict
        ({"advantage": "pass_at_k", "advantage_params": {"k": 2 * GROUP}}, ParameterError),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, own, error):
    with pytest.raises(error) as raised:
        trained(tmp_path, max_steps=1, **own)
    assert "\n" not in str(raised.value)
