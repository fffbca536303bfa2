r"""Fetch six sets of mathematics problems from the hub into problem files for the task `math`.

    pip install datasets
    python math_sets.py data/math        # writes data/math/math_train.jsonl, …
    entropy-lab data data/math/*.jsonl   # counts, duplicates, gold answers that cannot be verified

| file | hub dataset (split) | problems | rights |
|---|---|---|---|
| math_train | EleutherAI/hendrycks_math, its 7 subjects (train) | 7,500 | MIT |
| math500 | HuggingFaceH4/MATH-500 (test) | 500 | MIT, as MATH |
| aime24 | HuggingFaceH4/aime_2024 (train) | 30 | the problems belong to the MAA |
| aime25 | math-ai/aime25 (test) | 30 | the problems belong to the MAA |
| amc23 | math-ai/amc23 (test) | 40 | the problems belong to the MAA |
| olympiadbench | Hothan/OlympiadBench, OE_TO_maths_en_COMP (train) | 674 or 675 | MIT |

Read the dataset cards before you pass anything on. Only the columns below are kept. `math_train` has worked solutions,
whose last \boxed{} is the gold answer; OlympiadBench lists several answers, which are joined by commas.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra"),
    "precalculus",
)

# File -> dataset, its configurations, split, and its column for each of ours.
SETS: dict[str, tuple[str, tuple[str | None, ...], str, dict[str, str]]] = {
    "math_train": ("EleutherAI/hendrycks_math", SUBJECTS, "train", {"problem": "problem", "solution": "solution"}),
    "math500": (
        "HuggingFaceH4/MATH-500",
        (None,),
        "test",
        {"id": "unique_id", "problem": "problem", "answer": "answer"},
    ),
    "aime24": ("HuggingFaceH4/aime_2024", (None,), "train", {"id": "id", "problem": "problem", "answer": "answer"}),
    "aime25": ("math-ai/aime25", (None,), "test", {"id": "id", "problem": "problem", "answer": "answer"}),
    "amc23": ("math-ai/amc23", (None,), "test", {"id": "id", "problem": "question", "answer": "answer"}),
    "olympiadbench": (
        "Hothan/OlympiadBench",
        ("OE_TO_maths_en_COMP",),
        "train",
        {"id": "id", "problem": "question", "answer": "final_answer"},
    ),
}


def problem_rows(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Keep the columns that are named, as texts."""
    for row in rows:
        values = {ours: row[theirs] for ours, theirs in columns.items()}
        yield {
            name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in values.items()
        }


def main(folder: Path) -> None:
    """Write a file of each set."""
    from datasets import load_dataset

    folder.mkdir(parents=True, exist_ok=True)
    for name, (dataset, parts, split, columns) in SETS.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for part in parts:
                for row in problem_rows(load_dataset(dataset, part, split=split), columns):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/math"))
