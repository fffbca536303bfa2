"""One pass: every file is read once, only the columns needed, only the steps wanted, with sums that stay small."""

import numpy as np
import polars.selectors as cs
import pytest

import entropy_lab as el
from entropy_lab import batches, fold, recipes
from entropy_lab.analysis import analyze_all
from entropy_lab.run import RunWarning


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    for step in range(5):
        n = 48
        columns = {
            "prompt_id": [f"q{(step + i // 4) % 15}" for i in range(n)],
            "group_id": np.arange(n) // 4,
            "sample": np.arange(n) % 4,
            "epoch": np.full(n, step // 2),
            "correct": rng.random(n) < 0.5,
            "reward": rng.random(n),
            "advantage": rng.normal(size=n),
            "n_tokens": rng.integers(1, 9, n),
            "entropy": rng.random(n),
            **{name: -rng.random(n) for name in ("logp", "logp_after", "sampler_logp")},
            "completion": ["long text"] * n,
        }
        writer.write_rollouts(step, columns)
    return writer.path


@pytest.fixture
def reads(monkeypatch):
    """Steps and columns of every read, in order."""
    seen = []
    together = batches._read_together

    def note(run, files, wanted):
        frame = together(run, files, wanted)
        seen.extend((file.step, set(frame.columns)) for file in files)
        return frame

    monkeypatch.setattr(batches, "_read_together", note)
    return seen


def assert_close(frame, other):
    numbers = cs.numeric()
    np.testing.assert_allclose(
        frame.select(numbers).to_numpy(), other.select(numbers).to_numpy(), rtol=1e-9, atol=1e-12
    )
    assert frame.select(~numbers).equals(other.select(~numbers))


def test_all_analyses_read_each_file_once(run, reads):
    results = analyze_all(el.open_run(run))
    assert len(results.tables) == 11
    assert [step for step, _ in reads] == [0, 1, 2, 3, 4]
    assert not {"completion", "group_accuracy"} & reads[0][1]


def test_one_analysis_reads_only_its_columns(run, reads):
    el.analyze(run, "solve_rates")
    key = {"step", "group_id", "sample", "prompt_id"}
    assert reads[0][1] == key | {"correct", "epoch"}


def test_files_in_portions_or_alone_give_the_same(run, monkeypatch):
    whole = analyze_all(el.open_run(run)).tables
    monkeypatch.setattr(fold, "PORTION_FILES", 2)
    portions = analyze_all(el.open_run(run)).tables
    monkeypatch.setattr(batches, "_read_together", lambda *_: None)
    alone = analyze_all(el.open_run(run)).tables
    for name, table in whole.items():
        assert table.frame.equals(portions[name].frame), name
        assert table.frame.equals(alone[name].frame), name


def test_files_of_different_types_and_columns_are_read(run):
    import polars as pl

    before = analyze_all(el.open_run(run)).tables
    file = run / "rollouts/step-000002.parquet"
    pl.read_parquet(file).with_columns(pl.col("logp").cast(pl.Float64), pl.col("step").cast(pl.Int64)).write_parquet(
        file
    )
    after = analyze_all(el.open_run(run)).tables
    assert all(table.frame.equals(after[name].frame) for name, table in before.items())
    pl.read_parquet(file).drop("advantage").write_parquet(file)
    with pytest.warns(RunWarning, match="advantage is absent in 1 of 5 files .*step-000002"):
        partial = analyze_all(el.open_run(run)).tables
    assert partial["entropy"].frame.equals(before["entropy"].frame)
    assert partial["advantages"].frame["n_groups"].sum() == before["advantages"].frame["n_groups"].sum() - 12


def test_steps_that_nobody_wants_are_not_read(run, reads):
    el.analyze(run, "covariance", first_steps=2)
    assert [step for step, _ in reads] == [0, 1]


def test_together_or_alone_is_the_same(run):
    together = analyze_all(el.open_run(run)).tables
    for name, table in together.items():
        assert el.analyze(run, name).frame.equals(table.frame), name


def test_compacted_sums_are_the_same(run, monkeypatch):
    whole = el.analyze(run, "covariance").frame
    monkeypatch.setattr(recipes.load("analyses", "covariance"), "COMPACT_AT", 3)
    compacted = el.analyze(run, "covariance").frame
    np.testing.assert_allclose(compacted.to_numpy(), whole.to_numpy(), rtol=1e-12)


def test_the_order_of_rows_does_not_matter(run):
    import polars as pl

    before = analyze_all(el.open_run(run)).tables
    for file in (run / "rollouts").iterdir():
        pl.read_parquet(file).sample(fraction=1, shuffle=True, seed=1).write_parquet(file)
    after = analyze_all(el.open_run(run)).tables
    for name, table in before.items():
        assert_close(after[name].frame, table.frame)


def test_unsigned_keys_are_sorted_and_checked_too(run):
    import polars as pl

    from entropy_lab.errors import RunFormatError

    before = analyze_all(el.open_run(run)).tables
    file = run / "rollouts/step-000001.parquet"
    frame = pl.read_parquet(file).cast({"group_id": pl.UInt32, "sample": pl.UInt16})
    frame.reverse().write_parquet(file)
    after = analyze_all(el.open_run(run)).tables
    for name, table in before.items():
        assert_close(after[name].frame, table.frame)
    pl.concat([frame.reverse(), frame[3:4]]).write_parquet(file)
    with pytest.raises(RunFormatError, match="repeats"):
        analyze_all(el.open_run(run))


def test_intervals_are_the_seeds(run):
    first, again, other = (el.analyze(run, "entropy", seed=seed).frame["ci_low"].to_list() for seed in (0, 0, 1))
    assert first == again != other


def test_steps_may_have_gaps(run):
    (run / "rollouts/step-000002.parquet").unlink()
    assert el.analyze(run, "entropy").frame["step"].to_list() == [0, 1, 3, 4]
