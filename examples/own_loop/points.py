import torch
from torch import nn

from raydistill.metrics import Metric
from raydistill.tasks import LoopTask


def data(split):
    x = torch.randn(256, 6, generator=torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split]))
    return x, x.sum(1, keepdim=True)


class Points(LoopTask):
    metrics = {"mae": Metric("min"), "loss": Metric("min")}

    def example_input(self, rows=1):
        return (torch.zeros(rows, 6),)

    def figures(self, network, split, device):
        x, y = data(split)
        off = (network(x.to(device)).cpu() - y).detach()
        return {"mae": float(off.abs().mean()), "loss": float(off.square().mean())}


def train(trial):
    model = trial.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.args["lr"])
    scheduler = trial.begin(model, optimizer)  # where it was interrupted, with the state of its last epoch
    x, y = data("train")
    for epoch in trial.epochs_left():
        scheduler.on_epoch_begin(epoch)
        for i in range(8):
            scheduler.on_minibatch_begin(epoch, i, 8)
            loss = nn.functional.mse_loss(model(x[i::8]), y[i::8])
            loss = scheduler.before_backward(epoch, i, 8, loss)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, i, 8)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, i, 8)
        metrics = trial.task.figures(model, "validation", trial.device)
        scheduler.on_epoch_end(epoch, **metrics)
        yield metrics


def net(width=16):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 1))
