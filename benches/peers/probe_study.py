#!/usr/bin/env python3
"""One training step of a whole study in PyTorch, and featlab's in turn: linear and cluster probe, 8 dimensions, 2 methods, one seed.

    cargo build --release -p featlab-probe --example step_timing
    python3 benches/peers/probe_study.py [--batch 16] [--rounds 3] [--example target/release/examples/step_timing]

stego-studies runs one process per method and dimension, whose step is: standardise and project the batch, 1x1 convolution, bilinear
upsampling, masked cross-entropy, cosine cluster loss, two Adams. Projection is left out on both sides (featlab has it in memory after
the first epoch), so PyTorch's study is twice the sum over the dimensions. Of 1 and 2 threads the better one counts. Both
programs run once in every round; printed are medians over rounds.
"""

import argparse
import os
import re
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

GRID, SIZE, CLASSES, DIMS = 28, 224, 11, [3, 6, 12, 24, 48, 96, 192, 384]


def step_of(dim, batch):
    torch.manual_seed(0)
    code = torch.rand(batch, dim, GRID, GRID) * 2 - 1
    b, y, x = torch.meshgrid(torch.arange(batch), torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    label = torch.where((b + y // 20 * 7 + x // 30 * 3) % 8 == 0, -1, (b + y // 20 + x // 30) % CLASSES)
    probe = torch.nn.Conv2d(dim, CLASSES, 1)
    centres = torch.nn.Parameter(torch.randn(CLASSES, dim))
    adams = [torch.optim.Adam(p, lr=5e-3) for p in (probe.parameters(), [centres])]

    def step():
        for adam in adams:
            adam.zero_grad()
        up = F.interpolate(probe(code), label.shape[-2:], mode="bilinear", align_corners=False)
        flat, target = up.permute(0, 2, 3, 1).reshape(-1, CLASSES), label.reshape(-1)
        mask = (target >= 0) & (target < CLASSES)
        cosine = torch.einsum("bchw,nc->bnhw", F.normalize(code, dim=1), F.normalize(centres, dim=1))
        hard = F.one_hot(cosine.argmax(1), CLASSES).permute(0, 3, 1, 2).to(torch.float32)
        (F.cross_entropy(flat[mask], target[mask]) - (hard * cosine).sum(1).mean()).backward()
        for adam in adams:
            adam.step()

    return step


def timed(step):
    started = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--example", default="target/release/examples/step_timing")
    arguments = parser.parse_args()
    ours, theirs = [], []
    for turn in range(arguments.rounds):
        out = subprocess.run([arguments.example, str(arguments.batch)], check=True, capture_output=True, text=True).stdout
        found = {name: float(ms) for ms, name in re.findall(r"([\d.]+) ms  (.+)", out)}
        ours.append((found["both"], found["bank of 32"], found["bank of 96"]))
        by_threads = {}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rows = []
            for dim in DIMS:
                step = step_of(dim, arguments.batch)
                step()
                rows.append(min(timed(step) for _ in range(2)))
            by_threads[threads] = rows
        best = min(by_threads.values(), key=sum)
        theirs.append((best[-1], 2 * sum(best)))
        print(f"round {turn}: featlab both {ours[-1][0]:.1f}, study {ours[-1][1]:.1f}, with 3 seeds {ours[-1][2]:.1f} ms; "
              f"PyTorch both {theirs[-1][0]:.0f}, study {theirs[-1][1]:.0f} ms", flush=True)
    column = lambda rows, i: statistics.median(row[i] for row in rows)
    print(f"step of both probes at {DIMS[-1]} dimensions: {column(theirs, 0) / column(ours, 0):.1f} times as fast as PyTorch {torch.__version__}")
    print(f"step of the whole study: {column(theirs, 1) / column(ours, 1):.0f} times as fast")
    print(f"the same, 3 seeds against three times PyTorch's: {3 * column(theirs, 1) / column(ours, 2):.0f} times as fast")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
