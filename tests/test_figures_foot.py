"""What a reader must be told stands below the figure."""

from dataclasses import replace

import pytest

from entropy_lab.plots.collect import collect
from entropy_lab.plots.panels import Panel
from entropy_lab.plots.series import RunTables
from entropy_lab.plots.text import footnote
from tests.made_up_study import METHODS, drawn, made_up_run, texts


@pytest.mark.parametrize(
    ("case", "name", "words"),
    [
        ("study", "figure3", "Band = 95 % interval of the mean over 3 seeds (Student's t)"),
        ("two seeds", "figure2", "Band = range (min–max) over 2 seeds"),
        ("full study", "figure2", "bars at the right, in the legend's order = 95 % interval of the mean over 4 seeds"),
        ("study", "figure2", "b: mean over 5 benchmarks; not smoothed"),
        ("study", "figure2", "d: running mean over 11 steps, pale = each step"),
        ("single", "figure2", "a: band = 95 % bootstrap interval over prompts"),
        ("single", "figure5", "b1–b5: greedy; not smoothed; band = 95 % bootstrap interval over problems"),
        (
            "single",
            "figure1",
            "c: first 40 steps, mixed groups (0 < p < 1); bar = 95 % bootstrap interval over prompts",
        ),
        ("single", "figure1", "a, b: groups of 8 rollouts"),
        ("some analyses", "figure2", "Not drawn: b (no validation table), c1, c2 (no solve_rates table)"),
        ("study", "table1", "Last validation, step 100; ± = 95 % interval of the mean over 3 seeds (Student's t)"),
        ("two seeds", "table1", "in brackets = range (min–max) over 2 seeds"),
        ("one step", "figure5", "Bar = range (min–max) over 2 seeds"),
    ],
)
def test_the_foot_says(case, name, words):
    _, figure = drawn(case, name)
    assert words in " ".join(" ".join(text.get_text().split()) for text in texts(figure))


def test_validation_panels_say_how_answers_were_decoded():
    _, figure = drawn("study", "figure4")
    assert "Validation, greedy" in [text.get_text() for text in texts(figure)]


REWARD = Panel("a", "Reward", "training", ("step",), "reward", "reward", "1")


def test_what_holds_for_one_model_only_is_said_of_that_model():
    runs = [
        replace(made_up_run(METHODS[6], seed), model=model)
        for model, seeds in (("small", 3), ("large", 4))
        for seed in range(seeds)
    ]
    (text,) = [" ".join(footnote(collect("mine", [REWARD], runs)))]
    assert "small a: band = 95 % interval of the mean over 3 seeds" in text
    assert "large a: band = 95 % interval of the mean over 4 seeds" in text


def test_of_many_runs_that_lack_something_three_are_named():
    lacking = [RunTables("GRPO", "grpo", {}, seed, 8, {}) for seed in range(1, 10)]
    foot = " ".join(footnote(collect("mine", [REWARD], [made_up_run(METHODS[6], 0), *lacking])))
    assert "a (no training table: GRPO, seed 1; GRPO, seed 2; GRPO, seed 3; and 6 more)" in foot
