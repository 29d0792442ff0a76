"""Golden numbers for image-level classification (crates/probe: knn_vote, linear_classifier), by torch.

Made with python 3.11, torch 2.15.0 (CPU). Run: python3 make.py

classify.json   knn: votes of 3 neighbours at temperature 0.07 on S(6, 4; 0) and S(2, 4; 3.3), where S(shape; off) has the
                row-major elements sin(i + off), with the predictions.
                linear: 29 training and 10 test rows, initial weights, six epochs of four batches (the last of 5) in a written-out order:
                SGD (momentum 0.9, no decay) at 0.001 * 8 / 256 * 4000, cosine per epoch. Per epoch the mean loss of the
                batches weighted by their sizes, the learning rate, test loss and top-1; the weights at the end.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).parent


def sines(shape, offset):
    n = torch.Size(shape).numel()
    return (torch.arange(n, dtype=torch.float64) + offset).sin().reshape(shape).float()


def knn(k=3, temperature=0.07):
    train, test = F.normalize(sines((6, 4), 0), dim=1), F.normalize(sines((2, 4), 3.3), dim=1)
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    cosines, rows = (test @ train.T).topk(k, dim=1)
    votes = torch.zeros(2, 3).scatter_add_(1, classes[rows], (cosines / temperature).exp())
    return {"votes": votes.tolist(), "predictions": votes.argmax(dim=1).tolist()}


def linear(epochs=6, batch=8, rate=0.001 * 8 / 256 * 4000):
    torch.manual_seed(0)
    n, m, d, c = 29, 10, 5, 3
    centres = torch.randn(c, d)
    classes, test_classes = torch.arange(n) % c, torch.arange(m) % c
    rows = centres[classes] + 0.8 * torch.randn(n, d)
    test_rows = centres[test_classes] + 0.8 * torch.randn(m, d)
    layer = torch.nn.Linear(d, c)
    layer.weight.data.normal_(0, 0.01)
    layer.bias.data.zero_()
    initial = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), rate, momentum=0.9, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=0)
    orders, records = [], []
    for epoch in range(epochs):
        order = torch.randperm(n)
        total = 0.0
        for part in order.split(batch):
            loss = F.cross_entropy(layer(rows[part]), classes[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        with torch.no_grad():
            logits = layer(test_rows)
        record = {
            "train_loss": total / n,
            "train_lr": optimizer.param_groups[0]["lr"],
            "epoch": epoch,
            "test_loss": F.cross_entropy(logits, test_classes).item(),
            "test_acc1": (logits.argmax(1) == test_classes).float().mean().item(),
        }
        scheduler.step()
        orders.append(order.tolist())
        records.append(record)
    return {
        "batch_size": batch,
        "learning_rate": 0.001 * 4000,
        "rows": rows.tolist(),
        "classes": classes.tolist(),
        "test_rows": test_rows.tolist(),
        "test_classes": test_classes.tolist(),
        "initial": initial.tolist(),
        "orders": orders,
        "records": records,
        "weight": layer.weight.tolist(),
        "bias": layer.bias.tolist(),
    }


if __name__ == "__main__":
    numbers = {"knn": knn(), "linear": linear()}
    (HERE / "classify.json").write_text(json.dumps(numbers) + "\n")
