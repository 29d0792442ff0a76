"""Reads the same features in every form with what people use, and compares them bit for bit.

    pip install -r requirements.txt
    python read_forms.py BINARY PACKED LIST ARROW [BINARY PACKED LIST ARROW ...]

Each argument is a cache folder; those of one group hold the same rows. From FORMAT.md alone: decodes every form and number type,
checks the directory in the footers against the bytes it points to, and that mapped tensors are not copied. `datasets` and
`xxhash` are asked where they are installed. Prints one line per group and `ok`; exits with 1 at the first difference.
"""

import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

try:
    import datasets

    datasets.disable_progress_bars()
except ImportError:
    datasets = None
try:
    import xxhash
except ImportError:
    xxhash = None

NUMPY = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "i8": "i1", "u8": "u1"}


def check(condition, what):
    if not condition:
        raise SystemExit(f"failed: {what}")


def load(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest, [folder / shard["file"] for shard in manifest["shards"]]


def columns_of(schema):
    """Name to (dtype, shape, order) of the columns that hold arrays."""
    described = {}
    for field in schema:
        about = field.metadata or {}
        if b"shape" in about:
            described[field.name] = (about[b"dtype"].decode(), json.loads(about[b"shape"]), about[b"order"].decode())
    return described


def decode(value, dtype, order):
    """One binary value to its numbers."""
    raw = np.frombuffer(value, "u1")
    size = np.dtype(NUMPY[dtype]).itemsize
    if order.startswith("byte planes"):
        raw = np.ascontiguousarray(raw.reshape(size, -1).T).reshape(-1)
    return raw.view(NUMPY[dtype])


def from_binary(values, about):
    dtype, _, order = about
    return [None if value is None else decode(bytes(value), dtype, order) for value in values]


def from_lists(values, about):
    return [None if value is None else np.asarray(value, dtype=NUMPY[about[0]]) for value in values]


def parquet_readers(path, cache):
    """Reader to column name to values; for lists, numbers as each reader gives them."""
    table = pq.read_table(path)
    yield "pyarrow", {name: table[name].to_pylist() for name in table.column_names}
    frame = pd.read_parquet(path)
    yield "pandas", {name: [None if v is None else v for v in frame[name]] for name in frame.columns}
    yield "polars", pl.read_parquet(path).to_dict(as_series=False)
    found = duckdb.sql(f"SELECT * FROM read_parquet('{path}')")
    rows = found.fetchall()
    yield "duckdb", {name: [row[i] for row in rows] for i, name in enumerate(found.columns)}
    if datasets:
        loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(cache))
        yield "datasets", {name: loaded[name][:] for name in loaded.column_names}


def arrow_readers(path):
    before = pa.total_allocated_bytes()
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    tensors = {name: table[name].chunk(0) for name in columns_of(table.schema)}
    arrays = {name: t.to_numpy_ndarray() for name, t in tensors.items() if t.null_count == 0}
    check(pa.total_allocated_bytes() == before, f"{path.name}: mapped without a copy")
    nulls = {name: [None if not v.is_valid else np.asarray(v.value.as_py()) for v in t] for name, t in tensors.items() if t.null_count}
    yield "pyarrow", {**{name: list(a.reshape(len(a), -1)) for name, a in arrays.items()}, **nulls}
    frame = pl.read_ipc(path).to_dict(as_series=False)
    yield "polars", {name: frame[name] for name in tensors}
    if datasets:
        loaded = datasets.Dataset(table.cast(pa.schema([pa.field(f.name, getattr(f.type, "storage_type", f.type)) for f in table.schema])))
        yield "datasets", {name: loaded.with_format("arrow")[name].to_pylist() for name in tensors}


def check_directory(path, pairs, columns, reference, packed):
    """Every entry of the directory holds the bytes that it should."""
    data = path.read_bytes()
    rows, pages = json.loads(pairs["featlab.rows"]), pairs["featlab.pages"].removeprefix("featlab-pages:")
    check(len(pages) == 36 * len(rows) * len(columns), f"{path.name}: length of the directory")
    for i, entry in enumerate(pages[at : at + 36] for at in range(0, len(pages), 36)):
        row, (name, (dtype, shape, order)) = i // len(columns), list(columns.items())[i % len(columns)]
        start, length = int(entry[:12], 16), int(entry[12:20], 16)
        expected = reference[name][row]
        check((length == 0) == (expected is None), f"{path.name}: {name} of row {row} is null")
        if length == 0:
            continue
        stored = data[start : start + length]
        if xxhash:
            check(xxhash.xxh3_64_hexdigest(stored) == entry[20:], f"{path.name}: checksum of {name} of row {row}")
        if packed and len(shape) > 1:
            width = int(np.prod(shape)) * np.dtype(NUMPY[dtype]).itemsize
            stored = pa.CompressedInputStream(pa.BufferReader(stored), "zstd").read()[-width:]
        check(decode(stored, dtype, order).tobytes() == expected.tobytes(), f"{path.name}: {name} of row {row}")


def footer_pairs(path, form):
    if form == "arrow":
        return json.loads(pa.ipc.open_file(pa.memory_map(str(path))).metadata[b"featlab"])
    return {k.decode(): v.decode() for k, v in pq.read_metadata(path).metadata.items()}


def check_group(folders, cache):
    reference, asked = None, set()
    for form, folder in zip(("binary", "packed", "list", "arrow"), folders):
        manifest, paths = load(folder)
        check(manifest.get("form", "binary") == form, f"{folder} is {form}")
        rows = {}
        for path, shard in zip(paths, manifest["shards"]):
            if xxhash:
                check(xxhash.xxh3_128_hexdigest(path.read_bytes()) == shard["xxh3"], f"{path}: XXH3")
            schema = pa.ipc.open_file(pa.memory_map(str(path))).schema if form == "arrow" else pq.read_schema(path)
            columns = columns_of(schema)
            take = from_binary if form in ("binary", "packed") else from_lists
            readers = arrow_readers(path) if form == "arrow" else parquet_readers(path, cache)
            first = None
            for who, values in readers:
                asked.add(who)
                got = {name: take(values[name], about) for name, about in columns.items()}
                first = first or got
                for name in columns:
                    same = all((a is None) == (b is None) and (a is None or a.tobytes() == b.tobytes()) for a, b in zip(first[name], got[name]))
                    check(same and len(first[name]) == len(got[name]) == shard["rows"], f"{who}: {name} of {path}")
            if form != "list":
                check_directory(path, footer_pairs(path, form), columns, first, form == "packed")
            for name, values in first.items():
                rows.setdefault(name, []).extend(values)
        reference = reference or rows
        check(list(rows) == list(reference), f"{folder}: columns")
        for name in rows:
            same = all((a is None) == (b is None) and (a is None or a.tobytes() == b.tobytes()) for a, b in zip(rows[name], reference[name]))
            check(same, f"{folder}: {name} differs from the form binary")
    count = len(next(iter(reference.values())))
    print(f"{manifest['key']['dtype']}: {count} rows of {', '.join(reference)} equal in four forms, by {', '.join(sorted(asked))}")


def main():
    folders = [Path(argument) for argument in sys.argv[1:]]
    check(folders and len(folders) % 4 == 0, "four folders per group")
    if datasets is None:
        print("datasets is not installed: not asked")
    for at in range(0, len(folders), 4):
        check_group(folders[at : at + 4], folders[0].parent / "datasets-cache")
    print(f"ok: {len(folders)} caches")


if __name__ == "__main__":
    main()
