import torch

from raydistill.metrics import Metric
from raydistill.tasks import Task
from raydistill.tasks.feeds import TensorFeed


class Line(Task):
    metrics = {"mae": Metric("min"), "loss": Metric("min")}
    name = "points on a line"

    def __init__(self, points=300):
        x = torch.randn(points, 6, generator=torch.Generator().manual_seed(0))
        y = x.sum(1, keepdim=True)
        self.splits = {"train": slice(0, 200), "validation": slice(200, 250), "test": slice(250, None)}
        self.x, self.y = x, y

    def feed(self, split, loading):
        return TensorFeed((self.x[self.splits[split]], self.y[self.splits[split]]), split, loading)

    def loss(self, network, batch):
        return torch.nn.functional.mse_loss(network(batch[0]), batch[1])

    def evaluate(self, network, feed, loading):
        with torch.no_grad():
            off = torch.cat([network(x) - y for x, y in feed.epoch(0)])
        return {"mae": float(off.abs().mean()), "loss": float(off.square().mean())}

    def example_input(self, rows=1):
        return (torch.zeros(rows, 6),)


def net(width=16):
    return torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
