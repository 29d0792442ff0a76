"""Time of reading and writing f16 patch tokens with what people use today; the peers of featlab's cache.

    pip install squirrel-core pyarrow numpy torch [pillow] [isal]
    python3 cache_io.py --cache DIR --work DIR [--arrow DIR] [--images DIR] [--rounds 3] [--only squirrel,pyarrow,ceiling]

All peers get the features of one featlab cache (f16, Parquet shards). MB/s always counts f16 token bytes, images x t x d x 2,
whatever a peer stores besides; 1 MB = 10^6 bytes. The page cache is warm, writing is timed without the flush to the disk (its
time is in the JSON). Ways to do the same thing are timed in turn; slow ones only once, the fastest --rounds times unless that
takes longer than --seconds. The table shows the best round of each way, `*` marks the way that counts. Files are mapped faster
or slower by how they came into the page cache: compare mappings only of files that were written or read in the same way.

Squirrel is used as stego-studies uses it: one record per image, every value with a leading axis of 1, tokens as float32 [1, d, h, w],
500 records per shard, MessagepackSerializer, gzip by the standard library at its default level 9, five shards in flight; read
by MessagepackDriver.get_iter, in training from a DataLoader with a shuffle buffer of 500 records. Variants (--variants):
  f32      records of ind and dino_feats, in float32
  f16      the same in f16: fairer to Squirrel than what stego-studies does
  isal32, isal16  both with the faster gzip that fsspec takes by itself where python-isal is installed (Squirrel does not ask for it)
  record   ind, img, label and dino_feats: all that stego-studies stores, images and labels at 8 pixels per patch
  widened  like f32, but the f16 values merely widened
The last two take minutes to write and are not in the default: `--only squirrel --variants record`, `--variants widened --limit 200`.
A network gives float32 tokens whose last 13 bits are not zero. The cache no longer has those, so all float32 variants but `widened` fill
them at random: gzip takes several times as long over values with 13 zero bits, and that would be unfair to Squirrel.

Needs memory of 4 times the token bytes (6 times for `record`) and disk space of twice them.
"""

import argparse
import gc
import itertools
import json
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from gzip import GzipFile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARD, IN_FLIGHT, SHUFFLE_KEYS, SHUFFLE_ITEMS, BATCH = 500, 5, 1000, 500, 32  # stego-studies
PIXELS = 8  # per side of a patch, as in its ViT-S/8
LOW_BITS = (1 << 13) - 1  # of a float32, beyond the mantissa of an f16


class Cache:
    """The part of a cache that all peers get: whole shards, the first ones that hold `limit` rows."""

    def __init__(self, folder, limit):
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["key"]["dtype"] != "f16":
            raise SystemExit(f"{folder}: tokens are {manifest['key']['dtype']}, this script compares f16")
        self.key, self.folder = manifest["key"], folder
        self.grid, self.d = manifest["layout"]["grid"], manifest["layout"]["dim"]
        self.t = self.grid[0] * self.grid[1]
        before = itertools.accumulate((s["rows"] for s in manifest["shards"]), initial=0)
        chosen = [s for s, rows in zip(manifest["shards"], before) if limit is None or rows < limit]
        self.shards = [folder / s["file"] for s in chosen]
        self.rows = [s["rows"] for s in chosen]
        self.n = sum(self.rows)
        self.width = self.t * self.d * 2
        self.bytes = self.n * self.width

    def arrays(self, columns):
        """Zero-copy views [rows, t, d] of the column `tokens` of a table or record batch."""
        column = columns["tokens"]
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            raw = np.frombuffer(chunk.buffers()[-1], "<f2", len(chunk) * self.t * self.d, chunk.offset * self.width)
            yield raw.reshape(-1, self.t, self.d)


class Results:
    def __init__(self, cache, rounds, seconds):
        self.cache, self.rounds, self.seconds, self.rows = cache, rounds, seconds, []

    def contest(self, what, ways, stored=None):
        """Times `ways` (name -> function) in turn. A function returns the number of images if it is not all of them."""
        times, images = {name: [] for name in ways}, {}
        for round in range(self.rounds):
            fastest = min(times, key=lambda name: min(times[name], default=0))
            for name, way in ways.items():
                if round > 0 and sum(times[name]) > (self.seconds if name == fastest else self.seconds / 4):
                    continue
                gc.collect()
                started = time.perf_counter()
                delivered = way()
                times[name].append(time.perf_counter() - started)
                images[name] = self.cache.n if delivered is None else delivered
        for name in ways:
            self.add(what, name, times[name], images[name], stored)
        return self

    def contest_writing(self, what, ways, work, keep=None):
        """The same for functions that write into the new folder they are given. Returns the folder of the way `keep`."""
        times, flush, size = ({name: [] for name in ways} for _ in range(3))
        kept = None
        for round in range(self.rounds):
            fastest = min(times, key=lambda name: min(times[name], default=0))
            for name, way in ways.items():
                if round > 0 and sum(times[name]) > (self.seconds if name == fastest else self.seconds / 4):
                    continue
                folder = Path(tempfile.mkdtemp(dir=work))
                gc.collect()
                started = time.perf_counter()
                way(folder)
                times[name].append(time.perf_counter() - started)
                started = time.perf_counter()
                for file in folder.iterdir():  # so that the next round does not pay for it
                    with file.open("rb") as opened:
                        os.fsync(opened)
                flush[name].append(time.perf_counter() - started)
                size[name].append(sum(file.stat().st_size for file in folder.iterdir()))
                old, kept = (kept, folder) if name == keep else (folder, kept)
                if old:
                    shutil.rmtree(old)
        for name in ways:
            self.add(what, name, times[name], self.cache.n, size[name][-1], min(flush[name]))
        return kept

    def add(self, what, way, times, images, stored, flush=None):
        best = min(times)
        tokens = images * self.cache.width
        row = {"what": what, "way": way, "seconds": best, "rounds": times, "images": images, "images_per_s": images / best,
               "token_mb_per_s": tokens / best / 1e6, "stored_bytes": stored,
               "stored_per_raw_f16": stored / self.cache.bytes if stored else None, "flush_seconds": flush}
        self.rows.append(row)
        print("  " + self.line(row, " "), flush=True)

    @staticmethod
    def line(row, mark):
        stored = f"{row['stored_bytes'] / 1e6:9.1f}{row['stored_per_raw_f16']:7.3f}" if row["stored_bytes"] else " " * 16
        return (f"{mark} {row['what']:<27}{row['way']:<56}{len(row['rounds']):>2}{row['seconds']:>9.3f}{row['images_per_s']:>10.1f}"
                f"{row['token_mb_per_s']:>9.1f}{stored}")

    def table(self):
        heading = f"  {'what':<27}{'way':<56}{'n':>2}{'seconds':>9}{'images/s':>10}{'MB/s':>9}{'MB':>9}{'/raw':>7}"
        lines, last = [heading, "-" * len(heading)], None
        fastest = {row["what"]: max(r["token_mb_per_s"] for r in self.rows if r["what"] == row["what"]) for row in self.rows}
        for row in self.rows:
            if last and row["what"] != last:
                lines.append("")
            last = row["what"]
            row["counts"] = row["token_mb_per_s"] == fastest[last]
            lines.append(self.line(row, "*" if row["counts"] else " "))
        return "\n".join(lines)


def in_threads(threads, function, items):
    """Calls function(item) for all items from a pool, or in this thread."""
    if threads == 1:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(function, items):
            pass


# --- ceilings -----------------------------------------------------------------------------------------------------------


def whole_words(raw):
    return raw[: len(raw) // 8 * 8].view("<u8")


def add_up(raw):
    return int(whole_words(raw).sum(dtype="<u8"))


def touch_pages(raw):
    return int(raw[:: mmap.PAGESIZE].sum(dtype="<u8"))


def mapped(path, touch, flags=mmap.MAP_SHARED):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as area:
        raw = np.frombuffer(area, "u1")
        result = touch(raw)
        del raw  # or the area cannot be closed
    return result


def read_into(path, buffer):
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def dd(files):
    for path in files:
        subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)


def ipc_tokens(path):
    """The tokens of an Arrow IPC file as views on its mapping."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for index in range(reader.num_record_batches):
            tokens = reader.get_batch(index)["tokens"]
            yield np.frombuffer(tokens.buffers()[-1], "u1")


def ceilings(results, cache, arrow):
    def files_of(kind, files):
        size, reused = sum(file.stat().st_size for file in files), bytearray(1 << 20)
        populate = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        dd(files)  # now they are in the page cache
        results.contest(f"ceiling, {kind} files", {
            "dd bs=1M to /dev/null": lambda: dd(files),
            "readinto, one buffer of 1 MiB": lambda: in_threads(1, lambda f: read_into(f, reused), files),
            "readinto, buffers of 1 MiB, 2 threads": lambda: in_threads(2, lambda f: read_into(f, bytearray(1 << 20)), files),
            "read into new memory, file by file": lambda: in_threads(1, lambda f: np.fromfile(f, "u1"), files),
            "np.memmap, np.sum of u64": lambda: in_threads(1, lambda f: add_up(np.memmap(f, "u1", "r")), files),
            "np.memmap, np.sum of u64, 2 threads": lambda: in_threads(2, lambda f: add_up(np.memmap(f, "u1", "r")), files),
            "mmap MAP_POPULATE, np.sum of u64": lambda: in_threads(1, lambda f: mapped(f, add_up, populate), files),
        }, stored=size)
        results.contest(f"ceiling, {kind} pages", {
            "np.memmap, one byte per page": lambda: in_threads(1, lambda f: touch_pages(np.memmap(f, "u1", "r")), files),
            "mmap MAP_POPULATE, one byte per page": lambda: in_threads(1, lambda f: mapped(f, touch_pages, populate), files),
        }, stored=size)

    files_of("parquet", cache.shards)
    if arrow is None:
        return
    names = {shard.stem for shard in cache.shards}
    files = [file for file in sorted(arrow.glob("*.arrow")) if file.stem in names]
    if {file.stem for file in files} != names:
        raise SystemExit(f"{arrow}: {len(files)} .arrow files of the {len(names)} shards")
    if sum(add_up(raw) for f in files for raw in ipc_tokens(f)) % 2**64 != reference(cache):
        raise SystemExit(f"{arrow}: other tokens than {cache.folder}")
    files_of("arrow", files)

    def touched(touch):
        return lambda path: [touch(raw) for raw in ipc_tokens(path)]

    results.contest("pyarrow.ipc, all tokens", {
        "memory_map, np.sum of u64": lambda: in_threads(1, touched(add_up), files),
        "memory_map, np.sum of u64, 2 threads": lambda: in_threads(2, touched(add_up), files),
    })
    results.contest("pyarrow.ipc, pages", {
        "memory_map, one byte per page": lambda: in_threads(1, touched(touch_pages), files),
        "memory_map, one byte per page, 2 threads": lambda: in_threads(2, touched(touch_pages), files),
    })


# --- pyarrow ------------------------------------------------------------------------------------------------------------


def reference(cache):
    """Sum of all tokens read as u64; every reader is checked against it."""
    parts = (add_up(a.reshape(-1).view("u1")) for f in cache.shards for a in cache.arrays(pq.read_table(f, columns=["tokens"])))
    return sum(parts) % 2**64


def pyarrow_reading(results, cache):
    def by_table(**options):
        return lambda path, seen: seen(list(cache.arrays(pq.read_table(path, columns=["tokens"], **options))))

    def by_file(**options):
        return lambda path, seen: seen(list(cache.arrays(pq.ParquetFile(path, **options).read(["tokens"], use_threads=False))))

    def by_batches(size, use_threads, **options):
        def way(path, seen):
            for batch in pq.ParquetFile(path, **options).iter_batches(size, columns=["tokens"], use_threads=use_threads):
                seen(list(cache.arrays(batch)))

        return way

    ways = {
        "read_table": (1, by_table(use_threads=False)),
        "read_table, use_threads": (1, by_table(use_threads=True)),
        "read_table, memory_map": (1, by_table(use_threads=False, memory_map=True)),
        "read_table, memory_map, use_threads": (1, by_table(use_threads=True, memory_map=True)),
        "read_table, 2 threads over the shards": (2, by_table(use_threads=False)),
        "read_table, memory_map, 2 threads over the shards": (2, by_table(use_threads=False, memory_map=True)),
        "ParquetFile.read, memory_map": (1, by_file(memory_map=True)),
        "ParquetFile.read, no pre_buffer": (1, by_file(pre_buffer=False)),
        "ParquetFile.read, memory_map, 2 threads": (2, by_file(memory_map=True)),
        "iter_batches(8)": (1, by_batches(8, False)),
        "iter_batches(8), memory_map": (1, by_batches(8, False, memory_map=True)),
        "iter_batches(8), memory_map, use_threads": (1, by_batches(8, True, memory_map=True)),
        "iter_batches(8), memory_map, 2 threads over the shards": (2, by_batches(8, False, memory_map=True)),
    }
    expected = reference(cache)

    def check(threads, way):
        sums = []
        in_threads(threads, lambda f: way(f, lambda arrays: sums.extend(add_up(a.reshape(-1).view("u1")) for a in arrays)), cache.shards)
        if sum(sums) % 2**64 != expected:
            raise SystemExit("a reader gives other tokens")

    default = pa.default_memory_pool()
    pools = [default] + [pool for pool in (pa.system_memory_pool(),) if pool.backend_name != default.backend_name]
    for pool in pools:
        pa.set_memory_pool(pool)
        for threads, way in ways.values():
            check(threads, way)
        # the arrays are dropped shard by shard, as a training that streams does
        results.contest(f"pyarrow read, {pool.backend_name}", {
            name: lambda threads=threads, way=way: in_threads(threads, lambda f: way(f, lambda arrays: None), cache.shards)
            for name, (threads, way) in ways.items()
        })
    pa.set_memory_pool(default)
    files = [str(file) for file in cache.shards]

    def at_once(**options):
        def way():
            kept = list(cache.arrays(pq.read_table(files, columns=["tokens"], **options)))
            return sum(len(array) for array in kept)

        return way

    results.contest("pyarrow read, all at once", {
        "read_table of all shards": at_once(),
        "read_table of all shards, memory_map": at_once(memory_map=True),
    })


def pyarrow_writing(results, cache, work):
    plain = {"compression": "NONE", "use_dictionary": False, "write_statistics": False}
    as_ours = {**plain, "row_group_size": 8, "data_page_size": 1, "write_batch_size": 1, "write_page_index": True}
    whole = [pq.read_table(file).combine_chunks() for file in cache.shards]

    def write(tables, threads, **options):
        return lambda folder: in_threads(
            threads, lambda i: pq.write_table(tables[i], folder / f"{i:05}.parquet", **options), range(len(tables)))

    for what, tables in (("all columns", whole), ("tokens", [table.select(["tokens"]) for table in whole])):
        results.contest_writing(f"pyarrow write, {what}", {
            "defaults (dictionary, snappy, statistics)": write(tables, 1),
            "plain, uncompressed": write(tables, 1, **plain),
            "plain, uncompressed, groups and pages like featlab": write(tables, 1, **as_ours),
            "plain, uncompressed, 2 threads over the shards": write(tables, 2, **plain),
        }, work)


# --- squirrel -----------------------------------------------------------------------------------------------------------


def fill_low_bits(tokens, rng):
    """Float32 tokens with a whole mantissa, which round towards zero to the given ones."""
    words = tokens.view("<u4")
    words |= rng.integers(0, LOW_BITS, words.shape, dtype="<u4", endpoint=True)
    return tokens


class Pictures:
    """Normalised float32 images [1, 3, h, w]: crops of the data set's, or smooth noise in 8 bits."""

    def __init__(self, cache, folder):
        self.size = [g * PIXELS for g in cache.grid]
        self.mean, self.std = (np.asarray(cache.key[name], "f4").reshape(3, 1, 1) for name in ("mean", "std"))
        self.ratio = cache.key.get("crop_ratio") if cache.key.get("crop") == "five" else None
        self.files = {file.stem: file for file in folder.rglob("*") if file.is_file()} if folder else None

    def get(self, name, crop, rng):
        h, w = self.size
        if self.files is None:
            coarse = rng.integers(0, 256, (h // 32 + 2, w // 32 + 2, 3)).astype("f4")
            y, x = np.linspace(0, coarse.shape[0] - 1.01, h), np.linspace(0, coarse.shape[1] - 1.01, w)
            fy, fx, iy, ix = (y % 1)[:, None, None], (x % 1)[None, :, None], y.astype(int), x.astype(int)
            rows = coarse[iy] * (1 - fy) + coarse[iy + 1] * fy
            smooth = rows[:, ix] * (1 - fx) + rows[:, ix + 1] * fx
            pixels = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype("u1")
        else:
            from PIL import Image

            image = Image.open(self.files[name]).convert("RGB")
            if self.ratio:
                cw, ch = (round(side * self.ratio) for side in image.size)
                right, low = image.width - cw, image.height - ch
                left, top = [(0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)][crop]
                image = image.crop((left, top, left + cw, top + ch))
            pixels = np.asarray(image.resize((w, h), Image.Resampling.NEAREST))
        return ((pixels.transpose(2, 0, 1).astype("f4") / 255 - self.mean) / self.std).astype("f4")[None]


def records(cache, variant, images):
    """The samples that are handed to Squirrel."""
    rng, samples = np.random.default_rng(0), []
    pictures = Pictures(cache, images) if variant == "record" else None
    (gh, gw), size = cache.grid, [g * PIXELS for g in cache.grid]
    for file in cache.shards:
        table = pq.read_table(file) if variant == "record" else pq.read_table(file, columns=["tokens"])
        for tokens in cache.arrays(table.combine_chunks()):
            for row in tokens:
                feats = np.ascontiguousarray(row.reshape(gh, gw, cache.d).transpose(2, 0, 1))[None]
                if not variant.endswith("16"):
                    feats = feats.astype("<f4")
                    if variant != "widened":
                        feats = fill_low_bits(feats, rng)
                samples.append({"ind": np.array([len(samples)]), "dino_feats": feats})
        if variant != "record":
            continue
        labels = table["label"].to_pylist() if "label" in table.column_names else [None] * table.num_rows
        shape = json.loads(table.schema.field("label").metadata[b"shape"]) if "label" in table.column_names else None
        for sample, name, crop, label in zip(samples[-table.num_rows:], table["image_id"].to_pylist(), table["crop"].to_pylist(), labels):
            sample["img"] = pictures.get(name, crop, rng)
            sample["label"] = np.full((1, *size), -1, "i8")
            if label is not None:
                y, x = (np.arange(s) * full // s for s, full in zip(size, shape))
                picked = np.frombuffer(label, "u1").reshape(shape)[np.ix_(y, x)].astype("i8")
                sample["label"][0] = np.where(picked == 255, -1, picked)
    return samples


def collate(batch):
    import torch

    return {key: torch.from_numpy(np.concatenate([item[key] for item in batch])) for key in batch[0]}


def squirrel(results, cache, work, variants, images):
    import fsspec.compression
    from squirrel.driver import MessagepackDriver
    from squirrel.iterstream import IterableSource

    def use_gzip(opener):
        fsspec.compression.register_compression("gzip", lambda f, **options: opener(fileobj=f, **options), "gz", force=True)

    def check(variant, driver):
        """One shard back, compared with the cache to the last bit."""
        rows = np.concatenate([a for f in cache.shards for a in cache.arrays(pq.read_table(f, columns=["tokens"]))])
        for item in driver.get(next(iter(driver.keys()))):
            feats = item["dino_feats"][0]
            if feats.dtype == np.float32:
                feats = (feats.view("<u4") & ~np.uint32(LOW_BITS)).view("<f4")
            expected = rows[item["ind"][0]].astype(feats.dtype)
            if not (feats.transpose(1, 2, 0).reshape(cache.t, cache.d) == expected).all():
                raise SystemExit(f"squirrel {variant}: other tokens than in the cache")

    for variant in variants:
        if variant.startswith("isal"):
            try:
                from isal.igzip import IGzipFile
            except ImportError:
                print(f"  squirrel {variant}: python-isal is not installed, left out")
                continue
            use_gzip(IGzipFile)
        else:
            use_gzip(GzipFile)
        samples = records(cache, variant, images)

        def write(folder):
            store = MessagepackDriver(str(folder)).store
            (IterableSource(samples).batched(SHARD, drop_last_if_not_full=False)
             .async_map(store.set, buffer=IN_FLIGHT).join())

        as_used = f"shards of {SHARD}, async_map(buffer={IN_FLIGHT}), default threads"
        folder = results.contest_writing(f"squirrel write, {variant}", {as_used: write}, work, keep=as_used)
        del samples
        stored = sum(file.stat().st_size for file in folder.iterdir())
        driver = MessagepackDriver(str(folder))
        check(variant, driver)

        wide = {"unpacker_kwargs": {"read_size": 1 << 20}}

        def count(items, of=lambda item: len(item["ind"])):
            return sum(of(item) for item in items)

        def shards_in_threads():
            # get() is a generator, so get_iter's threads do nothing; this is how they would do something
            source = IterableSource(driver.keys()).async_map(lambda key: list(driver.get(key, **wide)), buffer=2, max_workers=2)
            return count(source.flatten())

        ways = {
            "get_iter(), default threads": lambda: count(driver.get_iter()),
            "get_iter(max_workers=1), read_size 1 MiB": lambda: count(driver.get_iter(max_workers=1, get_kwargs=wide)),
            "list(get) in 2 threads, read_size 1 MiB": shards_in_threads,
        }
        if variant in ("f32", "f16"):
            ways = {"get_iter(max_workers=1)": lambda: count(driver.get_iter(max_workers=1)), **ways}
        elif variant.startswith("isal"):
            del ways["list(get) in 2 threads, read_size 1 MiB"]
        try:
            from squirrel.iterstream.torch_composables import SplitByWorker
            from torch.utils.data import DataLoader
        except ImportError:
            print("  torch is not installed: no DataLoader")
        else:
            def loader(workers):
                # stego-studies shuffles the keys before it splits them: then the workers' shares overlap. Not here.
                keys = SHUFFLE_KEYS if workers == 0 else 1
                stream = driver.get_iter(key_hooks=[SplitByWorker], shuffle_key_buffer=keys, shuffle_item_buffer=SHUFFLE_ITEMS)
                stream = stream.batched(BATCH, collate, drop_last_if_not_full=False).to_torch_iterable()
                return count(DataLoader(stream, batch_size=None, num_workers=workers))

            if not variant.startswith("isal"):
                ways[f"training: shuffled, batches of {BATCH}, DataLoader(2)"] = lambda: loader(2)
            if variant == "record":
                ways[f"training: shuffled, batches of {BATCH}, DataLoader(0)"] = lambda: loader(0)
        results.contest(f"squirrel read, {variant}", ways, stored)
        delivered = {row["images"] for row in results.rows if row["what"] == f"squirrel read, {variant}"}
        if delivered != {cache.n}:
            raise SystemExit(f"squirrel {variant}: {delivered} images read, {cache.n} written")
        shutil.rmtree(folder)


# --- the whole ----------------------------------------------------------------------------------------------------------


def versions():
    found = {"python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    for name in ("squirrel-core", "msgpack", "msgpack-numpy", "fsspec", "isal", "numpy", "pyarrow", "torch", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="a featlab cache of f16 tokens, Parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is written, and removed at the end")
    parser.add_argument("--arrow", type=Path, help="the same cache as .arrow files")
    parser.add_argument("--images", type=Path, help="the data set's images, for the variant `record`; else made-up ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12, help="a way is not repeated once it has taken this long")
    parser.add_argument("--only", default="squirrel,pyarrow,ceiling")
    parser.add_argument("--variants", default="f32,f16,isal32,isal16", help="of Squirrel")
    parser.add_argument("--limit", type=int, help="images, rounded up to whole shards")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()

    only, variants = arguments.only.split(","), arguments.variants.split(",")
    for given, known in ((only, {"squirrel", "pyarrow", "ceiling"}), (variants, {"f32", "f16", "record", "widened", "isal32", "isal16"})):
        if set(given) - known:
            parser.error(f"unknown: {', '.join(set(given) - known)}; there is {', '.join(sorted(known))}")
    cache = Cache(arguments.cache, arguments.limit)
    results = Results(cache, arguments.rounds, arguments.seconds)
    machine = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0]}
    about = (f"{cache.n} images of f16 [{cache.t}, {cache.d}]: {cache.bytes / 1e6:.1f} MB of tokens in {len(cache.shards)} shards\n"
             f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']:.2f}; "
             + ", ".join(f"{name} {v}" for name, v in versions().items() if v))
    print(about, flush=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cache_io-", dir=arguments.work) as work:
        if "ceiling" in only:
            ceilings(results, cache, arguments.arrow)
        if "pyarrow" in only:
            pyarrow_reading(results, cache)
            pyarrow_writing(results, cache, work)
        if "squirrel" in only:
            squirrel(results, cache, work, variants, arguments.images)
    print(f"\n{about}\nbest of n rounds, MB/s of f16 token bytes, MB: stored (ceilings: read), /raw: over the f16 token bytes\n")
    print(results.table())
    print(f"\n{time.perf_counter() - started:.0f} s in all, load after it {os.getloadavg()[0]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "images": cache.n, "t": cache.t, "d": cache.d, "token_bytes": cache.bytes, "versions": versions(), "machine": machine,
            "rows": results.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
