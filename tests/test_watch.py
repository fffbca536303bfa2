"""``entropy-lab watch``: what it prints while a run grows, when it ends, and with which exit code."""

import io
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.commands import watch
from entropy_lab.commands.watch_views import TerminalView
from entropy_lab.monitoring.monitor import Monitor

STEPS = 40


def row(step):
    """A line of metrics of a run that collapses from step 15 on."""
    entropy = (1 + 0.02 * (step % 3)) * np.exp(-max(step - 15, 0) / 8)
    return {"step": step, "time": 2.0 * step, "entropy": entropy, "reward": 0.4 + 0.01 * (step % 2)}


@pytest.fixture
def writer(tmp_path):
    return el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}}, config={"steps": STEPS})


class World:
    """Goes on while the watch sleeps; each sleep makes the next thing happen, and the last one happens again."""

    def __init__(self, happenings):
        self.happenings, self.now = list(happenings), 0.0

    def sleep(self, seconds):
        self.now += seconds
        if self.happenings:
            self.happenings.pop(0)()

    def monotonic(self):
        return self.now


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in a world, and give its exit code and what it said."""

    def called(*words, happenings=()):
        world = World(happenings)
        monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=world.sleep, monotonic=world.monotonic))
        try:
            main(["watch", *map(str, words)])
            code = 0
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def training(writer, steps=range(STEPS)):
    return [lambda step=step: writer.write_metrics(row(step)) for step in steps]


def interrupt():
    raise KeyboardInterrupt


def test_lines_follow_the_run_to_its_last_step(writer, call):
    code, out, err = call(writer.path, happenings=training(writer))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith(" no step yet")
    shown = [int(found[1]) for line in lines if (found := re.search(r"step (\d+) \(\d+ recorded", line))]
    assert shown == list(range(STEPS))
    last = next(line for line in lines if f"({STEPS} recorded" in line)
    assert "30 steps/min): entropy 0.050 (-94%), reward 0.410 (+0.010)" in last
    told = [line for line in lines if re.search(r"(warning|critical): entropy collapse since step", line)]
    assert len(told) == 1
    assert lines.index(told[0]) < lines.index(last)
    assert "ended: all planned steps are there" in out
    assert "lower the learning rate" in out


def test_fail_on_stops_at_once_what_stands(writer, call):
    code, out, err = call(writer.path, "--fail-on", "explosion,collapse", "--json", happenings=training(writer))
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert "failed on collapse" in err
    *looks, end = told
    assert (end["ended"], end["failed_on"]) == ("a finding that was to fail", ["collapse"])
    assert end["diagnosis"]["findings"][0]["name"] == "collapse"
    assert [finding["name"] for finding in looks[-1]["new"]] == ["collapse"]
    first = next(look["step"] for look in looks if "collapse" in look["unconfirmed"])
    assert looks[-1]["step"] >= first + 10
    assert [look["step"] for look in looks] == list(range(len(looks)))
    assert looks[3]["series"]["entropy"] == {"step": 3.0, "value": 1.0, "start": 1.02, "now": 1.02}


def test_it_ends_when_no_step_comes(writer, call):
    code, out, _ = call(writer.path, "--stop-after", "1", "--every", "7", happenings=training(writer, range(5)))
    assert code == 0
    assert "ended: no new step" in out


def test_interrupted_it_sums_up(writer, call):
    code, out, _ = call(writer.path, "--fail-on", "explosion", happenings=[*training(writer, range(36)), interrupt])
    assert code == 0
    assert "ended: interrupted" in out
    assert "entropy collapse" in out


def test_once_is_one_look(writer, call):
    for step in range(STEPS - 1):
        writer.write_metrics(row(step))
    code, out, _ = call(writer.path, "--once", "--json", "--fail-on", "collapse")
    look, end = map(json.loads, out.splitlines())
    assert code == 1
    assert look["findings"] == ["collapse"]
    assert json.dumps(end["diagnosis"]) == json.dumps(el.diagnose(writer.path).as_dict())


def test_a_torn_line_is_read_when_it_is_whole(writer, call):
    line = json.dumps(row(1)) + "\n"

    def append(text):
        with (writer.path / "metrics.jsonl").open("a") as stream:
            stream.write(text)

    halves = [lambda: append(line[:20]), lambda: append(line[20:])]
    code, out, err = call(writer.path, "--json", happenings=[*training(writer, [0]), *halves, interrupt])
    steps = [json.loads(text).get("step") for text in out.splitlines()]
    assert (code, err) == (0, "")
    assert steps[-2] == 1


def test_a_damaged_file_is_borne_for_three_looks(writer, call):
    def damage(text):
        (writer.path / "metrics.jsonl").write_text(text)

    broken = '{"step": 0}\n{"step": 1, "entr\n{"step": 2}\n'
    mended = [lambda: damage(broken), lambda: damage(json.dumps(row(0)) + "\n"), interrupt]
    code, _, err = call(writer.path, happenings=[*training(writer, [0]), *mended])
    assert code == 0
    assert err.count("line 2 is not a JSON object") == 1
    assert "looking again" in err
    code, _, err = call(writer.path, happenings=[lambda: damage(broken)])
    assert code == 2
    assert err.splitlines()[-1].startswith("entropy-lab: ")
    assert "Traceback" not in err


def test_it_waits_for_a_run_only_where_it_is_told_to(tmp_path, call):
    path = tmp_path / "later"
    made = []

    def begin():
        made.append(el.RunWriter(path, method={"name": "grpo", "params": {}}, config={"steps": 3}))

    steps = [lambda step=step: made[0].write_metrics(row(step)) for step in range(3)]
    code, out, err = call(path, "--wait", happenings=[lambda: None, path.mkdir, begin, *steps])
    assert code == 0
    assert err.splitlines() == [
        f"waiting: {path} does not exist",
        f"waiting: {path} holds nothing that a reader knows (0 files)",
    ]
    assert "step 2 (3 recorded" in out
    code, _, err = call(tmp_path / "nowhere")
    assert code == 2
    assert "does not exist" in err
    assert call(tmp_path / "nowhere", "--wait", "--stop-after", "1")[0] == 2


def test_another_frameworks_log_that_grows(tmp_path, call):
    log = tmp_path / "trainer.jsonl"

    def append(step):
        entry = {"step": step, "entropy": row(step)["entropy"], "reward": 0.5, "frac_reward_zero_std": 0.4}
        with log.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")

    append(1)
    steps = [lambda step=step: append(step) for step in range(2, 60)]
    code, out, err = call(tmp_path, "--stop-after", "0.2", happenings=steps)
    assert code == 0
    assert "taken for TRL" in err
    assert "(collapse)" in out
    assert "ended: no new step" in out
    assert [file.name for file in tmp_path.iterdir()] == ["trainer.jsonl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "0"], "--every: is 0"),
        (["--stop-after", "-1"], "--stop-after: is -1"),
        (["--confirm", "-1"], "confirm: is -1"),
        (["--fail-on", "colapse"], "did you mean collapse?"),
    ],
)
def test_bad_words_are_refused_in_one_line(writer, call, words, said):
    code, out, err = call(writer.path, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_the_terminal_shows_a_table_and_each_finding_once(writer):
    screen = io.StringIO()
    monitor = Monitor(writer.path, confirm=2)
    with TerminalView(Console(file=screen, force_terminal=True, width=120, color_system=None)) as view:
        for step in range(STEPS):
            writer.write_metrics(row(step))
            view.show(monitor, monitor.update())
        view.end(monitor, "interrupted", ())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert text.count("warning: entropy collapse since step") == 1
    assert "not confirmed yet: entropy collapse" in text
    assert "not checked: length drift without a gain" in text
    assert re.search(r"entropy +0\.050 +nats/token +-94% +█[▁▂▃▄▅▆▇█]+▁", text)
    assert "last written 0 s ago" in text
    assert text.count("ended: interrupted") == 1


def test_a_terminal_without_blocks_draws_none(writer):
    writer.write_metrics(row(0))
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    monitor = Monitor(writer.path)
    with TerminalView(Console(file=screen, force_terminal=True, width=120, color_system=None)) as view:
        view.show(monitor, monitor.update())
    screen.flush()
    assert b"entropy" in raw.getvalue()


def test_the_example_of_the_watching_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "watching.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:

        def train_step():
            entropy = np.exp(-time.perf_counter() % 1)
            return SimpleNamespace(
                prompts=["a"] * 4, rewards=[1.0, 0.0] * 2, logps=[[-0.1]] * 4, entropies=[[entropy]] * 4, metrics={}
            )

        exec(compile(block, "docs/watching.md", "exec"), {"train_step": train_step, "n_steps": 4})
