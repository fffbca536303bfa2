"""A training of verl without GPUs: its own trainer, queue, data and loss; one model here is all of its GPU workers."""

import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import ray
import torch
import transfer_queue as tq
import verl
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

torch.set_num_threads(1)
LETTERS = ["<pad>", "<eos>", *"0123456789+-*/="]
GOOD = frozenset("01234")
"""An answer is right when its last letter is one of these."""
PROMPTS, GROUP, LIMIT, TEMPERATURE = 4, 4, 6, 0.9


def tokenizer():
    made = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", padding_side="left")
    found.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return found


def model():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True}
    torch.manual_seed(0)
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(LETTERS), head_dim=16, intermediate_size=32, **sizes, **special))
    with torch.no_grad():  # fresh weights are nearly uniform: sharpen them, so that anything wrong would show
        for parameter in made.parameters():
            parameter.mul_(3.0 if parameter.dim() == 2 else 1.0)
    return made.eval()


def composed(*overrides):
    """Verl's configuration as its own entry point composes it."""
    folder = str(Path(verl.__file__).parent / "trainer" / "config")
    with initialize_config_dir(config_dir=folder, version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


@cache
def begin_queue():
    """Start Ray with a TransferQueue in it, once; or take the Ray of RAY_ADDRESS."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray would write a token to the home directory
    os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112 - or it begins a process for each processor
    own = {"num_cpus": 24, "include_dashboard": False}  # logical ones: the queue's actors ask for many
    ray.init(**({} if "RAY_ADDRESS" in os.environ else own), logging_level="ERROR", log_to_driver=False)
    config = composed()
    config.transfer_queue.enable = True
    config.transfer_queue.backend.SimpleStorage.num_data_storage_units = 1
    tq.init(config.transfer_queue)


def empty_queue():
    """Take out what another training left: an asynchronous one ends with rollouts that it has not used."""
    for partition, keys in (tq.kv_list() or {}).items():
        if keys:
            tq.kv_clear(list(keys), partition_id=partition)


def end_queue():
    """End what was begun, if it was and has not ended."""
    if begin_queue.cache_info().currsize:
        begin_queue.cache_clear()
        tq.close()
        ray.shutdown()


def right(text):
    return float(text[-1:] in GOOD and text != "")


class Workers:
    """In the place of the group of GPU workers: the same fields read from the queue, and written to it."""

    def __init__(self, config):
        self.config, self.model = config, model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.loss = get_policy_loss_fn("vanilla")
        self.actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        self._dispatch_info, self.seen, self.saved = {}, [], []

    def _query_dispatch_info(self, role):
        return [0]

    def scores(self, ids):
        """log π and entropy at each position for the token that follows it, and 0 at the last."""
        logp = (self.model(input_ids=ids[None]).logits[0] / TEMPERATURE).float().log_softmax(-1)
        chosen = logp[:-1].gather(1, ids[1:, None])[:, 0]
        return torch.cat([chosen, torch.zeros(1)]), -(logp.exp() * logp).sum(1)

    def compute_log_prob(self, batch):
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["input_ids"])
        with torch.no_grad():
            found = [self.scores(ids) for ids in data["input_ids"].unbind()]
        fields = {"log_probs": torch.nested.as_nested_tensor([logp for logp, _ in found], layout=torch.jagged)}
        if batch.extra_info["calculate_entropy"]:
            fields["entropy"] = torch.nested.as_nested_tensor([each for _, each in found], layout=torch.jagged)
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )

    def update_actor(self, batch):
        names = ["input_ids", "responses", "response_mask", "old_log_probs", "advantages"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
        advantages = data["advantages"].to_padded_tensor(0.0)
        mask = data["response_mask"].to_padded_tensor(0)
        self.seen.append((list(batch.keys), advantages, mask))
        now = torch.nn.utils.rnn.pad_sequence(
            [
                self.scores(ids)[0][len(ids) - len(response) - 1 : -1]
                for ids, response in zip(data["input_ids"].unbind(), data["responses"].unbind(), strict=True)
            ],
            batch_first=True,
        )
        before = data["old_log_probs"].to_padded_tensor(0.0)
        loss, metrics = self.loss(before, now, advantages, mask, self.actor.loss_agg_mode, self.actor)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        bare = {name.removeprefix("actor/"): value for name, value in metrics.items()}
        return {"metrics": {**bare, "pg_loss": float(loss.detach()), "grad_norm": float(norm), "lr": 1e-2, "mfu": 0.0}}

    def save_checkpoint(self, path, *_, **__):
        Path(path).mkdir(parents=True)
        torch.save([self.model.state_dict(), self.optimizer.state_dict()], Path(path) / "state.pt")

    def load_checkpoint(self, local_path, **_):
        weights, moments = torch.load(Path(local_path) / "state.pt")
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(moments)


class Loops:
    """In the place of the agent loops: samples from the model, and puts into the queue what they put."""

    def __init__(self, trainer, drop=0, outputs=1, tools=False):
        self.trainer, self.drop, self.outputs, self.tools = trainer, drop, outputs, tools
        self.generator = torch.Generator().manual_seed(0)

    def generate_sequences(self, batch):
        dropped = 0
        for i in range(len(batch)):
            row = {name: value[i] for name, value in batch.items() if isinstance(value, torch.Tensor)}
            row |= {name: tu.get(batch, name)[i] for name in batch.keys() - {*row, "global_steps"}}
            for session in range(GROUP):
                if dropped < self.drop:
                    dropped += 1
                    continue
                self.put(row, session)
            tq.kv_put(key=row["uid"], partition_id="train", tag={"status": "finished"})

    def put(self, row, session):
        texts = self.trainer.tokenizer
        prompt = texts.apply_chat_template(list(row["raw_prompt"]), tokenize=True, return_dict=False)
        keys, fields, tags = [], [], []
        for output in range(self.outputs):
            response, logps = self.sample(prompt)
            mask = [1] * len(response)
            if self.tools and len(mask) > 2:  # the second token is a tool's
                mask[1], logps[1] = 0, 0.0
            score = right(texts.decode(response, skip_special_tokens=True))
            one = AgentLoopOutput(
                prompt_ids=prompt,
                response_ids=response,
                response_mask=mask,
                response_logprobs=logps,
                reward_score=score,
                num_turns=2,
                metrics=AgentLoopMetrics(),
                extra_fields={"reward_extra_info": {"acc": score}, "min_global_steps": 0, "max_global_steps": 0},
            )
            field = one.as_dict()
            field["metrics"] = dict(field["metrics"])
            ids = torch.tensor([*prompt, *response])
            field |= {**row, "input_ids": ids, "loss_mask": field["response_mask"], "session_id": session}
            field |= {"position_ids": torch.arange(len(ids)), "multi_modal_inputs": {}}
            keys.append(f"{row['uid']}_{session}_{output}")
            fields.append(field)
            lengths = {"prompt_len": len(prompt), "response_len": len(response), "seq_len": len(ids)}
            step = self.trainer.global_steps
            versions = {"global_steps": step, "min_global_steps": step - 1, "max_global_steps": step - 1}
            tags.append({"status": "success", **lengths, **versions})
        tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id="train")

    def sample(self, prompt):
        ids, logps = list(prompt), []
        with torch.no_grad():
            while len(ids) < len(prompt) + LIMIT and ids[-1] != 1:
                logits = self.trainer.actor_rollout_wg.model(input_ids=torch.tensor([ids])).logits[0, -1] / TEMPERATURE
                logp = logits.float().log_softmax(-1)
                logp[0] = -math.inf  # no padding
                chosen = int(torch.multinomial(logp.exp(), 1, generator=self.generator))
                ids.append(chosen)
                logps.append(float(logp[chosen]))
        return ids[len(prompt) :], logps


class Nothing:
    """What has nothing to do without GPUs."""

    reward_loop_worker_handles = ()

    def __getattr__(self, name):
        return lambda *_, **__: {}

    def get_n_gpus(self):
        return 1


def overrides(folder, **changes):
    """Settings of a small training in a folder; keys of changes have __ for a dot."""
    given = {
        "algorithm.adv_estimator": "asym_grpo",
        "data.train_files": f"{folder}/train.parquet",
        "data.val_files": f"{folder}/train.parquet",
        "data.train_batch_size": PROMPTS,
        "data.max_prompt_length": 8,
        "data.max_response_length": LIMIT,
        "data.dataloader_num_workers": 0,
        "data.seed": 1,
        "actor_rollout_ref.model.path": f"{folder}/model",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": GROUP,
        "actor_rollout_ref.rollout.temperature": TEMPERATURE,
        "actor_rollout_ref.actor.ppo_mini_batch_size": PROMPTS,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 4,
        "trainer.v1.trainer_mode": "entropy_lab",
        "trainer.total_training_steps": 3,
        "trainer.val_before_train": False,
        "trainer.logger": "[console]",
        "trainer.default_local_dir": f"{folder}/out",
        "trainer.resume_mode": "disable",
        "trainer.device": "cpu",
        "trainer.rollout_data_dir": f"{folder}/dump",
    }
    given |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{name}={'null' if value is None else value}" for name, value in given.items()]


def settings(base, out, *further, **changes):
    """A configuration that writes to a folder of its own; further words as on verl's command line."""
    written = {"trainer__default_local_dir": f"{out}/out", "trainer__rollout_data_dir": f"{out}/dump"}
    return composed(*overrides(base, **{**written, **changes}), *further)


def trainer_of(config):
    """Verl's trainer of this configuration, set up as its own `_setup` does, but for what needs a GPU."""
    begin_queue()
    empty_queue()
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    trainer.replay_buffer.poll_interval = 0.02
    trainer._init_tokenizer()
    trainer._init_dataloader()
    trainer._init_dump_executor()
    trainer.actor_rollout_wg = Workers(config)
    trainer.checkpoint_manager = trainer.resource_pool_manager = trainer.reward_loop_manager = Nothing()
    trainer._load_checkpoint()
    trainer.on_init_end()
    return trainer


def trained(config, **loops):
    trainer = trainer_of(config)
    trainer.fit(Loops(trainer, **loops))
    return trainer


def made_folder(folder, n=16):
    """The folder, with a model, its tokenizer and a data set."""
    import polars as pl

    model().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    asked = [f"{a}+{b}=" for a, b in rng.integers(0, 10, (n, 2))]
    rows = [
        {
            "prompt": [{"role": "user", "content": text}],
            "data_source": "sums",
            "reward_model": {"ground_truth": text[:-1], "style": "rule"},
            "extra_info": {"index": i, "problem": f"sum-{text}"},
        }
        for i, text in enumerate(asked)
    ]
    pl.DataFrame(rows).write_parquet(folder / "train.parquet")
    return folder
