"""The final answer of a response: the last balanced box, and what may be given to a verifier."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lab.tasks.boxed import DEEPEST, LONGEST, TAIL, last_boxed, mended, other_base, too_much


def balanced(depth):
    plain = st.text(st.characters(exclude_characters="\\{}"), max_size=8)
    if depth == 0:
        return plain
    return st.lists(plain | balanced(depth - 1).map("{{{}}}".format), max_size=3).map("".join)


unboxed = st.text(st.characters(exclude_characters="\\{}"), max_size=30)


@given(unboxed, balanced(3), unboxed, balanced(3), unboxed)
def test_the_last_box_is_found_whole(before, first, between, last, after):
    assert last_boxed(f"{before}\\boxed{{{first}}}{between}\\boxed{{{last}}}{after}") == last


@given(st.text("\\{}bxoed 1", max_size=60))
def test_any_text_has_a_box_that_stands_in_it_or_none(text):
    found = last_boxed(text)
    assert found is None or f"{{{found}}}" in text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("no box, the answer is 5", None),
        (r"\boxed{5", None),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{\boxed{1}, \boxed{2}}", r"\boxed{1}, \boxed{2}"),
        (r"\boxed{x = \boxed{5}", "5"),  # the outer one is never closed
        (r"a stray } and { and \boxed{5}", "5"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed {7} or \fbox{8}", "8"),
        (r"\boxed{}", ""),
        (r"\boxedness{5}", None),
        ("\\boxed{\n5\n}", "\n5\n"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{5}" + "x" * TAIL, None),
        ("x" * TAIL + r"\boxed{5}", "5"),
    ],
)
def test_boxes(text, answer):
    assert last_boxed(text) == answer


@pytest.mark.parametrize("text", ["\\boxed{1}" * 125_000, "\\boxed{" * 150_000, "{" * 1_000_000, "}" * 1_000_000])
def test_a_megabyte_takes_no_time(text):
    began = time.process_time()
    last_boxed(text)
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (r"1\,000", "1000"),
        (r"1\,000\,000.", "1000000"),
        (r"\frac{1}{29,\!322,\!216}", r"\frac{1}{29322216}"),
        ("10{,}000", "10000"),
        (r"1\,00", r"1\,00"),
        (r"1\,0000", r"1\,0000"),
        ("(1,200)", "(1,200)"),
        ("27.", "27"),
        ("1, 2, ...", "1, 2, ..."),
        (".", ""),
        (r"\varnothing", r"\emptyset"),
    ],
)
def test_answers_are_mended_once_and_for_all(answer, written):
    assert mended(answer) == written
    assert mended(written) == written


@given(st.text("0123456789\\,;:!{}. ", max_size=20))
def test_mending_keeps_every_digit_in_its_place(answer):
    assert [c for c in mended(answer) if c.isdigit()] == [c for c in answer if c.isdigit()]


def test_limits_are_inclusive():
    assert (too_much("1" * LONGEST), too_much("1" * (LONGEST + 1))) == ("", "too long")
    assert (too_much("{" * DEEPEST), too_much("{" * (DEEPEST + 1))) == ("", "too deep")
    assert too_much("()" * 400) == ""


def test_bases_that_differ_are_told_apart():
    assert other_base("52_8", "52_9")
    assert other_base("1A_{16}", "1A_8")
    assert not other_base("52_8", "52_{8}")
    assert not other_base("52", "52_8")
