"""Small runs in the shapes in which other frameworks write them, made from scratch."""

import json
import sqlite3
import struct
import zlib

import polars as pl

UUID = "{:08x}-0000-4000-8000-000000000000"


def lines(path, rows, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + end, encoding="utf-8")
    return path


def change(file, edit):
    """Edit every row of a file of JSON lines."""
    lines(file, [edit(json.loads(line)) for line in file.read_text().splitlines()])


def notes(run):
    """What the import of a run noted."""
    return " ".join(run.info["imported"]["notes"])


def answers(step, n_prompts=3, group=4):
    """The rollouts of a step: prompt, answer, completion and verdict, group by group."""
    for p in range(n_prompts):
        for k in range(group):
            a, b = (step + p) % 7, p
            right = (p * step + k) % 3 == 0
            yield f"{a}+{b}=", str(a + b), str(a + b) if right else f"?{k}", float(right)


def verl_v1(folder, steps, **shape):
    for step in steps:
        rows, group = [], shape.get("group", 4)
        for i, (prompt, gold, text, score) in enumerate(answers(step, **shape)):
            uid = f"{UUID.format(step * 100 + i // group)}_{i % group}_0"
            rows.append({"input": prompt, "output": text, "gts": gold, "score": score, "step": step, "uid": uid})
        lines(folder / f"{step}.jsonl", rows)
    return folder


def verl_v0(folder, steps, gts=True, reverse=True, **shape):
    """Rows are not in group order: the trainer balances its batch."""
    for step in steps:
        rows = []
        for prompt, gold, text, score in answers(step, **shape):
            row = {"input": prompt, "output": text, "gts": gold, "score": score, "step": step, "acc": score}
            rows.append(row if gts else {key: row[key] for key in ("input", "output", "score", "step")})
        lines(folder / f"{step}.jsonl", rows[1::2] + rows[::2] if reverse else rows)
    return folder


def verl_scalars(step, entropy=2.0):
    return {
        "actor/entropy": entropy / step,
        "actor/pg_loss": -0.01 * step,
        "actor/pg_clipfrac": 0.02,
        "actor/grad_norm": 0.5 + step,
        "actor/lr": 1e-6,
        "training/epoch": (step - 1) // 2,
        "critic/score/mean": 0.1 * step,
        "response_length/mean": 7.25,
        "val-core/math/acc/mean@4": 0.3,
    }


def trl_completions(folder, step, rows, name=None):
    """Rows of (prompt, completion, rewards by function, advantage)."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(
        {
            "step": [step] * len(rows),
            "prompt": [row[0] for row in rows],
            "completion": [row[1] for row in rows],
            **{fn: [row[2][fn] for row in rows] for fn in rows[0][2]},
            "advantage": [row[3] for row in rows],
        }
    )
    frame.write_parquet(folder / f"completions_{step if name is None else name:05d}.parquet")


def trl_rows(step, n_prompts=2, group=4):
    for p in range(n_prompts):
        rewards = [float((k + p + step) % 2) for k in range(group)]
        mean = sum(rewards) / group
        for k, reward in enumerate(rewards):
            yield f"{step}+{p}=", f"{step}.{p}.{k}", {"exact": reward}, reward - mean


def trl_entry(step, **more):
    return {
        "step": step,
        "epoch": step / 4,
        "loss": 0.01 * step,
        "entropy": 1.5 / step,
        "reward": 0.5,
        "frac_reward_zero_std": 0.0,
        "learning_rate": 1e-5,
        "completions/mean_length": 11.0,
        "completions/clipped_ratio": 0.25,
        "clip_ratio/low_mean": 0.01,
        "clip_ratio/high_mean": 0.02,
        **more,
    }


def trainer_state(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"epoch": 1.0, "global_step": len(entries), "log_history": entries}, indent=2))
    return path


def varint(value):
    value %= 2**64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """One field of a protocol buffer; floats as 4 bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def crc32c(data):
    """CRC-32C bit by bit (RFC 3720), masked as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def tfevents(path, scalars, texts=()):
    """Scalars of (step, tag, value), half of them as the tensors that newer writers use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = [field(3, "brain.Event:2")]
    for n, (step, tag, value) in enumerate(scalars):
        plain = field(2, float(value))
        tensor = field(8, field(1, 1) + field(2, b"") + field(5, struct.pack("<f", value)))
        events.append(field(2, step) + field(5, field(1, field(1, tag) + (tensor if n % 2 else plain))))
    for tag, text in texts:
        events.append(field(5, field(1, field(1, tag) + field(8, field(1, 7) + field(8, text)))))
    with path.open("wb") as stream:
        for event in events:
            head = struct.pack("<Q", len(event))
            stream.write(head + struct.pack("<I", crc32c(head)) + event + struct.pack("<I", crc32c(event)))
    return path


def wandb_log(path, history, config=(), name="my-run"):
    """Cut into blocks of 32 KiB as LevelDB does; history of (step, {key: value})."""
    path.parent.mkdir(parents=True, exist_ok=True)
    update = b"".join(field(1, field(1, key) + field(16, json.dumps(value))) for key, value in config)
    records = [field(17, field(3, "project") + field(8, name) + field(4, update))]
    for step, row in history:
        items = b"".join(field(1, field(1, key) + field(16, json.dumps(value))) for key, value in row.items())
        records.append(field(2, items + field(2, field(1, step))))
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first = True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += b"\0" * room
                continue
            part, record = record[: room - 7], record[room - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
            if not record:
                break
    path.write_bytes(bytes(out))
    return path


def trackio_db(path, runs):
    """Runs of name -> rows; trackio's own step counts calls."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, timestamp TEXT, run_name TEXT, step INTEGER, "
        "metrics TEXT)"
    )
    database.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_id TEXT, run_name TEXT, config TEXT)")
    for n, (name, rows) in enumerate(runs.items()):
        for step, row in enumerate(rows):
            values = (f"id{n}", "2026-01-01", name, step, json.dumps(row).encode())
            database.execute(
                "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?,?,?,?,?)", values
            )
        config = (f"id{n}", name, json.dumps({"num_generations": 4, "_Created": "today"}))
        database.execute("INSERT INTO configs (run_id, run_name, config) VALUES (?,?,?)", config)
    database.commit()
    database.close()
    return path
