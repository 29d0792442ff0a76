"""Time of one training step of each probe in PyTorch, as STEGO does it; the peer of crates/probe/examples/step_timing.rs.

Run: python3 probe_step.py [batch] [grid] [size] [classes] [dim]. Prints the median of 10 steps in milliseconds for one
thread and for two.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F

batch, grid, size, classes, dim = [int(a) for a in sys.argv[1:]] + [16, 28, 224, 11, 384][len(sys.argv) - 1:]
torch.manual_seed(0)
code = torch.rand(batch, dim, grid, grid) * 2 - 1
logits = (torch.rand(batch, classes, grid, grid) * 6 - 3).requires_grad_()
b, y, x = torch.meshgrid(torch.arange(batch), torch.arange(size), torch.arange(size), indexing="ij")
ignored = (b + y // 20 * 7 + x // 30 * 3) % 8 == 0
label = torch.where(ignored, -1, (b + y // 20 + x // 30) % classes)
probe = torch.nn.Conv2d(dim, classes, 1)
centres = torch.nn.Parameter(torch.randn(classes, dim))
adam = {name: torch.optim.Adam(p, lr=5e-3) for name, p in (("linear", probe.parameters()), ("cluster", [centres]))}


def cross_entropy(logits):
    up = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=False)
    flat, target = up.permute(0, 2, 3, 1).reshape(-1, classes), label.reshape(-1)
    mask = (target >= 0) & (target < classes)
    return F.cross_entropy(flat[mask], target[mask])


def loss_only():
    logits.grad = None
    cross_entropy(logits).backward()


def linear():
    adam["linear"].zero_grad()
    cross_entropy(probe(code)).backward()
    adam["linear"].step()


def cluster():
    adam["cluster"].zero_grad()
    cosine = torch.einsum("bchw,nc->bnhw", F.normalize(code, dim=1), F.normalize(centres, dim=1))
    hard = F.one_hot(cosine.argmax(1), classes).permute(0, 3, 1, 2).to(torch.float32)
    (-(hard * cosine).sum(1).mean()).backward()
    adam["cluster"].step()


print(f"batch {batch}, grid {grid}, size {size}, classes {classes}, dim {dim}, torch {torch.__version__}")
for threads in (1, 2):
    torch.set_num_threads(threads)
    for name, step in (("cross-entropy and its gradient in the logits", loss_only), ("linear probe", linear),
                       ("cluster probe", cluster)):
        times = []
        for _ in range(12):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        print(f"{1e3 * statistics.median(times[2:]):8.2f} ms  {name}, {threads} threads")
