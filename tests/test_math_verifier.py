"""The verifier of mathematics: its verdicts, hostile answers, and that no process outlives its use."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from entropy_lab.errors import MissingExtraError, ParameterError
from entropy_lab.tasks import verifier as module

pytest.importorskip("math_verify", reason="the extra math is not installed")

from entropy_lab.tasks.verifier import AS_TEXT, NEEDS, Verdict, Verifier

ROOT = Path(__file__).parent.parent
SETS = ROOT.parent / "shared" / "data" / "math"
LABELLED = ROOT.parent / "shared" / "data" / "real_outputs" / "qwen_math_cot_100x8.jsonl"
needs_sets = pytest.mark.skipif(not SETS.is_dir(), reason=f"no {SETS}")


@pytest.fixture(scope="module")
def verifier():
    with Verifier(workers=1) as one:
        yield one


def boxed(answer):
    return f"The answer is $\\boxed{{{answer}}}$."


def pids(verifier):
    return [worker._process.pid for worker in verifier._workers]


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # ended, and its parent has not looked yet


def gone_within(seconds, pids):
    until = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


RIGHT = [
    ("1/2", "0.5"),
    (r"\frac{\sqrt{3}}{2}", r"\dfrac{3}{2\sqrt{3}}"),
    ("025", "25"),
    ("1,3", "3,1"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(B)}", "B"),
    ("$x^2 - 1$", "(x-1)(x+1)"),
    ("x=5", "5"),
    (r"50\%", "0.5"),  # the antlr that is pinned reads it
    # What is mended, see boxed.py.
    ("1000", r"1\,000"),
    ("27", "27."),
    (r"\emptyset", r"\varnothing"),
    (r"(3,\infty)", "x>3"),
    ("52_8", "52_{8}"),
    # Accepted by math-verify as it is; docs/tasks.md says so.
    (r"10\text{ cm}", r"10\text{ m}"),
    ("5", r"5\%"),
    ("42", "41=42"),
    ("0.0000001", "0.0000002"),
]
WRONG = [
    ("1", "2"),
    ("1,3", "1.3"),
    ("(1,3)", "(3,1)"),
    (r"\text{Evelyn}", "Bob"),
    ("52_8", "52_9"),
    ("52_8", "53_8"),
    (r"(3,\infty)", "x<3"),
    ("5", r"\text{no idea}"),
    ("5", ""),
    ("5", "\x00\ud800"),
]


def test_right_and_wrong_answers(verifier):
    golds, answers = zip(*RIGHT, *WRONG, strict=True)
    verdicts = verifier.judge(golds, list(map(boxed, answers)))
    found = [(pair, verdict.correct) for pair, verdict in zip(RIGHT + WRONG, verdicts, strict=True)]
    assert found == [*((pair, True) for pair in RIGHT), *((pair, False) for pair in WRONG)]


def test_why_there_is_no_verdict_is_said_and_counted():
    with Verifier(workers=1) as verifier:
        verdicts = verifier.judge(
            ["5", "5", "5", "1" * 2000, "5"], ["5", boxed("1" * 2000), boxed("{" * 99 + "5" + "}" * 99), boxed(5), ""]
        )
        assert verdicts == [
            Verdict(False, "no boxed answer"),
            Verdict(None, "too long"),
            Verdict(None, "too deep"),
            Verdict(None, "gold too long"),
            Verdict(False, "no boxed answer"),
        ]
        assert verifier.unverified == {"too long": 1, "too deep": 1, "gold too long": 1}
        assert pids(verifier) == []  # none of them needed a process


def test_a_gold_answer_that_cannot_be_parsed_is_compared_as_text(verifier):
    gold = "$t(0,4]$"
    assert verifier.judge([gold, gold], [boxed(gold), boxed("5")]) == [Verdict(True, AS_TEXT), Verdict(False, AS_TEXT)]


def test_order_and_repeats_do_not_matter(verifier):
    golds, answers = ["1", "2", "1", "3", "2"] * 20, ["1", "1", "2", "3", "2"] * 20
    verdicts = [verdict.correct for verdict in verifier.judge(golds, list(map(boxed, answers)))]
    assert verdicts == [True, False, False, True, True] * 20
    assert verifier.judge([], []) == []


def test_threads_take_turns(verifier):
    found = {}

    def ask(k):
        found[k] = [v.correct for v in verifier.judge([str(i) for i in range(8)], [boxed(k)] * 8)]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: [i == k for i in range(8)] for k in range(4)}


def test_bad_use_is_refused(verifier, monkeypatch):
    with pytest.raises(ParameterError, match="2 gold answers"):
        verifier.judge(["1", "2"], [boxed(1)])
    with pytest.raises(ParameterError, match="workers: is 0"):
        Verifier(workers=0)
    closed = Verifier(workers=1)
    closed.close()
    with pytest.raises(ParameterError, match="was closed"):
        closed.judge(["1"], [boxed(1)])
    monkeypatch.setattr(module, "NEEDS", {"math-verify": "0.1"})
    with pytest.raises(MissingExtraError, match=r"math-verify is 0\.9\.0; 0\.1.*entropy-lab\[math\]"):
        Verifier()
    monkeypatch.setattr(module, "NEEDS", {"no-such-package": "1"})
    with pytest.raises(MissingExtraError, match="no-such-package is not installed"):
        Verifier()


def test_the_versions_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {f"{name}=={number}" for name, number in NEEDS.items()} == set(project["optional-dependencies"]["math"])


HOSTILE = {
    "a tower of powers": "9^{9^9}",
    "a huge power": "9^{999999999}",
    "a binomial": r"\binom{10^9}{5 \cdot 10^8}",
    "a factorial": "10^9!",
    "braces": "{" * 100 + "5" + "}" * 100,
    "parentheses": "(" * 100 + "5" + ")" * 100,
    "digits that the limit lets through": "7" * 999,
    "many digits": "7" * 5_000,
}


def test_hostile_answers_cost_bounded_time_and_are_not_called_wrong():
    with Verifier(workers=2, seconds=1) as verifier:
        verifier.judge(["5", "6"], [boxed(5), boxed(6)])
        golds = [f"{5 + k}" for k in range(len(HOSTILE))]  # of one gold they would go to one child
        began = time.monotonic()
        verdicts = dict(zip(HOSTILE, verifier.judge(golds, list(map(boxed, HOSTILE.values()))), strict=True))
        spent = time.monotonic() - began
        assert verdicts.pop("digits that the limit lets through").correct is False
        assert {verdict.correct for verdict in verdicts.values()} == {None}
        assert {verdict.why for verdict in verdicts.values()} == {"timed out", "too deep", "too long"}
        assert verifier.unverified.total() == len(verdicts)
        # Four took a child its second; at worst each takes 1.5 more and a new process, and one child has all of them.
        assert spent < 4 * 3.5
        assert verifier.judge(["5"], [boxed(5)])[0].correct is True


def test_hostile_answers_cost_bounded_memory():
    # In a process of its own: a child's peak begins with that of the process that forked it.
    code = """
import json, resource, sys
from entropy_lab.tasks.verifier import Verifier
answers = json.loads(sys.argv[1])
with Verifier(workers=1, seconds=1) as verifier:
    verifier.judge([str(5 + k) for k in range(len(answers))], answers)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""
    words = [sys.executable, "-c", code, json.dumps(list(map(boxed, HOSTILE.values())))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 10 << 10 < int(done.stdout) < 512 << 10  # kB on Linux, of the largest child


def test_megabytes_are_settled_without_a_child(verifier):
    began = time.monotonic()
    long = ["\\boxed{1}" * 111_111, "\\boxed{" + "7" * 1_000_000 + "}", "\\boxed{" * 140_000]
    verdicts = verifier.judge(["1"] * 3, long)
    assert [verdict.correct for verdict in verdicts] == [True, False, False]
    assert time.monotonic() - began < 2


def test_a_child_that_hangs_is_killed_and_replaced():
    with Verifier(workers=1, seconds=1) as verifier:
        verifier.judge(["1"], [boxed(1)])
        stuck = pids(verifier)
        os.kill(stuck[0], signal.SIGSTOP)  # no alarm reaches it
        began = time.monotonic()
        verdicts = verifier.judge(["1", "2", "2"], [boxed(1), boxed(2), boxed(3)])
        assert [verdict.correct for verdict in verdicts] == [None, True, False]
        assert verdicts[0].why == "timed out"
        assert time.monotonic() - began < 15
        assert not is_alive(stuck[0])
        assert pids(verifier) != stuck


def test_a_child_that_died_is_replaced():
    with Verifier(workers=1) as verifier:
        verifier.judge(["1"], [boxed(1)])
        os.kill(pids(verifier)[0], signal.SIGKILL)
        time.sleep(0.1)
        assert verifier.judge(["1"], [boxed(1)])[0].correct is True


def test_no_memory_is_unverified_and_the_next_answer_is_judged():
    with Verifier(workers=1, seconds=30, megabytes=128) as verifier:
        # sympy catches the MemoryError and says that the answers differ; nobody has compared them.
        assert verifier.judge(["5"], [boxed("(a+b+c+d+e+f)^{60}")]) == [Verdict(None, "out of memory")]
        assert verifier.judge(["5"], [boxed(5)])[0].correct is True


def test_a_parent_of_gigabytes_is_not_the_childs_memory():
    """A child's getrusage begins with the peak of the process that forked it, and trainers are large."""
    held = b"x" * (600 << 20)  # above the child's own limit
    with Verifier(workers=1) as verifier:
        assert verifier.judge(["1"], [boxed("2")]) == [Verdict(False)]
    assert len(held) == 600 << 20


def test_a_child_that_cannot_load_math_verify_is_one_line_of_error(tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        Verifier(workers=2) as verifier,
        pytest.raises(MissingExtraError, match=r"cannot load math-verify \(exit code 1\)"),
    ):
        verifier.judge(["1", "2"], [boxed(1), boxed(2)])


def test_children_end_with_their_verifier():
    verifier = Verifier(workers=2)
    verifier.judge(["1", "2"], [boxed(1), boxed(2)])
    ours = pids(verifier)
    assert len(ours) == 2
    assert all(map(is_alive, ours))
    verifier.close()
    assert gone_within(2, ours)
    forgotten = Verifier(workers=1)
    forgotten.judge(["1"], [boxed(1)])
    ours = pids(forgotten)
    del forgotten
    assert gone_within(2, ours)


PARENT = """
import sys, threading, time
from entropy_lab.tasks.verifier import Verifier

if __name__ != "__main__":
    raise RuntimeError("a child imported its parent's main program")
verifier = Verifier(workers=2, seconds=1)
verifier.judge(["1", "2"], [r"\\boxed{1}", r"\\boxed{2}"])
print(*(worker._process.pid for worker in verifier._workers), flush=True)
verifier.judge(["1"], [r"\\boxed{9^{9^9}}"])
time.sleep(60)
"""


def test_children_end_when_the_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        ours = list(map(int, parent.stdout.readline().split()))
        assert len(ours) == 2
        assert all(map(is_alive, ours))
        time.sleep(0.3)  # one of them is now busy with a tower of powers, the other waits
    finally:
        parent.kill()
        parent.communicate()
    assert gone_within(10, ours)


def golds_of(file, every=1):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["answer"] for row in rows if row["answer"].strip()][::every]


@needs_sets
def test_a_sample_of_gold_answers_is_accepted_as_its_own_answer(verifier):
    """`make test-math` takes every gold answer."""
    for file in sorted(SETS.glob("*.jsonl")):
        golds = golds_of(file, {"math_train": 60, "math500": 5, "olympiadbench675": 7}.get(file.stem, 1))
        verdicts = verifier.judge(golds, list(map(boxed, golds)))
        assert [gold for gold, verdict in zip(golds, verdicts, strict=True) if not verdict.correct] == [], file


@pytest.mark.skipif(not LABELLED.is_file(), reason=f"no {LABELLED}")
def test_verdicts_agree_with_another_graders_labels(verifier):
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    verdicts = verifier.judge([row["gold"] for row in rows], [row["response"] for row in rows])
    differ = [
        (row["gold"], row["pred"]) for row, v in zip(rows, verdicts, strict=True) if v.correct is not row["correct"]
    ]
    assert differ == [("10{,}000", "10000")]  # where the other grader is mistaken
