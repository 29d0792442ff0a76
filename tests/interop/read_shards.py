"""Reads a feature cache with pyarrow, pandas, polars and DuckDB and compares them bit for bit.

    pip install -r requirements.txt
    python read_shards.py CACHE_DIR

Checks what FORMAT.md promises, from FORMAT.md alone: cache id, seals and checksums, column types, field metadata, row
counts, shapes, labels. Prints one line per reader and `ok: ...`; exits with 1 at the first difference.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq


def decode(values, dtype, shape):
    """Binary values, one per row, to an array [n, *shape]: the recipe of FORMAT.md."""
    raw = np.frombuffer(b"".join(values), {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "u8": "u1"}[dtype])
    if dtype == "bf16":  # the upper half of a float32
        raw = (raw.astype("<u4") << 16).view("<f4")
    return raw.reshape(-1, *shape)


def check(condition, what):
    if not condition:
        raise SystemExit(f"failed: {what}")


def check_seal(path):
    data = path.read_bytes()
    *_, last = re.finditer(rb"featlab-seal:([0-9a-f]{64})", data)
    blank = data[: last.start(1)] + b"0" * 64 + data[last.end(1) :]
    check(hashlib.sha256(blank).hexdigest().encode() == last[1], f"seal of {path.name}")
    return data


def with_pyarrow(path):
    table = pq.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names}


def with_pandas(path):
    frame = pd.read_parquet(path)
    return {name: [None if value is None else value for value in frame[name]] for name in frame.columns}


def with_polars(path):
    return pl.read_parquet(path).to_dict(as_series=False)


def with_duckdb(path):
    table = duckdb.sql(f"SELECT * FROM read_parquet('{path}')")
    rows = table.fetchall()
    return {name: [row[i] for row in rows] for i, name in enumerate(table.columns)}


READERS = {"pyarrow": with_pyarrow, "pandas": with_pandas, "polars": with_polars, "duckdb": with_duckdb}


def check_schema(path, manifest, index):
    key, layout = manifest["key"], manifest["layout"]
    size = {"f32": 4, "f16": 2, "bf16": 2}[key["dtype"]]
    (gh, gw), d, (h, w) = layout["grid"], layout["dim"], layout["label_size"]
    expected = {"image_id": pa.string(), "crop": pa.uint8(), "grid_h": pa.uint16(), "grid_w": pa.uint16()}
    expected["tokens"] = pa.binary(gh * gw * d * size)
    shapes = {"tokens": [gh * gw, d]}
    if layout["has_cls"]:
        expected["cls"], shapes["cls"] = pa.binary(d * size), [d]
    if layout["has_label"]:
        expected["label"], shapes["label"] = pa.binary(h * w), [h, w]
    schema = pq.read_schema(path)
    check({field.name: field.type for field in schema} == expected, f"columns of {path.name}: {schema}")
    for name, shape in shapes.items():
        metadata = schema.field(name).metadata
        check(json.loads(metadata[b"shape"]) == shape, f"shape of {name}")
        check(metadata[b"dtype"].decode() == ("u8" if name == "label" else key["dtype"]), f"dtype of {name}")
    footer = pq.read_metadata(path).metadata
    samples = manifest["shards"][index]["samples"]
    check(footer[b"featlab.key"].decode() == manifest["cache_id"], "key in the footer")
    check(int(footer[b"featlab.shard"]) == index, "index in the footer")
    check(footer[b"featlab.samples"].decode() == f"{samples['start']},{samples['end']}", "samples in the footer")
    return shapes


def same(reference, other, shapes, dtype, who):
    check(list(reference) == list(other), f"{who}: columns")
    for name, values in reference.items():
        check(len(values) == len(other[name]), f"{who}: rows of {name}")
        if name not in shapes:
            check([str(v) for v in values] == [str(v) for v in other[name]], f"{who}: {name}")
            continue
        check([v is None for v in values] == [v is None for v in other[name]], f"{who}: nulls of {name}")
        kind = "u8" if name == "label" else dtype
        ours, theirs = (decode([v for v in c if v is not None], kind, shapes[name]) for c in (values, other[name]))
        check(ours.tobytes() == theirs.tobytes(), f"{who}: {name}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("cache", type=Path)
    arguments.add_argument("--golden-is-first-row", action="store_true", help="for the test that calls this")
    arguments = arguments.parse_args()

    manifest = json.loads(check_seal(arguments.cache / "manifest.json"))
    check(manifest["format"] == "featlab-cache" and manifest["version"] == 1, "format and version")
    key = manifest["key"]
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    check(hashlib.sha256(canonical.encode()).hexdigest()[:32] == manifest["cache_id"], "cache id")
    golden = np.frombuffer(bytes.fromhex(manifest["golden"]["tokens"]), "<f4").reshape(manifest["golden"]["shape"])

    rows, next_sample, images = 0, 0, set()
    for index, shard in enumerate(manifest["shards"]):
        path = arguments.cache / shard["file"]
        data = check_seal(path)
        check(len(data) == shard["bytes"], f"size of {path.name}")
        check(hashlib.sha256(data).hexdigest() == shard["sha256"], f"checksum of {path.name}")
        check(shard["samples"]["start"] == next_sample, "shards follow each other")
        next_sample = shard["samples"]["end"]
        shapes = check_schema(path, manifest, index)
        read = {name: reader(path) for name, reader in READERS.items()}
        first = read["pyarrow"]
        for name, columns in read.items():
            same(first, columns, shapes, key["dtype"], name)
        check(len(first["tokens"]) == shard["rows"], f"rows of {path.name}")
        tokens = decode(first["tokens"], key["dtype"], shapes["tokens"])  # [n, t, d]
        check(np.isfinite(tokens).all(), f"finite tokens in {path.name}")
        if arguments.golden_is_first_row and index == 0:
            check((tokens[0].astype("<f4") == golden).all(), "tokens of the first row")
        images |= set(zip(first["image_id"], first["crop"]))
        rows += shard["rows"]

    check(rows == manifest["rows"] == len(images), "rows in all, each once")
    check(next_sample == manifest["samples"], "samples in all")
    for name, module in (("pyarrow", pa), ("pandas", pd), ("polars", pl), ("duckdb", duckdb)):
        print(f"{name} {module.__version__}: equal to the last bit")
    t, d = shapes["tokens"]
    print(f"ok: {rows} rows of {key['dtype']} [{t}, {d}] in {len(manifest['shards'])} shards")


if __name__ == "__main__":
    main()
