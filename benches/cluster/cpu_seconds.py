"""Are units even? Processor time of all executors for the same work, with 1, 2 and 4 executors of one thread each.

    python3 benches/cluster/cpu_seconds.py --featlab target/release/featlab --dataset camvid:CamVid --split train+val

Starts a scheduler and executors on this machine, runs extract, reduce pca, cache project and probe on them, and reads what each
executor's process has used from /proc. Wall time means nothing where there are fewer cores than executors; processor time and numbers
of units do. Everything the executors do counts, also what each of them does once (listing the data set, loading the backbone, reading
the features of a study).
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    def __init__(self, featlab, executors, folder):
        self.featlab, self.url = featlab, f"http://127.0.0.1:{free_port()}"
        env = {**os.environ, "RAYON_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
        bind = self.url.removeprefix("http://")
        self.scheduler = subprocess.Popen([featlab, "cluster", "scheduler", "--bind", bind], **quiet)
        self.executors = {}
        for i in range(executors):
            words = ["cluster", "executor", "--scheduler", self.url, "--name", f"e{i}", "--scratch", f"{folder}/e{i}"]
            self.executors[f"e{i}"] = subprocess.Popen([featlab, *words], **quiet)
        while subprocess.run([featlab, "cluster", "status", self.url], capture_output=True, text=True).stdout.count(" slots ") < executors:
            time.sleep(0.2)

    def run(self, *words):
        """Processor seconds and units of each executor for one command."""
        before = {name: cpu_seconds(p.pid) for name, p in self.executors.items()}
        done = subprocess.run([self.featlab, *words, "--cluster", self.url], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        time.sleep(0.5)
        used = {name: cpu_seconds(p.pid) - before[name] for name, p in self.executors.items()}
        units = {name: 0 for name in self.executors}
        for line in done.stderr.splitlines():
            for name, count in re.findall(r"\b(e\d+) (\d+) in ", line):
                units[name] += int(count)
        return used, units

    def stop(self):
        for process in [*self.executors.values(), self.scheduler]:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--featlab", default="target/release/featlab")
    parser.add_argument("--dataset", default="scenes")
    parser.add_argument("--split", default="train")
    parser.add_argument("--backbone", default="random:vit_small_patch16:0")
    parser.add_argument("--res", default="224")
    parser.add_argument("--shard-rows", default="16")
    parser.add_argument("--executors", default="1,2,4")
    args = parser.parse_args()
    totals = {}
    for executors in map(int, args.executors.split(",")):
        folder = tempfile.mkdtemp(prefix="featlab-cpu-")
        cluster = Cluster(str(Path(args.featlab).resolve()), executors, folder)
        try:
            features = f"{folder}/features"
            jobs = {
                "extract": ["extract", "--dataset", args.dataset, "--split", args.split, "--backbone", args.backbone, "--res", args.res,
                            "--shard-rows", args.shard_rows, "--out", features],
                "moments": ["reduce", "pca", "--cache", features, "--out", f"{folder}/pca.safetensors"],
                "project": ["cache", "project", features, "--reducer", f"{folder}/pca.safetensors", "--dims", "48", "--out", f"{folder}/small"],
                "probes": ["probe", "--cache-train", features, "--cache-val", features, "--reducer", f"{folder}/pca.safetensors", "--dims",
                           "3,6,12,24,48,96", "--seeds", "0,1", "--steps", "50", "--batch-size", "8", "--out", f"{folder}/runs"],
            }
            for job, words in jobs.items():
                used, units = cluster.run(*words)
                totals.setdefault(job, {})[executors] = sum(used.values())
                each = ", ".join(f"{name} {used[name]:.1f} s {units[name]} units" for name in used)
                print(f"{executors} executors, {job:8} {sum(used.values()):7.1f} s of processors: {each}", flush=True)
        finally:
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)
    print()
    for job, used in totals.items():
        first = next(iter(used.values()))
        print(f"{job:8} " + "  ".join(f"{n} executors {s:.1f} s ({s / first:.3f})" for n, s in used.items()))
    whole = {n: sum(used[n] for used in totals.values()) for n in next(iter(totals.values()))}
    first = next(iter(whole.values()))
    print("all      " + "  ".join(f"{n} executors {s:.1f} s ({s / first:.3f})" for n, s in whole.items()))


if __name__ == "__main__":
    main()
