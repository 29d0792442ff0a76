"""Loads a checkpoint of `featlab pretrain dino` as a program of PyTorch would.

    pip install torch safetensors timm
    python dino_checkpoint.py CHECKPOINT.pth [--tokens TOKENS.safetensors]

Checks the layout of DINO's training checkpoints: `student`, `teacher`, `optimizer`, `epoch`, `args`, `dino_loss`. Builds
the vision transformer and the head in PyTorch with the sizes in `args`, loads the teacher strictly, and lets
torch.optim.AdamW go on from the stored moments. Where timm is installed its VisionTransformer must load the backbone too.

TOKENS holds `images` [b, 3, h, w], normalised, and `tokens` [b, 1 + t, d], the last block's after the final norm; they may
differ from PyTorch's by 1e-4. Prints one line per check and `ok`; exits with 1 at the first difference.
"""

import argparse
import math

import torch
from torch import nn
from torch.nn import functional as F

TOLERANCE = 1e-4


def check(condition, what):
    if not condition:
        raise SystemExit(f"failed: {what}")


class PatchEmbed(nn.Module):
    def __init__(self, patch, dim):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / math.sqrt(d // self.heads)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, side, patch, dim, depth, heads):
        super().__init__()
        self.patch = patch
        self.grid = side // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.patch_embed = PatchEmbed(patch, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def positions(self, height, width):
        """The table for images of this size; the scale factors have DINO's offset of 0.1."""
        h, w, n = height // self.patch, width // self.patch, self.grid
        if h * w == n * n and height == width:
            return self.pos_embed
        table = self.pos_embed[:, 1:].reshape(1, n, n, -1).permute(0, 3, 1, 2)
        scales = ((h + 0.1) / n, (w + 0.1) / n)
        table = F.interpolate(table, scale_factor=scales, mode="bicubic", recompute_scale_factor=False)
        check(table.shape[-2:] == (h, w), f"position table of {h} x {w}")
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).mT], dim=1)

    def forward(self, images):
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.positions(*images.shape[-2:])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class DINOHead(nn.Module):
    def __init__(self, dim, args):
        super().__init__()
        hidden, layers = args["hidden_dim"], args["nlayers"]
        widths = [dim, *[hidden] * (layers - 1), args["bottleneck_dim"]]
        modules = []
        for i in range(layers):
            modules.append(nn.Linear(widths[i], widths[i + 1]))
            if i + 1 < layers:
                modules += [nn.BatchNorm1d(hidden)] if args["use_bn_in_head"] else []
                modules.append(nn.GELU())
        self.mlp = nn.Sequential(*modules) if layers > 1 else modules[0]
        last = nn.Linear(widths[-1], args["out_dim"], bias=False)
        self.last_layer = nn.utils.weight_norm(last)  # the names weight_g and weight_v are those of this function
        self.last_layer.weight_g.requires_grad = not args["norm_last_layer"]

    def forward(self, x):
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class Network(nn.Module):
    def __init__(self, args):
        super().__init__()
        dim = args["embed_dim"]
        sizes = (args["img_size"], args["patch_size"], dim, args["depth"], args["num_heads"])
        self.backbone = VisionTransformer(*sizes)
        self.head = DINOHead(dim, args)


def check_layout(checkpoint):
    check(type(checkpoint) is dict, "the checkpoint is a dict")
    expected = {"student", "teacher", "optimizer", "epoch", "args", "dino_loss"}
    check(set(checkpoint) == expected, f"entries are {sorted(checkpoint)}")
    student, teacher, args = checkpoint["student"], checkpoint["teacher"], checkpoint["args"]
    check(type(checkpoint["epoch"]) is int and checkpoint["epoch"] >= 0, "epoch is a whole number")
    check(type(args) is dict, "args is a plain dict")
    check(all(key.startswith(("module.backbone.", "module.head.")) for key in student), "names of the student")
    wrapper = "module." if args["use_bn_in_head"] else ""  # the original wraps networks with batch norm
    check(all(key.startswith((f"{wrapper}backbone.", f"{wrapper}head.")) for key in teacher), "names of the teacher")
    teacher = {key.removeprefix(wrapper): value for key, value in teacher.items()}
    check([key.removeprefix("module.") for key in student] == list(teacher), "student and teacher have one order")
    for key, value in teacher.items():
        other = student[f"module.{key}"]
        check(value.shape == other.shape and value.dtype == other.dtype == torch.float32, f"shape and type of {key}")
        check(bool(value.isfinite().all() and other.isfinite().all()), f"{key} is finite")
    if args["norm_last_layer"]:
        check(bool((teacher["head.last_layer.weight_g"] == 1).all()), "fixed magnitudes are 1")
    center = checkpoint["dino_loss"]
    check(list(center) == ["center"] and center["center"].shape == (1, args["out_dim"]), "center is [1, K]")
    print(f"layout: {len(teacher)} tensors, epoch {checkpoint['epoch']}, {args['arch']}, K = {args['out_dim']}")


def groups(network):
    """Trained parameters: decayed ones, then biases and tensors of one dimension."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    exempt = [p for name, p in named if name.endswith(".bias") or p.ndim == 1]
    decayed = [p for name, p in named if not (name.endswith(".bias") or p.ndim == 1)]
    return [{"params": decayed}, {"params": exempt, "weight_decay": 0.0}]


def check_optimizer(network, stored):
    if "betas" not in stored["param_groups"][0]:
        print("optimizer: not AdamW, not checked")
        return
    optimizer = torch.optim.AdamW(groups(network))
    optimizer.load_state_dict(stored)
    decayed, exempt = optimizer.param_groups
    check(exempt["weight_decay"] == 0.0 and decayed["lr"] == exempt["lr"], "lr and decay of the groups")
    parameters = decayed["params"] + exempt["params"]
    check(set(stored["state"]) <= set(range(len(parameters))), "numbers of the parameters")
    for parameter, state in optimizer.state.items():
        check(set(state) == {"step", "exp_avg", "exp_avg_sq"}, f"a parameter's state has {sorted(state)}")
        check(state["step"].shape == () and state["step"] >= 1, "steps are counted")
        shapes = {state["exp_avg"].shape, state["exp_avg_sq"].shape, parameter.shape}
        check(len(shapes) == 1, f"moments have the shape {tuple(parameter.shape)}")
        check(bool((state["exp_avg_sq"] >= 0).all()), "second moments are positive")
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    check(all(bool(parameter.isfinite().all()) for parameter in parameters), "AdamW goes on")
    for parameter, old in zip(parameters, before):
        parameter.data.copy_(old)
    print(f"optimizer: AdamW takes {len(stored['state'])} of {len(parameters)} states and goes on")


def load_timm(args, weights):
    """timm's model with the teacher's backbone; None without timm."""
    try:
        from timm.models.vision_transformer import VisionTransformer as TimmTransformer
    except ImportError:
        print("timm: not installed, skipped")
        return None
    model = TimmTransformer(
        img_size=args["img_size"],
        patch_size=args["patch_size"],
        embed_dim=args["embed_dim"],
        depth=args["depth"],
        num_heads=args["num_heads"],
        num_classes=0,
        dynamic_img_size=True,
    )
    model.load_state_dict(weights, strict=True)
    print("timm: its VisionTransformer takes the backbone strictly")
    return model.eval()


def check_tokens(path, backbone, timm_model):
    from safetensors.torch import load_file

    tensors = load_file(path)
    images, tokens = tensors["images"], tensors["tokens"]
    own = backbone(images)
    check(own.shape == tokens.shape, f"tokens are {list(tokens.shape)}, PyTorch's {list(own.shape)}")
    report("tokens", own, tokens)
    # At other sizes timm resizes the position table in a way of its own.
    if timm_model is not None and images.shape[-2:] == (backbone.grid * backbone.patch,) * 2:
        report("tokens of timm", timm_model.forward_features(images), tokens)


def report(what, ours, theirs):
    difference = float((ours - theirs).abs().max())
    scale = float(theirs.abs().max())
    print(f"{what}: {list(ours.shape)}, largest difference {difference:.2e}, largest number {scale:.2f}")
    check(difference <= TOLERANCE, f"{what} differ by more than {TOLERANCE}")  # NaN fails too


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--tokens", help="images and featlab's tokens of the teacher's backbone")
    options = parser.parse_args()

    checkpoint = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    check_layout(checkpoint)
    args = checkpoint["args"]
    teacher = {key.removeprefix("module."): value for key, value in checkpoint["teacher"].items()}
    student = {key.removeprefix("module."): value for key, value in checkpoint["student"].items()}
    network = Network(args)
    network.load_state_dict(student, strict=True)
    names = [name for name, _ in network.named_parameters()]  # the optimiser numbers parameters in this order
    check([name for name in teacher if name in names] == names, "order of the parameters")
    check_optimizer(network, checkpoint["optimizer"])

    parts = {
        part: {key.removeprefix(f"{part}."): value for key, value in teacher.items() if key.startswith(f"{part}.")}
        for part in ("backbone", "head")
    }
    network.eval()
    network.backbone.load_state_dict(parts["backbone"], strict=True)
    network.head.load_state_dict(parts["head"], strict=True)
    with torch.no_grad():
        logits = network.head(torch.ones(1, args["embed_dim"]))
        check(logits.shape == (1, args["out_dim"]) and bool(logits.isfinite().all()), "the head's logits")
        print("teacher: backbone and head take their weights strictly")
        timm_model = load_timm(args, parts["backbone"])
        if options.tokens:
            check_tokens(options.tokens, network.backbone, timm_model)
    print("ok")


if __name__ == "__main__":
    main()
