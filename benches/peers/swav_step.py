"""Time of SwAV's training step in PyTorch; the peer of crates/pretrain/examples/swav_step.rs.

Run: python3 swav_step.py [--arch micro8 | resnet18_w16_cifar | resnet18] [--global-size 64] [--local-size 32] [--locals 4] [--batch 32]
[--prototypes 300] [--hidden 512] [--out 128] [--queue 0] [--threads 2] [--steps 20]. Prints the median step and images/s.

The step is the paper's: prototypes to length 1, all views through backbone and head (a pass for each size), three rounds of
Sinkhorn-Knopp for each large view, with the queue once it is full, swapped prediction, backward, SGD with rates scaled per tensor
(LARC); in float32, on random views that are already in memory. Transformers use PyTorch's fused attention, as people do today. Written
from the paper (Caron et al. 2020).
"""

import argparse
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
for name, value in dict(global_size=64, local_size=32, locals=4, batch=32, prototypes=300, hidden=512, out=128, queue=0).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--arch", default="micro8", choices=["micro8", "resnet18", "resnet18_w16_cifar"])
a = parser.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, d=192, depth=4, heads=3, patch=8):
        super().__init__()
        self.grid, self.d = 224 // patch, d
        self.patch = nn.Conv2d(3, d, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, self.grid**2 + 1, d) * 0.02)
        self.blocks, self.norm = nn.ModuleList(Block(d, heads) for _ in range(depth)), nn.LayerNorm(d, eps=1e-6)

    def forward(self, x):
        x = self.patch(x)
        n = x.shape[-1]
        table = self.pos[:, 1:].reshape(1, self.grid, self.grid, self.d).permute(0, 3, 1, 2)
        table = F.interpolate(table, scale_factor=((n + 0.1) / self.grid,) * 2, mode="bicubic")
        pos = torch.cat([self.pos[:, :1], table.flatten(2).transpose(1, 2)], 1)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + pos
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        change = stride > 1 or inputs != outputs
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if change else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


class ResNet18(nn.Module):
    def __init__(self, width, small):
        super().__init__()
        if small:
            stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        else:
            stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        blocks, inputs = [], width
        for stage in range(4):
            for i in range(2):
                blocks.append(Residual(inputs, width << stage, 2 if stage and not i else 1))
                inputs = width << stage
        self.layers, self.d = nn.Sequential(*stem, *blocks), inputs

    def forward(self, x):
        return self.layers(x).mean((2, 3))


backbone = ViT() if a.arch == "micro8" else ResNet18(16 if "w16" in a.arch else 64, "cifar" in a.arch)
head = nn.Sequential(nn.Linear(backbone.d, a.hidden), nn.BatchNorm1d(a.hidden), nn.ReLU(), nn.Linear(a.hidden, a.out))
prototypes = nn.Linear(a.out, a.prototypes, bias=False)
params = [*backbone.parameters(), *head.parameters(), *prototypes.parameters()]
sgd = torch.optim.SGD(params, lr=0.01, momentum=0.9)
queue_len = a.queue // a.batch * a.batch
queue = torch.zeros(2, queue_len, a.out)
large = torch.randn(2 * a.batch, 3, a.global_size, a.global_size)
small = torch.randn(a.locals * a.batch, 3, a.local_size, a.local_size)


@torch.no_grad()
def assign(scores, epsilon=0.05, rounds=3):
    q = torch.exp(scores / epsilon).t()
    k, m = q.shape
    q /= q.sum()
    for _ in range(rounds):
        q /= q.sum(1, keepdim=True) * k
        q /= q.sum(0, keepdim=True) * m
    return (q * m).t()


def step():
    with torch.no_grad():
        prototypes.weight.copy_(F.normalize(prototypes.weight, dim=1))
    groups = [large, small] if a.locals else [large]
    z = F.normalize(head(torch.cat([backbone(x) for x in groups])), dim=1)
    scores = prototypes(z)
    logs = F.log_softmax(scores / 0.1, dim=1).chunk(2 + a.locals)
    loss = 0
    for view in range(2):
        with torch.no_grad():
            own = scores[view * a.batch : (view + 1) * a.batch].detach()
            if queue_len and queue[view, -1].any():
                own = torch.cat([queue[view] @ prototypes.weight.t(), own])
            if queue_len:
                queue[view, a.batch :] = queue[view, : -a.batch].clone()
                queue[view, : a.batch] = z[view * a.batch : (view + 1) * a.batch].detach()
            q = assign(own)[-a.batch :]
        others = [-(q * log).sum(1).mean() for v, log in enumerate(logs) if v != view]
        loss = loss + sum(others) / len(others) / 2
    sgd.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in params:
            length, slope = p.norm(), p.grad.norm()
            if length > 0 and slope > 0:
                p.grad.add_(p, alpha=1e-6).mul_(1e-3 * length / (slope + 1e-6 * length + 1e-8))
    sgd.step()


times = []
for i in range(a.steps + 3):
    started = time.perf_counter()
    step()
    times.append(time.perf_counter() - started)
median = statistics.median(times[3:])
print(f"PyTorch {torch.__version__}, {a.threads} threads: {1000 * median:.0f} ms per step, {a.batch / median:.1f} images/s")
