"""Ranks that each write a part give the run that one process would have written, or none."""

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.run import RunWarning

GOOD = {"prompts": ["a", "a"], "rewards": [0.0, 1.0], "logps": [[-1.0], [-2.0, -3.0]]}


def ranks(folder, n, **about):
    about = {"method": "grpo", "timeout": 20.0, **about}
    return [el.Recorder(folder, rank=rank, world_size=n, **about) for rank in range(n)]


def close(recorders):
    for rec in reversed(recorders):
        rec.close()


def rollouts(rng, prompts=6, group=4):
    n = prompts * group
    rows = [rng.random(k) for k in rng.integers(0, 5, n)]
    return {
        "prompts": [f"p{i}" for i in range(prompts) for _ in range(group)],
        "completions": [f"c{i}" for i in range(n)],
        "rewards": (rng.random(n) < 0.5).astype(float),
        "logps": [-row for row in rows],
        "entropies": rows,
        "advantages": rng.normal(size=n),
    }


@pytest.mark.parametrize(("cuts", "group_size"), [((8, 16), 4), ((3, 3), 4), ((10, 11), None)])
def test_ranks_give_the_table_of_one_process(tmp_path, cuts, group_size):
    """Also when a group lies on two ranks, and when a rank has nothing."""
    rng = np.random.default_rng(0)
    together = ranks(tmp_path / "ranks", 3, group_size=group_size)
    with el.Recorder(tmp_path / "one", method="grpo", group_size=group_size, world_size=1) as alone:
        for _ in range(2):
            columns = rollouts(rng)
            alone.step(**columns, metrics={"loss": 1.0})
            starts, ends = (0, *cuts), (*cuts, 24)
            for rec, start, end in reversed(list(zip(together, starts, ends, strict=True))):
                part = {name: value[start:end] for name, value in columns.items()}
                rec.step(metrics={"loss": float(rec.rank == 0)}, **(part if end > start else {}))
    close(together)
    for step in range(2):
        name = f"rollouts/step-{step:06d}.parquet"
        assert (tmp_path / "ranks" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    lines = [el.open_run(tmp_path / name).metrics().drop("time") for name in ("ranks", "one")]
    assert lines[0].equals(lines[1])
    assert {path.name for path in (tmp_path / "ranks").iterdir()} == {"run.json", "metrics.jsonl", "rollouts"}


def test_rank_0_waits_and_the_others_do_not(tmp_path):
    def second():
        rec = el.Recorder(tmp_path / "run", method="grpo", rank=1, world_size=2, timeout=20)  # before there is a run
        for _ in range(2):
            time.sleep(0.05)
            rec.step(**GOOD)

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.05)
    with el.Recorder(tmp_path / "run", method="grpo", rank=0, world_size=2, timeout=20) as rec:
        for _ in range(2):
            assert pl.read_parquet(rec.step(**GOOD)).height == 4
    thread.join()


def test_the_environment_says_who_is_who(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    rec = el.Recorder(tmp_path / "run", method="grpo")
    assert (rec.rank, rec.world_size) == (1, 4)
    assert not (tmp_path / "run").exists()
    assert el.Recorder(tmp_path / "run", method="grpo", world_size=1).rank == 0
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ParameterError, match="WORLD_SIZE: is 'many'"):
        el.Recorder(tmp_path / "other", method="grpo")


def groups(folder, parts, **about):
    recorders = ranks(folder, len(parts), **about)
    for rec, part in reversed(list(zip(recorders, parts, strict=True))):
        file = rec.step(**{"rewards": [0.0, 1.0], **part})
    close(recorders)
    return pl.read_parquet(file)["group_id"].to_list()


def test_names_of_groups_are_told_apart_by_their_prompts(tmp_path):
    own, other, shared = ({"prompts": [name] * 2, "groups": [0, 0]} for name in ("a", "b", "a"))
    assert groups(tmp_path / "1", [own, other]) == [0, 0, 1, 1]
    assert groups(tmp_path / "2", [own, shared]) == [0, 0, 0, 0]
    with pytest.raises(ParameterError, match=r"a group has 4 rollouts.*share names of groups by chance"):
        groups(tmp_path / "3", [own, shared], group_size=2)


def test_missing_ranks_are_named_after_a_while(tmp_path):
    first, second, *_ = ranks(tmp_path / "run", 4, timeout=0.1)
    second.step(**GOOD)
    with pytest.raises(OutputError, match=r"step 0 has no part of ranks 2, 3; each of 4 .* 0.1 s.*world_size=1"):
        first.step(**GOOD)
    assert not list(first.path.rglob("step-*0.parquet"))
    lonely = el.Recorder(tmp_path / "nothing", method="grpo", rank=1, world_size=2, timeout=0.05)
    with pytest.raises(OutputError, match="rank 1 finds no run"):
        lonely.step(**GOOD)


def test_parts_with_other_columns_are_refused(tmp_path):
    first, second = ranks(tmp_path / "run", 2)
    second.step(prompts=["a", "a"], rewards=[1, 0])
    with pytest.raises(ParameterError, match=r"different columns \(logp, n_tokens, token_logp\)"):
        first.step(**GOOD)


def test_a_step_that_one_rank_loses_is_lost_and_the_next_is_not(tmp_path):
    first, second = ranks(tmp_path / "run", 2)
    for step in range(3):
        if step == 1:
            with pytest.warns(RunWarning, match="rank|step 1 is not recorded .*has 1 entries for 2"):
                second.step(**{**GOOD, "prompts": ["a"]})
            with pytest.warns(RunWarning, match=r"rank 1 could not record its part of step 1 \(prompts: has 1 entries"):
                assert first.step(**GOOD) is None
        else:
            second.step(**GOOD)
            first.step(**GOOD)
    close([first, second])
    run = el.open_run(first.path)
    assert [file.step for file in run.step_files] == [0, 2]
    assert run.info["incomplete"]["steps"] == [1]


def test_a_missing_rank_is_waited_for_once(tmp_path):
    first, second = ranks(tmp_path / "run", 2, timeout=1.5)
    second.step(**GOOD)
    first.step(**GOOD)
    with pytest.warns(RunWarning, match="no part of rank 1"):
        first.step(**GOOD)
    began = time.monotonic()
    first.step(**GOOD)
    assert time.monotonic() - began < 1.4
    close([first])


RANK_0 = """
import sys, entropy_lab as el
rec = el.Recorder(sys.argv[1], method="grpo", rank=0, world_size=2)
print("open", flush=True)
rec.step(prompts=["a", "a"], rewards=[0.0, 1.0], logps=[[-1.0], [-2.0, -3.0]])
"""


def test_killed_between_parts_leaves_no_half_step(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", RANK_0, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    stale = el.Recorder(folder, method="grpo", rank=1, world_size=2)
    stale.step(prompts=["stale"] * 2, rewards=[0.0, 1.0], logps=[[-1.0]] * 2)  # of the killed job: nobody takes it
    assert [path.name for path in folder.glob(".parts-*/*")] == ["step-000000-rank-00001.parquet"]
    assert not (folder / "rollouts").exists()
    assert el.open_run(folder).step_files == ()
    recorders = ranks(folder, 2, resume=True)
    for rec in reversed(recorders):
        rec.step(**GOOD)
    close(recorders)
    assert el.open_run(folder).scan().collect()["prompt"].to_list() == ["a"] * 4
    assert not list(folder.glob(".*"))
    assert json.loads((folder / "run.json").read_text())["method"]["name"] == "grpo"
    assert [path.name for path in (folder / "rollouts").iterdir()] == ["step-000000.parquet"]
