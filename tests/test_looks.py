"""Which method a run belongs to, and that every method has one look that colour-blind readers can tell apart."""

import itertools

import numpy as np
import pytest

from entropy_lab.advantages import get, names
from entropy_lab.plots.series import PAPER as PAPERS_METHODS
from entropy_lab.plots.series import family
from entropy_lab.plots.style import look, looks

PAPER = {
    "figure1": ["reinforce", "grpo", "asym_grpo", "ent_decrease", "ent_increase"],
    "figure2": ["reinforce", "reinforce+entropy_bonus", "pos_only", "neg_only"],
    "figure3": ["ent_decrease", "grpo", "ent_increase"],
    "figure4": ["grpo", "grpo+clip_higher", "asym_grpo", "asym_grpo+clip_higher"],
}


@pytest.mark.parametrize(
    ("label", "method", "params", "expected"),
    [
        ("x", "asym_grpo", {"beta_pos": 0.0, "beta_neg": 0.0}, "reinforce"),
        ("x", "asym_grpo", {"beta_pos": 0.5, "beta_neg": 0.5}, "grpo"),
        ("x", "asym_grpo", {"beta_pos": 0.65, "beta_neg": 0.65}, "asym_grpo_symmetric"),
        ("x", "asym_grpo", {"beta_pos": 0.0, "beta_neg": 0.75}, "neg_only"),
        ("x", "asym_grpo", {}, "asym_grpo"),
        ("x", "Pos-Only", {"beta_pos": 0.5}, "pos_only"),
        ("x", "Dr.GRPO", {}, "dr_grpo"),
        ("x", "grpo", {"clip_low": 0.2, "clip_high": 0.2}, "grpo"),
        ("x", "grpo", {"clip_high": 0.28}, "grpo+clip_higher"),
        ("GRPO + Clip-higher", "grpo", {}, "grpo+clip_higher"),
        ("x", "asym_grpo_clip_higher", {}, "asym_grpo+clip_higher"),
        ("x", "clip_higher", {}, "grpo+clip_higher"),
        ("x", "reinforce", {"entropy_coef": 0.04}, "reinforce+entropy_bonus"),
        ("x", "reinforce_with_entropy_bonus", {}, "reinforce+entropy_bonus"),
        ("x", "entropy_advantage", {"base": "reinforce"}, "reinforce+entropy_advantage"),
        ("x", "my own idea", {}, "myownidea"),
    ],
)
def test_family_names_a_method_whatever_its_spelling(label, method, params, expected):
    assert family(label, method, params) == expected


@pytest.mark.parametrize("name", [name for name in names() if name != "entropy_advantage"])
def test_every_estimator_of_the_registry_keeps_its_name(name):
    assert family(get(name).label, name, get(name).params) == name


def lab(color, vision):
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    xyz = to_xyz @ np.clip(vision @ linear, 0, 1) / [0.9505, 1, 1.0888]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


VISIONS = {  # Machado, Oliveira & Fernandes (2009), severity 1
    "normal": np.eye(3),
    "deuteranopia": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "protanopia": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
}


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_the_papers_methods_can_be_told_apart(vision):
    main = {name for group in PAPER.values() for name in group}
    seen = {name: lab(look("", *spell(name)).color, VISIONS[vision]) for name in main}
    nearest = min((np.linalg.norm(seen[a] - seen[b]), a, b) for a, b in itertools.combinations(sorted(seen), 2))
    assert nearest[0] > 15, nearest  # CIE 1976 distance; 2.3 is just noticeable


def spell(name):
    base, _, added = name.partition("+")
    return base, {"": {}, "clip_higher": {"clip_high": 0.28}, "entropy_bonus": {"entropy_coef": 0.01}}[added]


def test_no_two_methods_of_the_paper_share_a_look():
    every = [look("", *spell(name)) for name in {name for group in PAPER.values() for name in group}]
    sweep = [
        look("", method, {f"beta_{method[:3]}": b})
        for method in ("pos_only", "neg_only")
        for b in (0.25, 0.4, 0.75, 0.9)
    ]
    assert len({(found.color, found.dash) for found in every + sweep}) == len(every + sweep)


def test_a_sweep_has_shades_of_one_hue_from_light_to_dark():
    shades = [lab(look("", "neg_only", {"beta_neg": b}).color, np.eye(3))[0] for b in (0.25, 0.5, 0.75, 1.0)]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == 4


def test_unknown_methods_keep_a_colour_of_their_own():
    found = [look(f"run {i}", f"idea {i}", {}) for i in range(8)]
    assert len({(one.color, one.dash, one.marker) for one in found}) == 8
    assert look("another label", "idea 3", {"x": 1}) == found[3]


def test_runs_of_one_method_are_told_apart_only_within_a_panel():
    found = looks([[("b", "grpo", {}), ("a", "grpo", {}), ("c", "grpo", {})], [("d", "grpo", {})]])
    assert found["a"] == found["d"] == look("", "grpo", {})
    assert len({found[label] for label in "abc"}) == 3


def test_every_method_of_the_paper_has_a_look_and_rank_of_its_own():
    found = [look("", *spell_any(name)) for name in PAPERS_METHODS]
    assert len({(one.color, one.dash, one.marker) for one in found}) == len(found)
    assert len({one.rank for one in found}) == len(found)
    assert max(one.rank for one in found) < look("", "rloo", {}).rank


def spell_any(name):
    return (name, {}) if "entropy_advantage" not in name else ("entropy_advantage", {})


def test_legends_follow_the_papers_tables():
    series = [("z", "mine", {}), ("g", "grpo", {}), ("n.75", "neg_only", {"beta_neg": 0.75})]
    series += [("n.25", "neg_only", {"beta_neg": 0.25}), ("r", "reinforce", {})]
    assert list(looks([series])) == ["r", "n.25", "n.75", "g", "z"]
