"""Token-level formats that are damaged, ambiguous or still being written: one clear line, or a warning and the rest."""

import json
import warnings

import pytest

from entropy_lab.cli import main
from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from entropy_lab.run import RunWarning
from tests import foreign_token_samples as samples
from tests.foreign_samples import lines, verl_v1

WRITE = {
    "nemo_rl": (samples.nemo_rl, "exp_001/train_data_step2.jsonl"),
    "prime_rl": (samples.prime_rl_exports, "token_exports/step_2/rank_0.jsonl"),
    "prime_rl episodes": (samples.prime_rl_episodes, "rollouts/step_2/train/effective/traces.jsonl"),
    "open_instruct": (samples.open_instruct, "run_rollouts_000002.jsonl"),
    "areal": (samples.areal, "rollout/2/202.jsonl"),
    "roll": (samples.roll_rows, "board/data_20260101_000002_001.jsonl"),
    "tinker": (samples.tinker, "iteration_000002/train_rollout_summaries.jsonl"),
}
BINARY = {"slime": samples.slime, "skyrl": samples.skyrl}


@pytest.fixture(params=WRITE)
def dump(request, tmp_path):
    write, name = WRITE[request.param]
    write(tmp_path / "run", (1, 2))
    return tmp_path / "run" / name


def root(file):
    return next(parent for parent in file.parents if parent.name == "run")


def height(folder, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RunWarning)
        run = open_any(folder, Options(**options))
    return run.scan().collect().height, " ".join(str(warning.message) for warning in caught)


def test_a_file_that_is_being_written_is_read_to_its_last_whole_line(dump):
    text = dump.read_text()
    dump.write_text(text[: len(text) - 20])
    n_rows, said = height(root(dump))
    assert n_rows == 23
    assert "its last, is cut off and left out" in said


def test_a_line_cut_off_before_the_last_is_named(dump):
    rows = dump.read_text().splitlines()
    dump.write_text("\n".join([rows[0], rows[1][:25], *rows[2:]]) + "\n")
    with pytest.raises(RunFormatError, match=r"line 2 is not JSON .*--skip-invalid reads the rest"):
        open_any(root(dump))
    n_rows, said = height(root(dump), skip_invalid=True)
    assert n_rows == 23
    assert "left out 1 row" in said


def test_an_empty_file_does_not_stop_the_rest(dump):
    dump.write_text("")
    n_rows, _ = height(root(dump))
    assert 12 <= n_rows < 24


REWARDS = {
    "nemo_rl": "rewards",
    "open_instruct": "reward",
    "areal": "reward",
    "roll": "reward",
    "tinker": "total_reward",
}


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_that_is_no_number_is_named(tmp_path, name):
    write, place = WRITE[name]
    write(tmp_path, (1, 2))
    rows = [json.loads(line) for line in (tmp_path / place).read_text().splitlines()]
    rows[1][REWARDS[name]] = ["high"] if isinstance(rows[1][REWARDS[name]], list) else "high"
    lines(tmp_path / place, rows)
    with pytest.raises(RunFormatError, match=f"line 2 has no number as {REWARDS[name]}"):
        open_any(tmp_path)


@pytest.mark.parametrize("name", [*WRITE, *BINARY])
def test_every_format_is_recognised_by_itself_and_says_what_it_saw(tmp_path, capsys, name):
    write = BINARY[name] if name in BINARY else WRITE[name][0]
    write(tmp_path / "run", (1, 2))
    main(["import", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    err = capsys.readouterr().err
    assert "24 rows imported" in err
    imported = json.loads((tmp_path / "out" / "run.json").read_text())["imported"]
    assert imported["format"] == name.split()[0]
    assert imported["evidence"][0] in err


@pytest.mark.parametrize("name", [*WRITE, *BINARY])
def test_two_frameworks_in_one_directory(tmp_path, name):
    write = BINARY[name] if name in BINARY else WRITE[name][0]
    write(tmp_path / "a", (1,))
    verl_v1(tmp_path / "b", (1,))
    with pytest.raises(RunFormatError, match="holds files of 2 frameworks"):
        open_any(tmp_path)
    assert open_any(tmp_path, Options(format=name.split()[0])).scan().collect().height == 12
