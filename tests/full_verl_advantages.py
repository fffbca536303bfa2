"""Our estimators in the real verl, in its own trainer and in ours; `make test-verl` runs it.

By token, changing during training, under their names and parameters, and settings of them that are refused.
full_verl_stand_ins.py stands in the place of the GPU workers.
"""

import numpy as np
import polars as pl
import pytest
import torch
from hydra.errors import ConfigCompositionException
from verl import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1 import get_trainer_cls

import entropy_lab as el
from entropy_lab.advantages.parameters import ranges
from entropy_lab.advantages.registry import ESTIMATORS, MODULATIONS
from entropy_lab.errors import ParameterError
from entropy_lab.integrations import verl_plugin
from entropy_lab.integrations.verl_names import TAKEN, TAKEN_KEYS
from entropy_lab.rl.advantage import advantages_of
from tests import full_verl_stand_ins as small
from tests.full_verl_outputs import dumped, record_of, rows_of, wanted


@pytest.fixture(scope="session", autouse=True)
def queue():
    yield
    small.end_queue()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small.made_folder(tmp_path_factory.mktemp("base"))


def test_estimators_work_in_verl_s_own_trainer(base, tmp_path):
    config = small.settings(base, tmp_path, "+algorithm.beta_neg=0.3", trainer__v1__trainer_mode="sync")
    trainer = small.trained(config, drop=3)
    assert len(trainer.actor_rollout_wg.seen) == 3
    assert any(advantage_BT.any() for _, advantage_BT, _ in trainer.actor_rollout_wg.seen)
    for step, (keys, advantage_BT, mask_BT) in enumerate(trainer.actor_rollout_wg.seen, 1):
        form = wanted(dumped(tmp_path)[step], beta_neg=0.3)
        for key, advantages, mask in zip(keys, advantage_BT, mask_BT, strict=True):
            np.testing.assert_allclose(
                advantages[mask != 0].numpy(), form.get(tuple(key.rsplit("_", 2)[:2]), 0.0), atol=1e-6, rtol=0
            )


# With its default alpha the bonus of entropies near log 17 is at its cap at every token.
@pytest.mark.parametrize(("estimator", "params"), [("entropy_advantage", {"alpha": 0.1}), ("token_asym_grpo", {})])
def test_tokens_of_one_rollout_may_differ(base, tmp_path, estimator, params):
    words = [f"+algorithm.{name}={value}" for name, value in params.items()]
    trainer = small.trained(small.settings(base, tmp_path, *words, algorithm__adv_estimator=estimator), drop=3)
    ours, rows = el.advantages.get(estimator, **params), rows_of(tmp_path)
    assert (rows["advantage_spread"] > 0).sum() > 5
    for step in range(3):
        part = rows.filter(pl.col("step") == step)
        level = ours(part["reward"].to_numpy().astype(float), part["group_id"].to_numpy())
        width = part["n_tokens"].max()
        mask = np.arange(width) < part["n_tokens"].to_numpy()[:, None]
        entropy = np.zeros(mask.shape)
        entropy[mask] = np.concatenate(part["token_entropy"].to_list())
        token = ours.at_tokens(level, entropy, mask)
        np.testing.assert_allclose(np.concatenate(part["token_advantage"].to_list()), token[mask], atol=1e-5)
        _, advantage_BT, mask_BT = trainer.actor_rollout_wg.seen[step]
        assert sorted(advantage_BT[mask_BT != 0].tolist()) == pytest.approx(sorted(token[mask]), abs=1e-5)


def test_advantages_that_change_go_on_after_a_checkpoint(base, tmp_path):
    target = ["+algorithm.target=0.8", "+algorithm.integral=0.5"]
    changes = {"algorithm__adv_estimator": "entropy_target", "trainer__save_freq": 2}
    small.trained(small.settings(base, tmp_path, *target, **changes))  # three steps; the checkpoint is of the second
    resumed = {**changes, "trainer__resume_mode": "auto", "trainer__total_training_steps": 5}
    trainer = small.trained(small.settings(base, tmp_path, *target, **resumed))
    metrics = record_of(tmp_path).metrics()
    assert metrics["step"].to_list() == [0, 1, 2, 3, 4]
    law = el.advantages.modulation("entropy_target", target=0.8, integral=0.5)
    for step, entropy, beta_pos in metrics.select("step", "entropy", "beta_pos").rows():
        law.at(step, steps=5, entropy=entropy)
        assert beta_pos == pytest.approx(law.values()["beta_pos"], abs=1e-6)
    assert metrics["beta_pos"].n_unique() == 5
    assert trainer._updates == 5


def data_of(reward_PG, mask_BT):
    """A batch as verl's trainers hand it to `compute_advantage`."""
    groups, size = reward_PG.shape
    reward_BT = torch.zeros(mask_BT.shape)
    reward_BT[torch.arange(len(mask_BT)), mask_BT.sum(1) - 1] = torch.from_numpy(reward_PG).float().flatten()
    uids = np.repeat([f"uid-{i}" for i in range(groups)], size).astype(object)
    tensors = {"token_level_rewards": reward_BT, "response_mask": mask_BT}
    return DataProto.from_dict(tensors, non_tensors={"uid": uids})


@pytest.mark.parametrize("name", verl_plugin.registered_estimators())
def test_every_estimator_gives_through_verl_what_it_gives_our_trainer(name):
    rng, ours = np.random.default_rng(0), verl_plugin.registered_estimators()[name]
    reward_PG = rng.integers(0, 2, (6, 8)).astype(float)
    reward_PG[0], reward_PG[1] = 0, 1
    mask_BT = torch.from_numpy((np.arange(5) < rng.integers(1, 6, 48)[:, None]).astype(int))
    algorithm = small.composed(f"algorithm.adv_estimator={name}").algorithm
    data = data_of(reward_PG, mask_BT)
    if ours in MODULATIONS or el.advantages.get(ours).token_advantage is not None:
        with pytest.raises(ParameterError, match="trainer_mode=entropy_lab"):
            compute_advantage(data, adv_estimator=name, config=algorithm)
        return
    found = compute_advantage(data, adv_estimator=name, config=algorithm).batch
    expected = advantages_of(el.advantages.get(ours), reward_PG, torch.zeros(mask_BT.shape), mask_BT)
    torch.testing.assert_close(found["advantages"], expected.token_BT, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["returns"], expected.token_BT, atol=1e-6, rtol=0)


def test_what_verl_has_itself_stays_verl_s():
    names = verl_plugin.registered_estimators()
    assert set(names.values()) == {*ESTIMATORS, *MODULATIONS}
    assert ADV_ESTIMATOR_REGISTRY["grpo"] is compute_grpo_outcome_advantage
    assert {ours for name, ours in names.items() if name != ours} == TAKEN == {"grpo", "rloo"}
    parameters = {name for build in (*ESTIMATORS.values(), *MODULATIONS.values()) for name in ranges(build)}
    assert parameters & verl_plugin.own_keys() == TAKEN_KEYS


def test_parameters_by_the_names_that_verl_leaves_free(base, tmp_path):
    words = ["+algorithm.entropy_lab_lam=0.2", "+trainer.v1.entropy_lab.record_to=" + str(tmp_path / "run")]
    config = small.settings(
        base, tmp_path, *words, algorithm__adv_estimator="w_reinforce", trainer__total_training_steps=1
    )
    small.trained(config)
    assert el.open_run(tmp_path / "run").method["params"] == {"lam": 0.2}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("+algorithm.beta_pso=0.9", "did you mean beta_pos"),
        ("+algorithm.beta_pos=-1", "beta_pos is -1"),
        ("+trainer.v1.entropy_lab.text=true", "did you mean texts"),
        ("+trainer.v1.entropy_lab.logp_after_every=often", "logp_after_every: is 'often'"),
    ],
)
def test_mistakes_show_before_anything_is_loaded(base, tmp_path, word, says):
    config = small.settings(base, tmp_path, word)
    with pytest.raises(ParameterError, match=says):
        get_trainer_cls("entropy_lab")(config)


def test_without_a_plus_hydra_refuses_an_unknown_key(base, tmp_path):
    with pytest.raises(ConfigCompositionException, match="beta_pos"):
        small.settings(base, tmp_path, "algorithm.beta_pos=0.9")
