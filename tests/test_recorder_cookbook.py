"""The snippets of docs/recording.md run, with arguments as their frameworks pass them (foreign-formats, section 3)."""

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

import entropy_lab as el
from entropy_lab.recording.columns import Rollouts

PAGE = Path(__file__).parent.parent / "docs" / "recording.md"
REWARDS = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
"""Two groups of four: p = 1/4 and p = 3/4."""
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]] * 4)
LOGPS = -torch.arange(24.0).reshape(8, 3) / 8 * MASK


def asym(beta_pos=0.9, beta_neg=0.4):
    """The paper's closed form."""
    odds = [1 / 3] * 4 + [3.0] * 4
    return [odd**-beta_pos if reward else -(odd**beta_neg) for odd, reward in zip(odds, REWARDS, strict=True)]


def block(marker):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return compile(next(text for text in blocks if marker in text), str(PAGE), "exec")


@pytest.fixture
def package(monkeypatch):
    """Stand-ins for modules of frameworks, with the names that the snippets import."""

    def make(dotted, **names):
        parts = dotted.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, name, sys.modules.get(name, ModuleType(name)))
        vars(sys.modules[dotted]).update(names)

    return make


@pytest.fixture
def recorder(tmp_path):
    with el.Recorder(tmp_path / "run", method="asym_grpo", world_size=1) as rec:
        yield rec


def recorded(rec):
    frame = el.open_run(rec.path).scan().collect()
    assert frame["reward"].to_list() == REWARDS
    assert frame["group_id"].to_list() == [0] * 4 + [1] * 4
    return frame


def test_the_ten_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Batch:
        prompts, completions, rewards = ["a"] * 8, ["b"] * 8, torch.tensor(REWARDS)
        response_ids, response_mask = torch.ones(8, 3, dtype=torch.long), MASK
        old_logps, entropies, advantages = LOGPS.bfloat16().requires_grad_(), MASK.float(), torch.zeros(8)
        loss = torch.tensor(0.5, requires_grad=True)

    exec(block("training_loop"), {"training_loop": lambda: [Batch, Batch]})
    assert el.analyze("my-run", "entropy").frame["entropy"].to_list() == [1.0, 1.0]
    assert el.open_run("my-run").metrics()["loss"].to_list() == [0.5, 0.5]


def test_gradient_accumulation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    halves = [slice(0, 4), slice(4, 8)]
    micro = [
        SimpleNamespace(prompts=["a"] * 4, rewards=REWARDS[half], response_mask=MASK[half], old_logps=LOGPS[half])
        for half in halves
    ]
    scope = {
        "el": el,
        "micro_batches": lambda step: micro,
        "backward": lambda micro: None,
        "optimizer_step": lambda: None,
        "score_again": lambda micro: micro.old_logps * 2,
    }
    exec(block("micro_batches"), scope)
    first, second = (pl.read_parquet(file) for file in sorted(Path("accumulated/rollouts").iterdir()))
    assert first["logp_after"].to_list() == pytest.approx((2 * first["logp"]).to_list())
    assert "logp_after" not in second.columns


def test_every_name_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert not [name for name in Rollouts.__annotations__ if f"`{name}`" not in text]


def test_openrlhf(package, recorder):
    class RemoteExperienceMaker:
        """The two methods of 0.11.2 that the snippet overrides."""

        def __init__(self):
            self.args = SimpleNamespace(rollout=SimpleNamespace(n_samples_per_prompt=4))

        def compute_advantages_and_returns(self, experiences):
            return experiences

        def make_experience_batch(self, rollout_samples):
            return self.compute_advantages_and_returns(rollout_samples)

    def experience(rows):
        """Micro-batches hold any rows: balanced by length, not in the order of the groups."""
        return SimpleNamespace(
            index=rows,
            prompts=["a" if row < 4 else "b" for row in rows],
            rewards=torch.tensor([REWARDS[row] for row in rows]),
            sequences=torch.arange(4).expand(len(rows), 4),
            action_mask=MASK[rows].bool(),
            action_log_probs=LOGPS[rows],
            rollout_log_probs=None,
            truncated=torch.zeros(len(rows), dtype=torch.bool),
        )

    package("openrlhf.trainer.ppo_utils.experience_maker", RemoteExperienceMaker=RemoteExperienceMaker)
    scope = {}
    exec(block("openrlhf"), scope)
    maker = scope["EntropyLabExperienceMaker"]()
    maker.recorder = recorder
    experiences = maker.make_experience_batch([experience([0, 5, 2, 7]), experience([4, 1, 6, 3])])
    expected = torch.tensor(asym(beta_pos=0.7))
    for each in experiences:
        torch.testing.assert_close(each.advantages, expected[each.index][:, None] * MASK[each.index])
    frame = el.open_run(recorder.path).scan().collect()
    assert frame.group_by("prompt").agg(pl.len(), pl.col("group_id").n_unique()).select("len", "group_id").rows() == [
        (4, 1),
        (4, 1),
    ]
    assert sorted(frame["advantage"]) == pytest.approx(sorted(expected.tolist()))
    assert frame["token_ids"].list.max().max() == 3


def test_skyrl(package, recorder):
    registry = {}

    def register_advantage_estimator(name):
        return lambda function: registry.setdefault(name, function)

    package("skyrl.backends.skyrl_train.utils.ppo_utils", register_advantage_estimator=register_advantage_estimator)
    scope = {}
    exec(block("skyrl"), scope)
    uids = ["u"] * 4 + ["v"] * 4
    token_rewards = torch.zeros(8, 3)
    token_rewards[:, 1] = torch.tensor(REWARDS)
    advantages, returns = registry["asym_grpo"](
        token_level_rewards=token_rewards,
        response_mask=MASK.float(),
        index=np.array(uids),
        values=None,
        grpo_norm_by_std=True,
        gamma=1.0,
        lambd=1.0,
        config=None,
    )
    torch.testing.assert_close(advantages, torch.tensor(asym())[:, None] * MASK)
    assert returns is advantages

    class Batch(dict):
        def __init__(self, **tensors):
            super().__init__(tensors)
            self.metadata = {"uids": [*uids, "v"], "pad_size": 1}

    def padded(values):
        return torch.cat([values, values[-1:]])

    prompts = torch.tensor([[0, 5]] * 4 + [[6, 7]] * 4)
    data = Batch(
        sequences=padded(torch.cat([prompts, MASK * 9], 1)),
        attention_mask=padded(torch.cat([prompts > 0, MASK > 0], 1)),
        response_mask=padded(MASK),
        rewards=padded(token_rewards),
        action_log_probs=padded(LOGPS),
        advantages=padded(advantages),
    )
    scope["record"](recorder, data)
    frame = recorded(recorder)
    assert frame["advantage"].to_list() == pytest.approx(asym())
    assert frame["prompt_token_ids"].to_list() == [[5]] * 4 + [[6, 7]] * 4


def test_slime(recorder):
    scope = {}
    exec(block("--custom-advantage-function-path"), scope)
    scope["RECORDER"] = recorder
    samples = [
        SimpleNamespace(
            get_reward_value=lambda args, row=row: REWARDS[row],
            group_index=7 + row // 4,
            prompt="ab"[row // 4],
            response="c",
            tokens=[1, 2, *range(int(MASK[row].sum()))],
            response_length=int(MASK[row].sum()),
            rollout_log_probs=LOGPS[row, : MASK[row].sum()].tolist(),
            status=SimpleNamespace(value="completed"),
        )
        for row in range(8)
    ]
    raw, advantages = scope["rewards"](SimpleNamespace(), samples)
    assert raw == REWARDS
    assert recorded(recorder)["advantage"].to_list() == pytest.approx(advantages)
    mine = [1, 4]  # one data-parallel rank's
    entropy = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.0]])
    lengths = [int(MASK[row].sum()) for row in mine]
    rollout_data = {
        "rewards": [advantages[row] for row in mine],
        "loss_masks": [torch.ones(n, dtype=torch.int) for n in lengths],
        "entropy": [entropy[i, :n].bfloat16() for i, n in enumerate(lengths)],
        "log_probs": [torch.zeros(n) for n in lengths],
    }
    scope["token_advantages"](SimpleNamespace(), rollout_data)
    for i, row in enumerate(mine):
        given = rollout_data["entropy"][i].float().numpy()[None]
        expected = el.advantages.get("token_asym_grpo").at_tokens([advantages[row]], given, np.ones_like(given))[0]
        assert rollout_data["advantages"][i].tolist() == pytest.approx(expected.tolist())
    assert rollout_data["returns"] is rollout_data["advantages"]


def test_prime_rl(package, recorder):
    assigned = []
    package("prime_rl.orchestrator.algo.base", Algorithm=object)
    package("prime_rl.orchestrator.algo.routing", assign_advantages=lambda trace, values: assigned.append(values))
    scope = {}
    exec(block("prime_rl"), scope)
    algorithm = scope["AsymGRPO"]()
    algorithm.recorder = recorder
    for group in (0, 1):
        rows = range(4 * group, 4 * group + 4)
        episodes = [
            SimpleNamespace(
                group=SimpleNamespace(id=group),
                task={"question": "ab"[group]},
                traces=[
                    SimpleNamespace(
                        reward=REWARDS[row],
                        nodes=[
                            SimpleNamespace(sampled=False, token_ids=[1, 2], mask=[False] * 2, logprobs=[]),
                            SimpleNamespace(sampled=True, token_ids=[3, 4], mask=[True] * 2, logprobs=[-1.0, -0.5]),
                        ],
                    )
                ],
            )
            for row in rows
        ]
        asyncio.run(algorithm.score_group(episodes))
    recorder.step()
    assert assigned == pytest.approx(asym())
    assert recorded(recorder)["sampler_logp"].to_list() == [-1.5] * 8


def test_nemo_rl(recorder):
    scope = {}
    exec(block("compute_advantage("), scope)
    estimator = scope["EntropyLabEstimator"](recorder=recorder)
    prompt_ids = torch.tensor([[5, 0]] * 4 + [[6, 7]] * 4)  # padded on the right
    mask = torch.cat([torch.zeros(8, 2), MASK], 1)
    logps = torch.cat([torch.zeros(8, 2), LOGPS], 1)
    advantages = estimator.compute_advantage(
        prompt_ids=prompt_ids,
        rewards=torch.tensor(REWARDS),
        mask=mask,
        repeated_batch={},
        logprobs_policy=logps,
        logprobs_reference=None,
    )
    torch.testing.assert_close(advantages, torch.tensor(asym())[:, None].expand(8, 5))
    frame = recorded(recorder)
    assert frame["prompt_token_ids"].to_list() == [[5]] * 4 + [[6, 7]] * 4
    assert frame["n_tokens"].to_list() == [2, 3] * 4
