"""What a sweep kept on S3 costs beside one kept in a folder, measured in one run, alternately.

- a trial's epoch: writing simplenet's checkpoint and its table (that is all a folder needs), and pushing them;
- a leg's start: taking the trial over and pulling its checkpoint;
- a journal line, written as the driver does: one that nobody waits for (an epoch), one that has to be in the bucket
  before the sweep goes on (a trial's start); and the driver's CPU for it at a steady 20 lines a second.

Without --storage an S3 server is started on this machine (moto's, one Python process, in memory): what is measured then
is the requests and our own work, not a network. A bucket of one's own: --storage s3://bucket/prefix.

    python benchmarks/storage.py [--storage URI] [--epochs 40] [--seconds 15]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.optim import SGD

from raydistill import models
from raydistill.files import write_atomically
from raydistill.storage import JournalListener, Store, open_store
from raydistill.sweep.record.journal import Journal
from raydistill.training.checkpoint import write_checkpoint

LINE = {"trial_id": "t0000", "metrics": {f"layer{i}.weight": 0.123456789 for i in range(20)}}


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URI of a fresh bucket on an S3 server of our own."""
    import boto3

    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            found = None
            while found is None:
                time.sleep(0.1)
                log.seek(0)
                found = re.search(r"Running on (http://[0-9.:]+)", log.read())
            os.environ |= {"AWS_ENDPOINT_URL": found.group(1), "AWS_EC2_METADATA_DISABLED": "true"}
            os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
            boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="benchmark")
            yield "s3://benchmark/sweeps"
        finally:
            process.kill()
            process.wait()


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def content_of_a_checkpoint() -> dict[str, object]:
    """Simplenet's weights and its optimizer's momentum, as `fit` saves them."""
    model = models.create("simplenet_cifar", 10, {})
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": []}


def trial(store: Store, epochs: int) -> tuple[list[float], list[float], int]:
    """(seconds an epoch, seconds a leg's start, bytes of the checkpoint)."""
    content, times, starts, size = content_of_a_checkpoint(), [], [], 0
    reference = store.reference(store.root / "storage" / "trials" / "t0000")
    for _ in range(4):
        with contextlib.ExitStack() as stack:
            begun = time.perf_counter()
            place = stack.enter_context(store.workplace(reference, "this trial", 0.0))
            starts.append(time.perf_counter() - begun)

            def epoch(folder: Path = place.folder, push: Callable[[], None] = place.push) -> None:
                write_checkpoint(folder / "checkpoint.pt", content)
                write_atomically(folder / "sparsity.csv", "layer,sparsity\n" * 20)
                push()

            times += [seconds(epoch) for _ in range(epochs // 4)]
            size = (place.folder / "checkpoint.pt").stat().st_size
    return times, starts[1:], size


def journal(store: Store, for_s: float) -> tuple[float, float, float]:
    """(ms a line that nobody waits for, ms a line that is waited for, CPU ms a second at 20 lines a second)."""
    path = store.root / "storage" / "journal.jsonl"

    def measured(follower: JournalListener) -> tuple[float, float, float]:
        with Journal(path, follower) as opened:
            plain = statistics.median(seconds(lambda: opened.append("epoch", **LINE)) for _ in range(200))
            waited = statistics.median(seconds(lambda: opened.append("trial_started", **LINE)) for _ in range(20))
            cpu, begun = time.process_time(), time.monotonic()
            while time.monotonic() - begun < for_s:
                opened.append("epoch", **LINE)
                time.sleep(0.05)
            return plain * 1e3, waited * 1e3, (time.process_time() - cpu) * 1e3 / (time.monotonic() - begun)

    with store.held(path, "the benchmark", print) as follower:
        return measured(follower)


def row(name: str, folder: float, bucket: float, digits: int = 1) -> None:
    print(f"{name:<52} {folder:>9.{digits}f} {bucket:>9.{digits}f} {bucket / folder:>7.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        uri = options.storage or stack.enter_context(server())
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["RAYDISTILL_WORK_DIR"] = str(temporary / "work")
        stores = [open_store(temporary / "folder"), open_store(f"{uri.rstrip('/')}/benchmark-{secrets.token_hex(4)}")]
        stores[1].check()
        rounds = [[trial(store, options.epochs // 2) for store in stores] for _ in range(2)]
        in_folder, in_bucket = ([x for one in rounds for x in one[side][0]] for side in (0, 1))
        start_folder, start_bucket = ([x for one in rounds for x in one[side][1]] for side in (0, 1))
        lines = [journal(store, options.seconds) for store in stores]
        print(f"{stores[1].shown}, checkpoints of {rounds[0][0][2] / 1e6:.2f} MB, medians")
        print(f"{'':<52} {'folder':>9} {'bucket':>9} {'times':>7}")
        row("ms an epoch: checkpoint and table kept", *(statistics.median(t) * 1e3 for t in (in_folder, in_bucket)))
        row("ms a leg's start", *(statistics.median(t) * 1e3 for t in (start_folder, start_bucket)))
        row("ms a journal line of an epoch", lines[0][0], lines[1][0], 3)
        row("ms a journal line of a trial's start", lines[0][1], lines[1][1], 3)
        row("driver's CPU, ms a second, 20 lines a second", lines[0][2], lines[1][2])
        objects = getattr(stores[1], "objects", None)
        if objects is not None:
            objects.delete(*objects.names(""))


if __name__ == "__main__":
    main()
