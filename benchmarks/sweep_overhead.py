"""What a sweep costs beyond its training, and what its processes hold in memory.

Runs the real ``raydistill sweep`` on search_spaces/simplenet.yaml in a fresh folder and reads its journal:
- seconds from the command to the end of the first epoch (baseline), and to the first epoch of the first trial;
- what a trial costs beyond its own epochs: the time its slot was taken from one trial's start to the next one's,
  less the seconds of its epochs (Ray, MLflow, checkpoints, actor start);
- memory: peak unique set size (USS) of the driver and of each trial process, sampled every half second, beside the
  size of the dataset's arrays: they stand once in Ray's object store and are not copied into any process.

    python benchmarks/sweep_overhead.py [--data-dir DIR] [--num-samples 16] [--epochs N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def sample(driver: psutil.Process, peaks: dict[str, dict[int, int]]) -> None:
    """Keep the highest USS of the driver and of each process that Ray runs trials in."""
    processes = [("driver", driver), *(("trial", p) for p in driver.children(recursive=True))]
    for role, process in processes:
        try:
            name = process.cmdline()[0] if process.cmdline() else ""
            # Ray's workers call themselves ray::NAME; the agents beside them are no trials.
            if role == "trial" and not (name.startswith("ray::") and "Agent" not in name):
                continue
            uss = process.memory_full_info().uss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        peaks[role][process.pid] = max(uss, peaks[role].get(process.pid, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--num-samples", type=int, default=16)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, "-c", "from raydistill.cli.main import run; run()", "sweep"]
        command += [str(ROOT / "search_spaces" / "simplenet.yaml"), "--storage", storage]
        command += ["--num-samples", str(options.num_samples)]
        command += ["--epochs", str(options.epochs)] if options.epochs else []
        command += ["--data-dir", options.data_dir] if options.data_dir else []
        peaks: dict[str, dict[int, int]] = defaultdict(dict)
        start = time.time()
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        while process.poll() is None:
            sample(process, peaks)
            time.sleep(0.5)
        wall = time.time() - start
        if process.returncode:
            sys.exit(f"the sweep ended with exit code {process.returncode}")
        journal = Path(storage, "simplenet", "journal.jsonl").read_text().splitlines()
    report([json.loads(line) for line in journal], start, wall, peaks)


def report(events: list[dict], start: float, wall: float, peaks: dict[str, dict[int, int]]) -> None:
    trials = [event for event in events if event["event"] == "epoch"]
    baseline = next(event for event in events if event["event"] == "baseline")["epochs"]
    seconds: dict[str, float] = defaultdict(float)
    for event in trials:
        seconds[event["trial_id"]] += event["metrics"]["seconds"]
    starts = [event["time_ms"] / 1000 for event in events if event["event"] == "trial_started"]
    ends = {event["trial_id"]: event["time_ms"] / 1000 for event in events if event["event"] == "trial_ended"}
    phase = max(ends.values()) - min(starts)
    slots = max(sum(1 for s in starts if s <= t) - sum(1 for e in ends.values() if e <= t) for t in starts)
    first = trials[0]["metrics"]["timestamp_ms"] / 1000 - start
    dense = baseline[0]["timestamp_ms"] / 1000 - start
    beyond = (phase * slots - sum(seconds.values())) / len(seconds)
    dataset = next(event for event in events if event["event"] == "sweep_started")["dataset"]
    print(f"dataset {dataset['name']}, {len(seconds)} trials, {len(trials)} epochs in all, {slots} at a time")
    print(f"whole command                              {wall:8.1f} s")
    print(f"command to first epoch of the baseline     {dense:8.1f} s")
    print(f"command to first epoch of the first trial  {first:8.1f} s")
    print(f"a trial's own training (mean)              {statistics.mean(seconds.values()):8.2f} s")
    print(f"a trial costs beyond its training (mean)   {beyond:8.2f} s")
    print(f"driver, peak USS                           {max(peaks['driver'].values()) / 2**20:8.0f} MiB")
    for number, uss in enumerate(sorted(peaks["trial"].values(), reverse=True)[:slots], start=1):
        print(f"trial process {number}, peak USS                  {uss / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
