"""Small runs with per-token values, all of the same rollouts, in the shapes in which nine frameworks write them."""

import json
import pickle
import sys
import types
from unittest.mock import patch

import numpy as np

from tests.foreign_samples import lines

PAD, END = 0, 1


def rollouts(step, n_prompts=3, group=4):
    """The rollouts of a step, group by group: token ids, one value a response token, reward and advantage."""
    rng = np.random.default_rng(step)
    for p in range(n_prompts):
        rewards = [float((p * step + k) % 3 == 0) for k in range(group)]
        for k, reward in enumerate(rewards):
            n = 1 + (p + k) % 4
            logp = -rng.uniform(0.5, 3.0, n)
            yield {
                "prompt": [10 + p, 3, 20 + step],
                "response": [*(30 + (k + j) % 7 for j in range(n - 1)), END],
                "logp": np.float32(logp).tolist(),
                "sampler": np.float32(logp - 0.01).tolist(),
                "entropy": np.float32(rng.uniform(0.5, 3.0, n)).tolist(),
                "advantage": reward - sum(rewards) / group,
                "reward": reward,
                "group": p,
                "question": f"{step}+{p}=",
                "said": f"{step}.{p}.{k}",
                "verdict": reward == 1.0,
            }


def over(one, name, width=0, fill=0.0):
    """A field over prompt and response, padded on the right."""
    values = [fill] * len(one["prompt"]) + list(one[name])
    return values + [fill] * (width - len(values))


def ids(one, width=0):
    values = one["prompt"] + one["response"]
    return values + [PAD] * (width - len(values))


def mask(one, width=0):
    values = [0.0] * len(one["prompt"]) + [1.0] * len(one["response"])
    return values + [0.0] * (width - len(values))


def widest(of_step):
    return max(len(ids(one)) for one in of_step)


def nemo_rl(folder, steps, passed=True, **shape):
    for step in steps:
        of_step = list(rollouts(step, **shape))
        width = widest(of_step)
        rows = []
        for number, one in enumerate(of_step):
            row = {
                "content": one["question"] + one["said"],
                "rewards": one["reward"],
                "input_lengths": len(ids(one)),
                "token_ids": ids(one, width),
                "token_loss_mask": mask(one, width),
                "sample_loss_mask": 1.0,
                "advantages": [one["advantage"]] * width,  # on the prompt and the padding, too
                "generation_logprobs": over(one, "sampler", width),
                "prev_logprobs": over(one, "logp", width, fill=-9.0) if passed else [0.0] * width,
            }
            rows.append({**{key: [value] for key, value in row.items()}, "idx": number})
        lines(folder / "exp_001" / f"train_data_step{step}.jsonl", rows)
    return folder


def exported(step, one, number, rank=0):
    n = len(ids(one))
    return {
        "schema_version": 1,
        "step": step,
        "rank": rank,
        "micro_step": 0,
        "micro_sequence_idx": number,
        "export_sequence_idx": number,
        "env_name": "add",
        "token_ids": ids(one),
        "position_ids": list(range(n)),
        "loss_mask": [bool(value) for value in mask(one)],
        "advantages": [value * one["advantage"] for value in mask(one)],
        "inference_logprobs": over(one, "sampler"),
        "trainer_logprobs": over(one, "logp", fill=-9.0),
        "entropy": over(one, "entropy", fill=9.0),
        "mismatch_kl": [None] * n,
        "is_masked_low": [False] * (n - 1) + [True],
        "rl_weights": [None] * n,
    }


def prime_rl_exports(folder, steps, stable=True, **shape):
    """Sequences are packed over two ranks: not in the order of groups."""
    for step in steps:
        of_step = list(rollouts(step, **shape))
        place = folder / "token_exports" / f"step_{step}"
        for rank in (0, 1):
            rows = [exported(step, one, n, rank) for n, one in enumerate(of_step[rank::2])]
            lines(place / f"rank_{rank}.jsonl", rows)
        if stable:
            (place / "STABLE").touch()
    return folder


def episode(step, one, number):
    nodes = [
        {
            "message": {"role": "user", "content": one["question"]},
            "sampled": False,
            "token_ids": one["prompt"][:2],
            "mask": [False] * 2,
        },
        {
            "parent": 0,
            "message": {"role": "assistant", "content": one["said"]},
            "sampled": True,
            "token_ids": one["prompt"][2:] + one["response"],
            "mask": [False] + [True] * len(one["response"]),
            "logprobs": one["sampler"],
            "finish_reason": "length" if number % 5 == 4 else "stop",
        },
    ]
    trace = {
        "id": f"t{step}.{number}",
        "task": {"type": "Add", "data": {"answer": str(step)}},
        "agent": {"name": "solver", "trainable": True},
        "nodes": nodes,
        "rewards": {"exact": {"score": one["reward"] / 2, "weight": 2.0}},
        "metrics": {"solved": float(one["verdict"])},
        "info": {"advantage": one["advantage"]},
        "is_completed": True,
    }
    judge = {"id": "j", "agent": {"name": "judge", "trainable": False}, "nodes": [], "rewards": {}}
    group = {"id": f"g{step}.{one['group']}"}
    return {"id": f"e{number}", "env": {"id": "add-v1", "name": "add"}, "group": group, "traces": [trace, judge]}


def prime_rl_episodes(folder, steps, kind="train", subset="effective", **shape):
    for step in steps:
        rows = [episode(step, one, number) for number, one in enumerate(rollouts(step, **shape))]
        lines(folder / "rollouts" / f"step_{step}" / kind / subset / "traces.jsonl", rows)
    return folder


def slime(folder, steps, entropy=True, **shape):
    """slime counts from 0."""
    import torch

    for step in steps:
        drawn, trained = [], []
        for number, one in enumerate(rollouts(step, **shape)):
            n = len(one["response"])
            drawn.append(
                {
                    "group_index": one["group"],
                    "index": number,
                    "prompt": one["question"],
                    "tokens": ids(one),
                    "response": one["said"],
                    "response_length": n,
                    "label": str(step),
                    "reward": one["reward"],
                    "loss_mask": [1] * n,
                    "rollout_log_probs": one["sampler"],
                    "status": "truncated" if number % 5 == 4 else "completed",
                    "metadata": {},
                }
            )
            sample = {
                "sample_index": number,
                "rollout_position": number,
                "tokens": torch.tensor(ids(one)),
                "response_lengths": n,
                "rewards": one["advantage"],
                "loss_masks": torch.ones(n, dtype=torch.int32),
                "log_probs": torch.tensor(one["logp"]),
                "rollout_log_probs": torch.tensor(one["sampler"]),
                "entropy": torch.tensor(one["entropy"]),
                "advantages": torch.full((n,), one["advantage"]),
            }
            trained.append(sample if entropy else {key: part for key, part in sample.items() if key != "entropy"})
        for place in ("rollout_data", "train_data"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        torch.save({"rollout_id": step - 1, "samples": drawn}, folder / "rollout_data" / f"{step - 1}.pt")
        content = {"format_version": 2, "rollout_id": step - 1, "samples": trained[::-1]}
        content["raw_reward"] = [one["reward"] for one in drawn]
        torch.save(content, folder / "train_data" / f"{step - 1}.pt")
    return folder


def open_instruct(folder, steps, per_shard=10, **shape):
    rows = []
    for step in steps:
        for number, one in enumerate(rollouts(step, **shape)):
            rows.append(
                {
                    "step": step,
                    "sample_idx": number,
                    "prompt_idx": one["group"],
                    "prompt_tokens": one["prompt"],
                    "response_tokens": one["response"],
                    "reward": one["reward"],
                    "advantage": one["advantage"],
                    "finish_reason": "length" if number % 5 == 4 else "stop",
                    "dataset": "add",
                    "ground_truth": [step],
                    "request_info": None,
                    "logprobs": one["sampler"],
                }
            )
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        lines(folder / f"run_rollouts_{shard:06d}.jsonl", rows[start : start + per_shard])
    lines(folder / "run_metadata.jsonl", [{"run_name": "run", "model_name": "Qwen/Qwen3", "git_commit": "1a2b"}])
    return folder


BATCH_MODULE = "skyrl.backends.skyrl_train.training_batch"


def skyrl_batch(state, path):
    """Pickle a state as the framework's class does, of which nothing but names stays in the file."""
    parents = [".".join(BATCH_MODULE.split(".")[:n]) for n in (1, 2, 3)]
    module = types.ModuleType(BATCH_MODULE)
    names = {"__module__": BATCH_MODULE, "__reduce__": lambda self: (module._rebuild_tensor_batch, (type(self), state))}
    module.TrainingInputBatch = type("TrainingInputBatch", (), names)
    module._rebuild_tensor_batch = lambda cls, kept: None
    module._rebuild_tensor_batch.__module__ = BATCH_MODULE
    module._rebuild_tensor_batch.__qualname__ = "_rebuild_tensor_batch"
    path.parent.mkdir(parents=True, exist_ok=True)
    with patch.dict(sys.modules, {**{name: types.ModuleType(name) for name in parents}, BATCH_MODULE: module}):
        path.write_bytes(pickle.dumps(module.TrainingInputBatch(), protocol=4))
    return path


def packed(values, dtype):
    array = np.array(values, dtype=dtype)
    return {"format": "numpy", "data": array.tobytes(), "shape": array.shape, "dtype": str(array.dtype)}


def skyrl(folder, steps, metadata=None, rewards=False, **shape):
    """Padded on the left, per-token values over the widest response."""
    for step in steps:
        of_step = list(rollouts(step, **shape))
        width, answer = widest(of_step), max(len(one["response"]) for one in of_step)
        left = [([PAD] * width + ids(one))[-width:] for one in of_step]
        attended = [([0] * width + [1] * len(ids(one)))[-width:] for one in of_step]

        def of(name, of_step=of_step, answer=answer):
            return [([0.0] * answer + list(one[name]))[-answer:] for one in of_step]

        ones = [{**one, "one": [1.0] * len(one["response"])} for one in of_step]
        responded = of("one", ones)
        fields = {
            "sequences": packed(left, np.int64),
            "attention_mask": packed(attended, np.int64),
            "response_mask": packed(responded, np.int64),
            "loss_mask": packed(responded, np.float32),
            "action_log_probs": packed(of("logp"), np.float32),
            "rollout_logprobs": packed(of("sampler"), np.float32),
            "advantages": packed(
                [[one["advantage"] * bit for bit in bits] for one, bits in zip(of_step, responded, strict=True)],
                np.float32,
            ),
            "values": None,
        }
        if rewards:
            last = [[0.0] * (answer - 1) + [one["reward"]] for one in of_step]
            fields["rewards"] = packed(last, np.float32)
        state = {"batch_dict": fields, "batch_size": len(of_step), "device": None, "metadata": metadata or {}}
        skyrl_batch(state, folder / "dumped_data" / f"global_step_{step}_training_input.pkl")
    return folder


def areal(folder, versions, place="rollout", **shape):
    """One file a prompt; versions count from 0."""
    for version in versions:
        groups = {}
        for one in rollouts(version + 1, **shape):
            groups.setdefault(one["group"], []).append(one)
        for group, members in groups.items():
            rows = [
                {
                    "task_id": 100 * version + group,
                    "sample_idx": number,
                    "seqlen": len(ids(one)),
                    "prompt_len": len(one["prompt"]),
                    "head_version": version,
                    "tail_version": version,
                    "reward": one["reward"],
                    "prompt": one["question"],
                    "completion": one["said"],
                }
                for number, one in enumerate(members)
            ]
            lines(folder / place / str(version) / f"{100 * version + group}.jsonl", rows)
    return folder


def roll_rows(folder, steps, **shape):
    """Rows with per-token values: padded on the right, two files a step. Steps count from 0."""
    for step in steps:
        of_step = list(rollouts(step + 1, **shape))
        width = max(len(one["response"]) for one in of_step)
        rows = [
            {
                "log_probs2": (one["logp"] + [0.0] * width)[:width],
                "logprobs": (one["logp"] + [0.0] * width)[:width],
                "new_response_mask": ([1] * len(one["response"]) + [0] * width)[:width],
                "prompt": f"<|pad|><|pad|><|user|>{one['question']}<|assistant|>",
                "response": f"{one['said']}<|end|><|pad|><|pad|>",
                "old_log_probs2_entropy": (one["entropy"] + [0.0] * width)[:width],
                "ref_logprobs": [0.0] * width,
                "values": [0.0] * (width + 3),
                "token_rewards": [0.0] * (width + 3),
                "reward": one["advantage"],
                "step": step,
                "response_tokens": ["a"] * width,
            }
            for one in of_step
        ]
        for part in (0, 1):
            half = rows[part * 8 : part * 8 + 8]
            lines(folder / "board" / f"data_20260101_0000{step:02d}_{part:03d}.jsonl", half)
    return folder


def roll_columns(folder, steps, **shape):
    for step in steps:
        of_step = list(rollouts(step + 1, **shape))
        columns = {
            "id": [f"q{one['group']}" for one in of_step],
            "prompt": [one["question"] for one in of_step],
            "ground_truth": [str(step)] * len(of_step),
            "domain": ["math"] * len(of_step),
            "responses": [one["said"] for one in of_step],
            "scores": [one["reward"] for one in of_step],
            "global_step": [step] * len(of_step),
            "sampling_params": ["{}"] * len(of_step),
        }
        lines(folder / "dump" / f"rollout_dump_data.step_{step}.jsonl", [columns])
    return folder


def tinker(folder, iterations, name="train", **shape):
    for iteration in iterations:
        rows, seen = [], {}
        for one in rollouts(iteration + 1, **shape):
            number = seen[one["group"]] = seen.get(one["group"], -1) + 1
            turn = {
                "step_idx": 0,
                "ob_len": 3,
                "ac_len": len(one["response"]),
                "reward": one["reward"],
                "episode_done": True,
                "metrics": {"correct": float(one["verdict"]), "format": 1.0},
                "logs": {},
            }
            rows.append(
                {
                    "schema_version": 1,
                    "split": name,
                    "iteration": iteration,
                    "group_idx": one["group"],
                    "traj_idx": number,
                    "tags": ["add"],
                    "sampling_client_step": iteration,
                    "total_reward": one["reward"],
                    "final_reward": 0.0,
                    "trajectory_metrics": {},
                    "steps": [turn],
                    "final_ob_len": 0,
                }
            )
        lines(folder / f"iteration_{iteration:06d}" / f"{name}_rollout_summaries.jsonl", rows)
    return folder


def metrics_file(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
