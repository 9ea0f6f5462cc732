"""The same network, points and optimizer in a Lightning module and in a transformers Trainer, as users have them."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from raydistill.training import Trial
from tests.training.own_loops import points

ROWS = 16


def lightning(trial: Trial, dropout: bool = False, **trainer: Any) -> None:
    import lightning

    from raydistill.adapters.lightning import CompressionCallback

    module = lightning_module(trial.network(), trial.args.get("lr", 0.02))
    callback = CompressionCallback(trial, module.net)
    options = {**quiet(), "callbacks": [callback], "max_epochs": trial.epochs, **trainer}
    lightning.Trainer(**options).fit(module, *loaders(), ckpt_path=callback.checkpoint())


def lightning_that_dies(trial: Trial) -> None:
    """Its process is killed in a pruned trial's second epoch, the first time."""
    import lightning

    class Dies(lightning.Callback):  # type: ignore[name-defined,misc]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1 and not trial.is_dense and not (trial.folder / "killed").exists():
                (trial.folder / "killed").touch()
                os.kill(os.getpid(), 9)

    from raydistill.adapters.lightning import CompressionCallback

    module = lightning_module(trial.network(), trial.args.get("lr", 0.02))
    callback = CompressionCallback(trial, module.net)
    trainer = lightning.Trainer(**quiet(), callbacks=[callback, Dies()], max_epochs=trial.epochs)
    trainer.fit(module, *loaders(), ckpt_path=callback.checkpoint())


def quiet() -> dict[str, Any]:
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False,
    }  # fmt: skip


def loaders() -> tuple[Any, Any]:
    """The train split is shuffled by torch's random state."""
    return (
        DataLoader(TensorDataset(*points("train")), ROWS, shuffle=True),
        DataLoader(TensorDataset(*points("validation")), 128),
    )


def lightning_module(net: nn.Module, lr: float) -> Any:
    import lightning

    class Regression(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            off = self.net(batch[0]) - batch[1]
            self.log_dict({"mae": off.abs().mean(), "loss": off.square().mean()})

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=lr)

    return Regression()


class Wrapped(nn.Module):
    """A network as transformers wants it: it gives its loss with its output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        output = self.net(x)
        if labels is None:
            return {"logits": output}
        return {"loss": nn.functional.mse_loss(output, labels), "logits": output}


def wrapped_net(hidden: int = 8) -> nn.Module:
    return Wrapped(nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 1)))


def trainer(model: nn.Module, folder: str, epochs: int, lr: float, callbacks: list[Any]) -> Any:
    from transformers import Trainer, TrainingArguments

    def items(split: str) -> list[dict[str, torch.Tensor]]:
        return [{"x": x, "labels": y} for x, y in zip(*points(split), strict=True)]

    def metrics(found: Any) -> dict[str, float]:
        off = torch.as_tensor(found.predictions) - torch.as_tensor(found.label_ids)
        return {"mae": float(off.abs().mean())}

    said = TrainingArguments(
        output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=ROWS, per_device_eval_batch_size=128,
        learning_rate=lr, lr_scheduler_type="constant", max_grad_norm=0.0, optim="adamw_torch", weight_decay=0.0,
        report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no", save_strategy="no", seed=0,
    )  # fmt: skip
    return Trainer(
        model, said, train_dataset=items("train"), eval_dataset=items("validation"), compute_metrics=metrics,
        callbacks=callbacks,
    )  # fmt: skip


def transformers(trial: Trial) -> None:
    from raydistill.adapters.transformers import CompressionCallback

    callback = CompressionCallback(trial)
    made = trainer(trial.network(), callback.folder, trial.epochs, trial.args.get("lr", 0.02), [callback])
    callback.train(made)


def transformers_that_dies(trial: Trial) -> None:
    from transformers import TrainerCallback

    from raydistill.adapters.transformers import CompressionCallback

    class Dies(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if round(state.epoch or 0) == 1 and not trial.is_dense and not (trial.folder / "killed").exists():
                (trial.folder / "killed").touch()
                os.kill(os.getpid(), 9)

    callback = CompressionCallback(trial)
    lr = trial.args.get("lr", 0.02)
    callback.train(trainer(trial.network(), callback.folder, trial.epochs, lr, [callback, Dies()]))
