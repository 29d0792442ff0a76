#!/usr/bin/env python3
"""featlab, PyTorch (eager, scaled_dot_product_attention) and onnxruntime on the same weights and images, in turn.

    cargo build --release -p featlab-backbone --example forward_timing
    python3 benches/peers/forward.py [--models s8,b8] [--sizes 224,320] [--batches 1,8] [--rounds 7]

Every round runs each of them once, and a 2048 x 2048 matrix product of PyTorch's and of featlab's; the figures are medians over
the rounds, ratios are taken within a round. A batch of one image is run twice in a row and timed the second time, since it would
otherwise pay for the pause before it. GFLOP count the matrix products alone; memory is the most that featlab's process held, with
weights, images and results. Needs torch, onnx, onnxruntime, safetensors.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time

THREADS = 2
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(THREADS)

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from safetensors.torch import save_file

SIZES = {"s": (384, 12, 6), "b": (768, 12, 12)}


class Block(torch.nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (torch.nn.LayerNorm(d, eps=1e-6) for _ in range(2))
        self.attn = torch.nn.ModuleDict({"qkv": torch.nn.Linear(d, 3 * d), "proj": torch.nn.Linear(d, d)})
        self.mlp = torch.nn.ModuleDict({"fc1": torch.nn.Linear(d, 4 * d), "fc2": torch.nn.Linear(4 * d, d)})

    def forward(self, x):
        b, n, d = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.attn["proj"](heads.transpose(1, 2).reshape(b, n, d))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Vit(torch.nn.Module):
    """A ViT whose position table has the grid of the images."""

    def __init__(self, d, depth, heads, patch, side):
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.pos_embed = torch.nn.Parameter(torch.randn(1, 1 + (side // patch) ** 2, d) * 0.02)
        self.patch_embed = torch.nn.ModuleDict({"proj": torch.nn.Conv2d(3, d, patch, patch)})
        self.blocks = torch.nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.norm = torch.nn.LayerNorm(d, eps=1e-6)

    def forward(self, images):
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]


def gflop(d, depth, patch, side):
    n = 1 + (side // patch) ** 2
    return (depth * (24 * n * d * d + 4 * n * n * d) + 2 * (n - 1) * 3 * patch * patch * d) / 1e9


class Featlab:
    def __init__(self, weights, images):
        program = os.path.join("target", "release", "examples", "forward_timing")
        self.process = subprocess.Popen([program, weights, images], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def peak_megabytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()


def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def measure(folder, model, side, batch, rounds):
    import onnxruntime

    d, depth, heads = SIZES[model[0]]
    patch = int(model[1:])
    torch.manual_seed(0)
    vit = Vit(d, depth, heads, patch, side).eval()
    images = torch.randn(batch, 3, side, side)
    weights, inputs, outputs, onnx = (os.path.join(folder, name) for name in ("w.safetensors", "i.safetensors", "o.safetensors", "m.onnx"))
    save_file(vit.state_dict(), weights)
    save_file({"images": images}, inputs)
    torch.onnx.export(vit, (images,), onnx, dynamo=True, external_data=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    featlab = Featlab(weights, inputs)
    featlab.ask(f"write {outputs}")
    factor = torch.full((2048, 2048), 0.5)
    with torch.inference_mode():
        exact = vit(images).numpy()
        differ = np.abs(load_file(outputs)["patches"] - exact).max() / np.abs(exact).max()
        differ_onnx = np.abs(session.run(None, feed)[0] - exact).max() / np.abs(exact).max()
        columns = {"featlab": [], "torch": [], "onnx": [], "peak": []}
        for turn in range(rounds + 1):
            # Pauses let the threads of the one before fall asleep.
            row = {}
            for name, run in (
                ("torch", lambda: timed(lambda: vit(images))),
                ("featlab", lambda: float(featlab.ask("run"))),
                ("onnx", lambda: timed(lambda: session.run(None, feed))),
            ):
                time.sleep(0.25)
                if batch == 1:
                    run()
                row[name] = run()
            torch_peak = 2 * 2048**3 / min(timed(lambda: factor @ factor) for _ in range(3)) / 1e9
            row["peak"] = max([torch_peak] + [float(featlab.ask("peak")) for _ in range(3)])
            if turn > 0:  # the first round warms up
                for name, value in row.items():
                    columns[name].append(value)
    memory = featlab.peak_megabytes()
    featlab.process.stdin.close()
    featlab.process.wait()
    work = batch * gflop(d, depth, patch, side)
    median = {name: statistics.median(values) for name, values in columns.items()}
    ratio = lambda other: statistics.median(b / a for a, b in zip(columns["featlab"], columns[other]))
    share = statistics.median(work / a / peak for a, peak in zip(columns["featlab"], columns["peak"]))
    print(
        f"| ViT-{model[0].upper()}/{patch} {side} px, batch {batch} | {batch / median['featlab']:.2f} | {batch / median['torch']:.2f} | "
        f"{batch / median['onnx']:.2f} | {ratio('torch'):.2f} | {ratio('onnx'):.2f} | {work / median['featlab']:.0f} of {median['peak']:.0f} | "
        f"{100 * share:.0f} % | {memory:.0f} MB | {differ:.1e} / {differ_onnx:.1e} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="s8,b8")
    parser.add_argument("--sizes", default="224,320")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    print("| | featlab images/s | PyTorch | onnxruntime | ÷ PyTorch | ÷ onnxruntime | GFLOP/s of peak | share | memory | off (featlab / onnxruntime) |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model in arguments.models.split(","):
        for side in map(int, arguments.sizes.split(",")):
            for batch in map(int, arguments.batches.split(",")):
                with tempfile.TemporaryDirectory() as folder:
                    measure(folder, model, side, batch, arguments.rounds)


if __name__ == "__main__":
    main()
