"""Reference numbers of crates/pretrain: the way back through a vision transformer, heads, and twenty steps of DINO, by PyTorch.

Written from the paper and the layer definitions; everything is computed in float64 and stored as float32.
Made with python 3.11, torch 2.15.0. Run: python3 make.py  (writes vit, head and dino.safetensors beside itself)
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
D, DEPTH, HEADS, P, SIDE = 12, 2, 3, 4, 4
HIDDEN, BOTTLENECK, K = 20, 12, 32


def normal(*shape, std=0.15):
    # Rounded first, so that both sides start from the same numbers.
    return (torch.randn(*shape) * std).float().double()


def network():
    p = {"cls_token": normal(1, 1, D), "pos_embed": normal(1, SIDE * SIDE + 1, D)}
    p |= {"patch_embed.proj.weight": normal(D, 3, P, P), "patch_embed.proj.bias": normal(D)}
    for i in range(DEPTH):
        for name, shape in [("attn.qkv", (3 * D, D)), ("attn.proj", (D, D)), ("mlp.fc1", (4 * D, D)), ("mlp.fc2", (D, 4 * D))]:
            p |= {f"blocks.{i}.{name}.weight": normal(*shape), f"blocks.{i}.{name}.bias": normal(shape[0])}
        for name in ["norm1", "norm2"]:
            p |= {f"blocks.{i}.{name}.weight": 1 + normal(D), f"blocks.{i}.{name}.bias": normal(D)}
    p |= {"norm.weight": (1 + normal(D)).float().double(), "norm.bias": normal(D)}
    p = {f"backbone.{name}": value.float().double() for name, value in p.items()}
    for i, (a, b) in zip([0, 2, 4], [(D, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, BOTTLENECK)]):
        p |= {f"head.mlp.{i}.weight": normal(b, a, std=0.4), f"head.mlp.{i}.bias": normal(b)}
    p |= {"head.last_layer.weight_g": torch.ones(K, 1), "head.last_layer.weight_v": normal(K, BOTTLENECK)}
    return p


def tokens(p, x):
    p = {name.removeprefix("backbone."): value for name, value in p.items()}
    x = F.conv2d(x, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=P)
    h, w = x.shape[2:]
    pos = p["pos_embed"]
    if (h, w) != (SIDE, SIDE):
        table = pos[:, 1:].reshape(1, SIDE, SIDE, D).permute(0, 3, 1, 2)
        scale = ((h + 0.1) / SIDE, (w + 0.1) / SIDE)
        table = F.interpolate(table, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
        pos = torch.cat([pos[:, :1], table.flatten(2).transpose(1, 2)], 1)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + pos
    for i in range(DEPTH):
        q = {name.removeprefix(f"blocks.{i}."): value for name, value in p.items() if name.startswith(f"blocks.{i}.")}
        norm = lambda name, x: F.layer_norm(x, (D,), q[f"{name}.weight"], q[f"{name}.bias"], 1e-6)
        dense = lambda name, x: F.linear(x, q[f"{name}.weight"], q[f"{name}.bias"])
        b, n, _ = x.shape
        qkv = dense("attn.qkv", norm("norm1", x)).reshape(b, n, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] @ qkv[1].transpose(-1, -2) * (D // HEADS) ** -0.5).softmax(-1)
        x = x + dense("attn.proj", (weights @ qkv[2]).transpose(1, 2).reshape(b, n, D))
        x = x + dense("mlp.fc2", F.gelu(dense("mlp.fc1", norm("norm2", x))))
    return F.layer_norm(x, (D,), p["norm.weight"], p["norm.bias"], 1e-6)


def head(p, x):
    for i in [0, 2, 4]:
        x = F.linear(x, p[f"head.mlp.{i}.weight"], p[f"head.mlp.{i}.bias"])
        x = F.gelu(x) if i < 4 else F.normalize(x, dim=-1)
    v = p["head.last_layer.weight_v"]
    return x @ (p["head.last_layer.weight_g"] * v / v.norm(dim=1, keepdim=True)).T


def vit():
    p = {name: value for name, value in network().items() if name.startswith("backbone.")}
    out = {f"param.{name}": value for name, value in p.items()}
    for readout in ["class", "mean"]:
        for h, w in [(16, 16), (12, 20)]:
            q = {name: value.clone().requires_grad_() for name, value in p.items()}
            x = torch.randn(3, 3, h, w).float().double()
            t = tokens(q, x)
            y = t[:, 0] if readout == "class" else t[:, 1:].mean(1)
            weight = torch.randn(3, D).float().double()
            (y * weight).sum().backward()
            case = f"{readout}.{h}x{w}"
            out |= {f"{case}.images": x, f"{case}.weight": weight, f"{case}.out": y.detach()}
            out |= {f"{case}.grad.{name}": value.grad for name, value in q.items()}
    return out


def cosine(base, end, n, i, warmup=0):
    if i < warmup:
        return base * i / max(warmup - 1, 1)
    return end + 0.5 * (base - end) * (1 + math.cos(math.pi * (i - warmup) / (n - warmup)))


def heads():
    """torch.nn's own batch norm, weight norm and normalize; the numbers are those of a random weighted sum of the logits."""
    out = {}
    for case, layers, use_bn, trains_g in [("plain", 3, False, False), ("bn", 3, True, False), ("g", 2, True, True), ("one", 1, False, True)]:
        widths = [D, *[HIDDEN] * (layers - 1), BOTTLENECK]
        mlp = []
        for i in range(layers):
            mlp.append(torch.nn.Linear(widths[i], widths[i + 1]))
            if i + 1 < layers:
                mlp += [torch.nn.BatchNorm1d(HIDDEN)] * use_bn + [torch.nn.GELU()]
        module = torch.nn.Module()
        module.mlp = torch.nn.Sequential(*mlp) if layers > 1 else mlp[0]
        module.last_layer = torch.nn.utils.weight_norm(torch.nn.Linear(BOTTLENECK, K, bias=False))
        with torch.no_grad():
            for value in module.parameters():
                value.copy_((value + 0.1 * torch.randn_like(value)).float().double())
            for name, value in module.named_buffers():
                if value.is_floating_point():
                    value.copy_(torch.rand_like(value).float().double() + 0.5)
        state = {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}
        x = torch.randn(7, D).float().double().requires_grad_()
        weight = torch.randn(7, K).float().double()
        logits = module.last_layer(F.normalize(module.mlp(x), dim=-1))
        (logits * weight).sum().backward()
        out |= {f"{case}.state.{name}": value for name, value in state.items()}
        out |= {f"{case}.x": x.detach(), f"{case}.weight": weight, f"{case}.out": logits.detach(), f"{case}.grad_x": x.grad}
        out |= {f"{case}.grad.{name}": value.grad for name, value in module.named_parameters() if trains_g or not name.endswith("weight_g")}
        out |= {f"{case}.after.{name}": value for name, value in module.named_buffers() if value.is_floating_point()}
        module.eval()
        with torch.no_grad():
            out[f"{case}.out_eval"] = module.last_layer(F.normalize(module.mlp(x), dim=-1))
    return out


def view(step, number, batch, side):
    """sin(i + offset), rounded to float32, so that no picture need be stored."""
    i = torch.arange(batch * 3 * side * side)
    return torch.sin(i + 1000 * step + 37 * number).float().double().reshape(batch, 3, side, side)


def dino():
    # 4 epochs of 5 steps; the last layer is frozen in the first.
    B, LOCALS, STEPS, PER_EPOCH, CLIP = 4, 3, 20, 5, 0.05
    student = {name: value.clone().requires_grad_() for name, value in network().items()}
    teacher = {name: value.detach().clone() for name, value in student.items()}
    out = {f"start.{name}": value.detach().clone() for name, value in student.items()}
    trained = {name: value for name, value in student.items() if not name.endswith("weight_g")}
    decays = lambda name, value: not name.endswith(".bias") and value.ndim > 1
    groups = [[v for n, v in trained.items() if decays(n, v)], [v for n, v in trained.items() if not decays(n, v)]]
    adam = torch.optim.AdamW([{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}])
    center = torch.zeros(1, K)
    for step in range(STEPS):
        views = [view(step, v, B, 16 if v < 2 else 8) for v in range(2 + LOCALS)]
        lr = cosine(0.1 * B / 256, 4e-4, STEPS, step, warmup=PER_EPOCH)
        for group in adam.param_groups:
            group["lr"] = lr
        adam.param_groups[0]["weight_decay"] = cosine(0.04, 0.4, STEPS, step)
        with torch.no_grad():
            t = head(teacher, tokens(teacher, torch.cat(views[:2]))[:, 0])
        targets = ((t - center) / [0.04, 0.07, 0.07, 0.07][step // PER_EPOCH]).softmax(-1).chunk(2)
        s = torch.cat([tokens(student, torch.cat(views[:2]))[:, 0], tokens(student, torch.cat(views[2:]))[:, 0]])
        logs = (head(student, s) / 0.1).log_softmax(-1).chunk(2 + LOCALS)
        terms = [-(p * q).sum(-1).mean() for i, p in enumerate(targets) for j, q in enumerate(logs) if i != j]
        loss = sum(terms) / len(terms)
        center = 0.9 * center + 0.1 * t.mean(0, keepdim=True)
        adam.zero_grad()
        loss.backward()
        for name, value in trained.items():
            value.grad *= min(1.0, CLIP / (value.grad.norm().item() + 1e-6))
        if step < PER_EPOCH:
            student["head.last_layer.weight_v"].grad = None
        adam.step()
        momentum = cosine(0.9, 1.0, STEPS, step)
        with torch.no_grad():
            for name, value in teacher.items():
                value.mul_(momentum).add_(student[name], alpha=1 - momentum)
        out[f"loss.{step}"] = loss.detach()
    out |= {f"student.{name}": value.detach() for name, value in student.items()}
    out |= {f"teacher.{name}": value for name, value in teacher.items()}
    return out | {"center": center}


for name, tensors in [("vit", vit()), ("dino", dino()), ("head", heads())]:
    path = Path(__file__).with_name(f"{name}.safetensors")
    save_file({key: value.float().contiguous() for key, value in tensors.items()}, path)
    print(path.name, path.stat().st_size)
