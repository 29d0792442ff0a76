#!/usr/bin/env python3
"""One training step of STEGO in PyTorch, and featlab's in turn; then exact neighbours by cosine, the original's way.

    cargo build --release -p featlab-segment --example stego_step
    python3 benches/peers/stego_step.py [--batch 16] [--images 6000] [--cache FOLDER …] [--rounds 3] [--threads 2]
                                        [--example target/release/examples/stego_step]

The step: dropout of channels, head (linear branch and perceptron) on the features of a batch and of its neighbours, correspondence loss
with 5 negatives at 11 x 11 points, linear probe (upsampled cross-entropy) and cluster probe on detached codes, three Adams. The
backbone has no part in it on either side. ViT-S: 384 numbers, 28 x 28 tokens, codes of 70, 27 classes, labels of 224 pixels.
Neighbours: unit features, one einsum per sixteenth of the images, topk 30. They are random, which is the worst case for featlab (nothing can
be ruled out), or with --cache mean features of real pictures: every image of the caches (Parquet, as `featlab extract` writes them; needs
pyarrow) is cut into 4 x 4 parts, each a picture of its own. Both programs run once in every round, with the same number of
threads; printed are medians over rounds.
"""

import argparse
import os
import re
import statistics
import struct
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F

GRID, SIZE, DIM, CODE, CLASSES, SAMPLES, NEGATIVES = 28, 224, 384, 70, 27, 11, 5
WEIGHTS, SHIFTS = {"intra": 0.67, "inter": 0.25, "negative": 0.63}, {"intra": 0.18, "inter": 0.12, "negative": 0.46}


def at(maps, points):
    return F.grid_sample(maps, points, padding_mode="border", align_corners=True)


def correlation(a, b):
    return torch.einsum("nchw,ncij->nhwij", F.normalize(a, dim=1, eps=1e-10), F.normalize(b, dim=1, eps=1e-10))


def pair_loss(f, g, code_f, code_g, shift):
    with torch.no_grad():
        fd = correlation(f, g)
        mean = fd.mean()
        fd = fd - fd.mean([3, 4], keepdim=True)
        fd = fd - fd.mean() + mean
    return -correlation(code_f, code_g).clamp(min=0) * (fd - shift)


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout2d(0.1)
        self.linear = torch.nn.Conv2d(DIM, CODE, 1)
        self.perceptron = torch.nn.Sequential(torch.nn.Conv2d(DIM, DIM, 1), torch.nn.ReLU(), torch.nn.Conv2d(DIM, CODE, 1))

    def forward(self, features):
        code = self.linear(self.drop(features)) + self.perceptron(self.drop(features))
        return self.drop(features), code


def training_step(batch):
    torch.manual_seed(0)
    image, neighbour = (torch.rand(batch, DIM, GRID, GRID) * 2 - 1 for _ in range(2))
    b, y, x = torch.meshgrid(torch.arange(batch), torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    label = torch.where((b + y // 20 * 7 + x // 30 * 3) % 8 == 0, -1, (b + y // 20 + x // 30) % CLASSES)
    head, probe = Head(), torch.nn.Conv2d(CODE, CLASSES, 1)
    centres = torch.nn.Parameter(torch.randn(CLASSES, CODE))
    adams = [torch.optim.Adam(p, lr=lr) for p, lr in ((head.parameters(), 5e-4), (probe.parameters(), 5e-3), ([centres], 5e-3))]

    def step():
        for adam in adams:
            adam.zero_grad()
        features, code = head(image)
        features_pos, code_pos = head(neighbour)
        first, second = (torch.rand(batch, SAMPLES, SAMPLES, 2) * 2 - 1 for _ in range(2))
        f, c = at(features, first), at(code, first)
        terms = {
            "intra": pair_loss(f, f, c, c, SHIFTS["intra"]),
            "inter": pair_loss(f, at(features_pos, second), c, at(code_pos, second), SHIFTS["inter"]),
        }
        negatives = []
        for _ in range(NEGATIVES):
            order = torch.randperm(batch)
            order[order == torch.arange(batch)] += 1
            order = order % batch
            negatives.append(pair_loss(f, at(features[order], second), c, at(code[order], second), SHIFTS["negative"]))
        terms["negative"] = torch.cat(negatives)
        loss = sum(WEIGHTS[name] * term.mean() for name, term in terms.items())
        detached = code.detach().clone()
        up = F.interpolate(probe(detached), label.shape[-2:], mode="bilinear", align_corners=False)
        flat, target = up.permute(0, 2, 3, 1).reshape(-1, CLASSES), label.reshape(-1)
        mask = (target >= 0) & (target < CLASSES)
        cosine = torch.einsum("bchw,nc->bnhw", F.normalize(detached, dim=1), F.normalize(centres, dim=1))
        hard = F.one_hot(cosine.argmax(1), CLASSES).permute(0, 3, 1, 2).to(torch.float32)
        (loss + F.cross_entropy(flat[mask], target[mask]) - (hard * cosine).sum(1).mean()).backward()
        for adam in adams:
            adam.step()

    return step


def of_caches(folders, parts=4):
    """Directions of the mean features of parts of images, [n, d]."""
    import json
    import pathlib

    import numpy as np
    import pyarrow.parquet as pq

    rows = []
    for folder in map(pathlib.Path, folders):
        manifest = json.loads((folder / "manifest.json").read_text())
        (gh, gw), d = manifest["layout"]["grid"], manifest["layout"]["dim"]
        kind = {"f16": "<f2", "f32": "<f4"}[manifest["key"]["dtype"]]
        for shard in manifest["shards"]:
            for row in pq.read_table(folder / shard["file"], columns=["tokens"])["tokens"]:
                tokens = np.frombuffer(row.as_py(), kind).astype(np.float32).reshape(gh, gw, d)
                for band in np.array_split(tokens, parts, 0):
                    rows += [part.reshape(-1, d).mean(0) for part in np.array_split(band, parts, 1)]
    return F.normalize(torch.from_numpy(np.stack(rows)), dim=1)


def neighbours(features):
    n = len(features)

    def run():
        rows = n // 16
        return torch.cat([torch.topk(torch.einsum("nf,mf->nm", features[i : i + rows], features), 30)[1] for i in range(0, n, rows)])

    return run


def timed(f):
    started = time.perf_counter()
    f()
    return 1e3 * (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--cache", nargs="*", help="caches whose mean features are compared, instead of random ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--example", default="target/release/examples/stego_step")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": str(arguments.threads)}
    command = [arguments.example, str(arguments.batch), str(arguments.images)]
    torch.manual_seed(0)
    features = of_caches(arguments.cache) if arguments.cache else F.normalize(torch.randn(arguments.images, DIM), dim=1)
    arguments.images = len(features)
    if arguments.cache:
        directions = tempfile.NamedTemporaryFile(suffix=".directions")
        directions.write(struct.pack("<QQ", *features.shape) + features.numpy().tobytes())
        directions.flush()
        command += ["0", directions.name]
    step, search = training_step(arguments.batch), neighbours(features)
    step()
    ours, theirs = [], []
    for turn in range(arguments.rounds):
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        found = {name: float(ms) for ms, name in re.findall(r"([\d.]+) ms  (.+)", out)}
        ours.append((found["step"], found["neighbours"]))
        theirs.append((statistics.median(timed(step) for _ in range(5)), min(timed(search) for _ in range(2))))
        print(f"round {turn}: featlab step {ours[-1][0]:.0f}, neighbours {ours[-1][1]:.0f} ms; "
              f"PyTorch step {theirs[-1][0]:.0f}, neighbours {theirs[-1][1]:.0f} ms", flush=True)
    for i, what in enumerate((f"step of {arguments.batch} images", f"neighbours of {arguments.images} images")):
        column = lambda rows: statistics.median(row[i] for row in rows)
        print(f"{what}: {column(theirs) / column(ours):.1f} times as fast as PyTorch {torch.__version__}, {arguments.threads} threads")


if __name__ == "__main__":
    main()
