"""ResNets in training: outputs, gradients of all parameters and of the images, and running statistics, in double precision.

Run: python resnet.py (torch 2.9, safetensors 0.6 or newer); writes resnet.safetensors beside itself. The network is written down here
from He et al. (2015) in torchvision's names: one block in each stage, width 4; basic blocks with the small stem, bottlenecks with the large.
"""

import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)


class Block(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)] if bottleneck else [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.n = len(sizes)
        for i, (a, b, k, s) in enumerate(sizes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x):
        y = x
        for i in range(1, self.n + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.n else y
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, bottleneck, small):
        super().__init__()
        self.small = small
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False) if small else nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        inputs = 4
        for stage in range(4):
            width = 4 << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(Block(inputs, width, 2 if stage else 1, bottleneck)))
            inputs = width * (4 if bottleneck else 1)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))


out = {}
for name, bottleneck, small, side in [("basic", False, True, 16), ("bottleneck", True, False, 64)]:
    net = ResNet(bottleneck, small)
    with torch.no_grad():
        for key, p in net.named_parameters():
            if p.ndim == 1:
                p.add_(0.2 * torch.randn_like(p))
    put = lambda key, value: out.__setitem__(f"{name}.{key}", value.detach().float().contiguous().clone())
    for key, p in net.named_parameters():
        p.data = p.data.float().double()  # the numbers that are stored
        put(f"param.{key}", p)
    images = torch.randn(3, 3, side, side).float().double().requires_grad_()
    y = net(images)
    weight = torch.randn_like(y).float().double()
    (y * weight).sum().backward()
    put("images", images), put("weight", weight), put("out", y), put("dimages", images.grad)
    for key, p in net.named_parameters():
        put(f"grad.{key}", p.grad)
    for key, b in net.named_buffers():
        if "running" in key:
            put(f"after.{key}", b)
    put("out_eval", net.eval()(images))
save_file(out, pathlib.Path(__file__).with_name("resnet.safetensors"))
