"""Every gold answer of six sets, and more hostile answers; `make test-math` runs it (3 minutes on two cores)."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entropy_lab.tasks.boxed import mended
from entropy_lab.tasks.problem_files import read_problems
from entropy_lab.tasks.verifier import Verifier

ROOT = Path(__file__).parent.parent
SETS = ROOT.parent / "shared" / "data" / "math"
SIZES = {"math_train": 7498, "math500": 500, "aime24": 30, "aime25": 30, "amc23": 40, "olympiadbench675": 675}
needs_sets = pytest.mark.skipif(not SETS.is_dir(), reason=f"no {SETS}")


@pytest.fixture(scope="module")
def verifier():
    with Verifier(workers=2) as one:
        yield one


def golds_of(name):
    rows = [json.loads(line) for line in (SETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["answer"] for row in rows if row["answer"].strip()]


def boxed(answer):
    return f"\\boxed{{{answer}}}"


@needs_sets
@pytest.mark.parametrize("name", SIZES)
def test_every_gold_answer_is_accepted_as_its_own_answer(verifier, name):
    golds = golds_of(name)
    assert len(golds) == SIZES[name]
    began = time.monotonic()
    verdicts = verifier.judge(golds, list(map(boxed, golds)))
    as_text = sum(bool(verdict.why) for verdict in verdicts)
    sys.stderr.write(f"\n{name}: {len(golds)} in {time.monotonic() - began:.1f} s, {as_text} compared as text ")
    assert [gold for gold, verdict in zip(golds, verdicts, strict=True) if verdict.correct is not True] == []


@needs_sets
@pytest.mark.parametrize("name", SIZES)
def test_no_other_problems_gold_answer_is_accepted(verifier, name):
    golds = list(dict.fromkeys(map(mended, golds_of(name))))
    others = golds[1:] + golds[:1]
    verdicts = verifier.judge(golds, list(map(boxed, others)))
    accepted = [(*pair, v.why) for *pair, v in zip(golds, others, verdicts, strict=True) if v.correct is not False]
    assert accepted == []


@needs_sets
def test_every_file_is_read_and_its_gaps_are_known():
    files = {name: read_problems(SETS / f"{name}.jsonl") for name in SIZES}
    assert {name: file.n_rows for name, file in files.items()} == {**SIZES, "math_train": 7500}
    assert files["math_train"].no_gold == [5342, 5344]
    assert [len(file.repeated) for file in files.values()] == [3, 0, 0, 0, 0, 0]


HOSTILE = [
    *("9^{9^9}", "9^{9^{9^9}}", "9^{999999999}", r"\binom{10^9}{5 \cdot 10^8}", "10^9!", "1000000000!", "10^{10^{10}}"),
    *("{" * depth + "5" + "}" * depth for depth in (12, 15)),
    *("(" * depth + "5" + ")" * depth for depth in (12, 15)),
    *(r"\sqrt{1+" * 15 + "5" + "}" * 15, r"\frac{1}{" * 15 + "5" + "}" * 15, "x" + "^{x" * 14 + "}" * 14),
    *(r"\int_0^1 e^{x^2} \sin(x^{100}) dx", r"\sum_{k=1}^{10^9} \frac{1}{k^2}", r"\prod_{k=1}^{10^9} k"),
    *(r"\lfloor 9^{9^9} \rfloor", r"9^{9^9} \bmod 7", r"\log(9^{9^9})", r"\sqrt{9^{9^9}}", "(1, 9^{9^9})"),
    *("(x+y+z)^{500}", "(a+b+c+d+e+f)^{60}", "x^{50}+x^{49}+3x^7=1", r"\sin(x)+x^5=e^x", r"x^7-x+1<\sin x"),
    *(",".join(map(str, range(250))), r"\begin{pmatrix}" + "&".join("1" * 200) + r"\end{pmatrix}", r"\frac{1}{0}"),
    *('__import__("os").abort()', r"\text{os.abort()}", "\x00\ud800", "%" * 999, "\\" * 999, "-" * 999, "$" * 999),
]


@pytest.mark.parametrize("gold", ["5", "5.0", "x^2", "(1,2)", "x=5"])
def test_hostile_answers_never_hang_crash_or_pass(gold):
    with Verifier(workers=1, seconds=1) as verifier:
        verifier.judge([gold], [boxed(gold)])
        for answer in HOSTILE:
            began = time.monotonic()
            verdict = verifier.judge([gold], [boxed(answer)])[0]
            assert time.monotonic() - began < 5, answer
            assert verdict.why != "process ended", answer
            assert verdict.correct is not True or answer.strip("({})") == "5", answer
        assert verifier.judge([gold], [boxed(gold)])[0].correct is True
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 512 << 10


def test_what_python_cannot_interrupt_is_ended_by_the_system():
    """A C function that looks at no signal, as those of gmpy2, which sympy uses where it finds it."""
    code = """
import hashlib, signal
from entropy_lab.tasks import verifier_worker as worker
signal.signal(signal.SIGALRM, worker._ring)
worker._bounded(lambda gold, answer: (hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**9) == b"", ""), "", "", 1)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGXCPU
    assert time.monotonic() - began < 30  # 3 s of processor time
