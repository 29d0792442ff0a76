"""Time of DINO's training step in PyTorch; the peer of crates/pretrain/examples/dino_step.rs.

Run: python3 dino_step.py [--arch micro8] [--global-size 64] [--local-size 32] [--locals 4] [--batch 32] [--out-dim 1024]
[--hidden 512] [--bottleneck 128] [--threads 2] [--steps 20] [--sdpa]. Prints the median step and images/s.

The step is the original's: teacher on the global views, student on all, loss, centre, backward, clipping per tensor, AdamW, teacher's
average; in float32, on random views that are already in memory. Attention is softmax(q k^T) v as in the original, or with
--sdpa PyTorch's fused one, as people use it today. Written from the paper.
"""

import argparse
import copy
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
for name, value in dict(global_size=64, local_size=32, locals=4, batch=32, out_dim=1024, hidden=512, bottleneck=128).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--arch", default="micro8", choices=["micro8", "small16"])
parser.add_argument("--sdpa", action="store_true")
a = parser.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
D, DEPTH, HEADS, P = {"micro8": (192, 4, 3, 8), "small16": (384, 12, 6, 16)}[a.arch]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-6), nn.LayerNorm(D, eps=1e-6)
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.fc1, self.fc2 = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
        if a.sdpa:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q @ k.transpose(-1, -2)) * (D // HEADS) ** -0.5).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, D))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.grid = 224 // P
        self.patch = nn.Conv2d(3, D, P, P)
        self.cls = nn.Parameter(torch.randn(1, 1, D) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, self.grid**2 + 1, D) * 0.02)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(DEPTH)), nn.LayerNorm(D, eps=1e-6)
        widths = [D, a.hidden, a.hidden, a.bottleneck]
        layers = [m for i, o in zip(widths, widths[1:]) for m in (nn.Linear(i, o), nn.GELU())]
        self.mlp = nn.Sequential(*layers[:-1])
        self.v = nn.Parameter(torch.randn(a.out_dim, a.bottleneck))

    def backbone(self, x):
        x = self.patch(x)
        n = x.shape[-1]
        pos = self.pos
        if n != self.grid:
            table = pos[:, 1:].reshape(1, self.grid, self.grid, D).permute(0, 3, 1, 2)
            table = F.interpolate(table, scale_factor=((n + 0.1) / self.grid,) * 2, mode="bicubic")
            pos = torch.cat([pos[:, :1], table.flatten(2).transpose(1, 2)], 1)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + pos
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def forward(self, groups):
        z = self.mlp(torch.cat([self.backbone(x) for x in groups]))
        return F.normalize(z, dim=-1) @ F.normalize(self.v, dim=-1).T


student = Network()
teacher = copy.deepcopy(student).requires_grad_(False)
decayed = [p for p in student.parameters() if p.ndim > 1]
rest = [p for p in student.parameters() if p.ndim <= 1]
adam = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.04}, {"params": rest, "weight_decay": 0.0}], lr=1e-4)
center = torch.zeros(1, a.out_dim)
large = torch.randn(2 * a.batch, 3, a.global_size, a.global_size)
small = torch.randn(a.locals * a.batch, 3, a.local_size, a.local_size)


def step():
    global center
    with torch.no_grad():
        t = teacher([large])
        targets = ((t - center) / 0.04).softmax(-1).chunk(2)
    logs = (student([large, small]) / 0.1).log_softmax(-1).chunk(2 + a.locals)
    terms = [-(p * q).sum(-1).mean() for i, p in enumerate(targets) for j, q in enumerate(logs) if i != j]
    loss = sum(terms) / len(terms)
    center = 0.9 * center + 0.1 * t.mean(0, keepdim=True)
    adam.zero_grad()
    loss.backward()
    for p in student.parameters():
        factor = 3.0 / (p.grad.norm() + 1e-6)
        if factor < 1:
            p.grad.mul_(factor)
    adam.step()
    with torch.no_grad():
        for s, t in zip(student.parameters(), teacher.parameters()):
            t.mul_(0.996).add_(s, alpha=0.004)


times = []
for i in range(a.steps + 3):
    started = time.perf_counter()
    step()
    times.append(time.perf_counter() - started)
median = statistics.median(times[3:])
print(f"PyTorch {torch.__version__}, {a.threads} threads: {1000 * median:.0f} ms per step, {a.batch / median:.1f} images/s")
