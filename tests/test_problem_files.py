"""Problem files: which columns, which rows, which ids; and one line of error for a file that cannot be used."""

import json
import re

import polars as pl
import pytest

from entropy_lab.errors import ProblemFileError
from entropy_lab.tasks.boxed import LONGEST
from entropy_lab.tasks.problem_files import Columns, read_problems, shared, wording


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "columns", "answer"),
    [
        ({"problem": "a?", "answer": "1"}, ("problem", "answer", None), "1"),
        ({"question": "a?", "gold": 204}, ("question", "gold", None), "204"),
        ({"prompt": "a?", "solution": r"so \boxed{\frac{1}{2}}."}, ("prompt", "solution", None), r"\frac{1}{2}"),
        ({"question": "a?", "answer": "2 + 2 = 4\n#### 4"}, ("question", "answer", None), "4"),
        (
            {"prompt": "b?", "problem": "a?", "solution": "x", "answer": " 1 ", "unique_id": 3},
            ("problem", "answer", "unique_id"),
            "1",
        ),
    ],
)
def test_columns_and_gold_answers(tmp_path, row, columns, answer):
    for file in (lines(tmp_path / "f.jsonl", row), tmp_path / "f.parquet"):
        if file.suffix == ".parquet":
            pl.DataFrame([row]).write_parquet(file)
        read = read_problems(file)
        assert read.columns == Columns(*columns)
        [problem] = read.problems
        assert (problem.prompt, problem.answer) == ("a?", answer)
        assert problem.id == (str(row["unique_id"]) if "unique_id" in row else problem.id)
        assert read.n_rows == 1


def test_ids_depend_on_the_wording_alone(tmp_path):
    one = read_problems(lines(tmp_path / "a.jsonl", {"problem": "x?", "answer": "1"}, {"problem": "y?", "answer": "2"}))
    two = read_problems(lines(tmp_path / "b.jsonl", {"question": " Y ?", "gold": "3"}, {"question": "z?", "gold": "4"}))
    assert one.problems[1].id == two.problems[0].id
    assert len({problem.id for problem in one.problems + two.problems}) == 3
    # Ids stand in runs and figures: this one may never change.
    assert one.problems[0].id == "074ab17800f4dc20"


def test_rows_that_cannot_be_used_are_left_out_and_named(tmp_path):
    rows = [
        {"problem": "a?", "answer": "1"},
        {"problem": "b?", "answer": ""},
        {"problem": "A ?", "answer": "1"},
        {"problem": "c?", "answer": None},
        {"problem": "a?", "answer": "2"},
        {"problem": " ", "answer": "2"},
        {"problem": "d?", "answer": "1" * (LONGEST + 1)},
        {"problem": "e?", "answer": r"\boxed{}"},
        {"problem": "f?", "answer": "6"},
    ]
    read = read_problems(lines(tmp_path / "f.jsonl", *rows))
    assert [problem.prompt for problem in read.problems] == ["a?", "f?"]
    assert (read.no_gold, read.repeated, read.other_gold) == ([2, 4, 6, 7, 8], {3: 1, 5: 1}, [5])
    assert read.n_rows == len(rows)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "f.jsonl: is empty; one problem or more"),
        ("\n\n", "f.jsonl: is empty"),
        ("[1]", "f.jsonl, line 1: is a JSON list; one JSON object in each line"),
        ('{"problem": "a", "answer": "1"}\n{"problem": "b"', "f.jsonl, line 2: is no JSON"),
        ('{"problem": "a", "answer": "1"}\n\n{"problem": "b", "answer": "1"}', "f.jsonl, line 2: is no JSON"),
        ("[" * 100_000, "f.jsonl, line 1: is no JSON"),
        ('{"text": "a", "answer": "1"}', "f.jsonl: has no column problem, question or prompt; it has text, answer"),
        ('{"problem": "a"}', "f.jsonl: has no column answer, gold or solution; it has problem"),
        ('{"problem": "a", "answer": [1]}', "f.jsonl, line 1: has answer '[1]' of type list; a text or a number"),
        ('{"problem": "a", "answer": true}', "f.jsonl, line 1: has answer 'True' of type bool"),
        ('{"prompt": [{"role": "user"}], "gold": "1"}', "f.jsonl, line 1: has prompt"),
        ('{"problem": "a", "answer": "1"}\n{"problem": "b"}', "f.jsonl, line 2: has no answer"),
        ('{"problem": "a", "answer": ""}', "f.jsonl: has no gold answer in 1 rows; in column answer"),
        (
            '{"id": 1, "problem": "a", "answer": "1"}\n{"id": 1, "problem": "b", "answer": "1"}',
            "f.jsonl, line 2: has the id '1' of line 1, which is another problem; an id of its own, or none",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, error):
    file = tmp_path / "f.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ProblemFileError, match=re.escape(error)) as caught:
        read_problems(file)
    assert "\n" not in str(caught.value)


def test_other_kinds_of_files_are_refused(tmp_path):
    (tmp_path / "f.csv").write_text("problem,answer\n")
    (tmp_path / "f.json").write_text("[]")
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no PAR1")
    (tmp_path / "latin.jsonl").write_bytes(b'{"problem": "\xe9"}')
    (tmp_path / "folder.jsonl").mkdir()
    for name, error in {
        "f.csv": "ends in .jsonl or .parquet",
        "f.json": "Hint: one JSON object in each line",
        "f.parquet": "a Parquet file",
        "latin.jsonl": "a text file in UTF-8",
        "folder.jsonl": "does not exist",
        "nothing.jsonl": "does not exist",
    }.items():
        with pytest.raises(ProblemFileError, match=error):
            read_problems(tmp_path / name)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"problem": "a", "answer": "1"}\r\n{"problem": "b", "answer": "2"}\r\n')
    assert [problem.answer for problem in read_problems(file).problems] == ["1", "2"]


def test_a_parquet_file_without_our_columns_is_refused(tmp_path):
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(ProblemFileError, match="it has text"):
        read_problems(tmp_path / "f.parquet")


def test_wording_tells_problems_apart_and_finds_them_again(tmp_path):
    assert wording(r"Evaluate $\log_82$.") == wording(r"Evaluate $\log_8 2$.")
    assert wording(r"\left(x^{2}\right)") == wording("(x^2)")
    assert wording("all roots of $z^4 + z^2$") != wording("all roots of $z^4 - z^2$")
    assert wording(r"\leftarrow") != wording("arrow")
    first = read_problems(lines(tmp_path / "a.jsonl", {"problem": "What is $1 + 1$?", "answer": "2"})).problems
    second = read_problems(lines(tmp_path / "b.jsonl", {"problem": "what is 1+1?", "answer": "2"})).problems
    assert shared(first, second) == [(first[0], second[0])]
    assert shared(first, []) == []
