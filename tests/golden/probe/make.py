"""Golden numbers for crates/probe: losses, gradients and Adam by torch, matching by scipy, scores by scikit-learn.

Made with python 3.11, torch 2.15.0 (CPU), numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1, safetensors 0.8.0.
Run: python3 make.py

probes/       {input,expected}.safetensors, case.json. Both losses of one batch with their gradients (float64), then ten
              steps of torch.optim.Adam (float32), step s on batch s % 2; predictions by upsampling the codes, then scoring.
metrics_*/    the same three files. Predictions against targets: counts [prediction, class], matching, scores in percent.
              (What such cases call recall is tp / predicted, and precision is tp / true.)
assignments.safetensors   small count matrices full of ties, [n, c, m], with the class of every cluster, -1 if none.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix, jaccard_score, precision_score, recall_score

HERE = Path(__file__).parent


def save(name, params, tolerance, inputs, expected):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for file, tensors in (("input", inputs), ("expected", expected)):
        arrays = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
        save_file(arrays, folder / f"{file}.safetensors")
    (folder / "case.json").write_text(json.dumps({"params": params, "tolerance": tolerance}, indent=1) + "\n")


# Probes ---------------------------------------------------------------------------------------------------------------


def cosines(code, centres):
    return torch.einsum("bkhw,mk->bmhw", F.normalize(code, dim=1), F.normalize(centres, dim=1))


def cluster(code, centres, alpha):
    s = cosines(code, centres)
    p = F.one_hot(s.argmax(1), s.shape[1]).movedim(-1, 1).to(s) if alpha is None else (alpha * s).softmax(1)
    return -(p * s).sum(1).mean(), p


def linear(code, label, weight, bias):
    up = F.interpolate(F.conv2d(code, weight, bias), label.shape[1:], mode="bilinear", align_corners=False)
    valid = (label >= 0) & (label < len(weight))
    return F.cross_entropy(up.movedim(1, -1)[valid], label[valid]), up


def probes(rng, classes=4, extra=2, dim=7, grid=(4, 5), size=(21, 18), lr=5e-3):
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    inputs = {"clusters": draw(classes + extra, dim), "weight": draw(classes, dim, 1, 1) / 2, "bias": draw(classes) / 2}
    for batch in "01":
        inputs[f"code{batch}"] = 2 * draw(2, dim, *grid)
        label = rng.integers(-1, classes + 1, (2, *size))
        inputs[f"label{batch}"] = torch.from_numpy(np.where(rng.random(label.shape) < 0.1, 255, label))
    out = {}

    def leaves(*names):
        return [inputs[n].double().requires_grad_() for n in names]

    for name, alpha in (("alpha_none", None), ("alpha_2", 2.0)):
        code, centres = leaves("code0", "clusters")
        loss, p = cluster(code, centres, alpha)
        grads = torch.autograd.grad(loss, (centres, code))
        values = zip(("loss", "probs", "grad_clusters", "grad_x"), (loss, p, *grads))
        out |= {f"cluster.{name}.{k}": v for k, v in values}
    code, weight, bias = leaves("code0", "weight", "bias")
    out["cluster.log_probs_alpha_3"] = (3 * cosines(code, inputs["clusters"].double())).log_softmax(1)
    loss, up = linear(code, inputs["label0"], weight, bias)
    grads = torch.autograd.grad(loss, (weight, bias, code))
    out |= {f"linear.{k}": v for k, v in zip(("loss", "grad_weight", "grad_bias", "grad_x"), (loss, *grads))}
    out["linear.logits_up_first"] = up[:1]

    centres, weight, bias = (inputs[n].clone().requires_grad_() for n in ("clusters", "weight", "bias"))
    optimisers = torch.optim.Adam([weight, bias], lr), torch.optim.Adam([centres], lr)
    losses = []
    for step in range(10):
        code, label = inputs[f"code{step % 2}"], inputs[f"label{step % 2}"]
        pair = linear(code, label, weight, bias)[0], cluster(code, centres, None)[0]
        losses.append([loss.item() for loss in pair])
        for optimiser in optimisers:
            optimiser.zero_grad()
        sum(pair).backward()
        for optimiser in optimisers:
            optimiser.step()
        if step + 1 in (1, 10):
            out |= {f"adam.step{step + 1}.{k}": v.detach().clone()
                    for k, v in (("clusters", centres), ("weight", weight), ("bias", bias))}
    out["adam.losses"] = torch.tensor(losses, dtype=torch.float64)
    with torch.no_grad():
        up = F.interpolate(inputs["code0"], inputs["label0"].shape[1:], mode="bilinear", align_corners=False)
        out["val.linear_pred"] = F.conv2d(up, weight, bias).argmax(1)
        out["val.cluster_pred"] = cosines(up, centres).argmax(1)
    params = {"n_classes": classes, "extra_clusters": extra, "lr": lr}
    tolerance = {"rel_to_max": 1e-5, "after_10_steps": {"rel_to_max": 2e-5}, "val_pred": "agreement >= 0.999"}
    numpy = lambda tensors: {k: v.detach().numpy() for k, v in tensors.items()}
    save("probes", params, tolerance, numpy(inputs), numpy(out))


# Metrics --------------------------------------------------------------------------------------------------------------


def metrics(rng, name, classes, extra, hungarian, absent):
    shape = (2, 2, 13, 17)
    targets = rng.integers(0, classes - absent, shape)
    names = rng.permutation(classes + extra)  # a class is mostly predicted as the cluster of its new name
    preds = np.where(rng.random(shape) < 0.6, names[targets], rng.integers(0, classes + extra, shape))
    targets[rng.random(shape) < 0.1] = -1
    targets[rng.random(shape) < 0.05] = 255
    valid = (targets >= 0) & (targets < classes)
    all_counts = confusion_matrix(preds[valid], targets[valid], labels=range(classes + extra))[:, :classes]
    counts = np.where(np.arange(classes + extra)[:, None] < classes, all_counts, 0)  # the published rule
    keep = valid & (preds < classes)
    renamed, histogram, out = preds[keep], counts, {}
    if hungarian:
        cluster, label = linear_sum_assignment(counts, maximize=True)
        out = {"assign_cluster": cluster, "assign_class": label, "assigned_total": [counts[cluster, label].sum()]}
        of_cluster = np.full(classes + extra, -1)
        of_cluster[cluster] = label
        out["map_clusters"] = of_cluster
        renamed = np.where(of_cluster < 0, classes, of_cluster)[renamed]
        side = classes + (extra > 0)
        histogram = confusion_matrix(renamed, targets[keep], labels=range(side))
    truth, per_class = targets[keep], dict(labels=range(len(histogram)), average=None, zero_division=np.nan)
    iou = jaccard_score(truth, renamed, labels=range(len(histogram)), average=None, zero_division=0)
    iou[(histogram.sum(0) + histogram.sum(1)) == 0] = np.nan
    out |= {
        "stats": counts, "stats_all": all_counts, "histogram": histogram, "iou_pct": 100 * iou,
        "miou_pct": [100 * np.nanmean(iou)], "accuracy_pct": [100 * np.trace(histogram) / histogram.sum()],
        "recall_pct": 100 * precision_score(truth, renamed, **per_class),
        "precision_pct": 100 * recall_score(truth, renamed, **per_class),
    }
    params = {"n_classes": classes, "extra_clusters": extra, "hungarian": hungarian}
    tolerance = {"integers": "exact", "floats": {"atol": 1e-9}}
    save(name, params, tolerance, {"preds": preds, "targets": targets}, out)


def assignments(rng):
    out = {}
    for m, c in [(4, 4), (6, 6), (9, 5), (3, 7), (12, 11), (11, 11)]:
        counts = rng.integers(0, 3, (40, m, c))
        counts[::2, :, rng.integers(0, c, c // 2)] = 0  # classes that do not occur
        counts[::4, rng.integers(0, m, m // 3), :] = 0  # clusters that are never predicted
        of_cluster = np.full((len(counts), m), -1)
        for row, one in zip(of_cluster, counts):
            cluster, label = linear_sum_assignment(one, maximize=True)
            row[cluster] = label
        out |= {f"{m}x{c}.counts": counts.swapaxes(1, 2).astype(np.uint8), f"{m}x{c}.class_of_cluster": of_cluster}
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, HERE / "assignments.safetensors")


if __name__ == "__main__":
    probes(np.random.default_rng(0))
    metrics(np.random.default_rng(1), "metrics_plain", 6, 0, True, 0)
    metrics(np.random.default_rng(2), "metrics_absent", 7, 0, True, 3)
    metrics(np.random.default_rng(3), "metrics_extra", 5, 3, True, 1)
    metrics(np.random.default_rng(4), "metrics_linear", 6, 0, False, 2)
    assignments(np.random.default_rng(5))
