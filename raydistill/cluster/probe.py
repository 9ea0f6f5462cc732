"""What runs on a node to say what is there.

The standard library only, and sent to the node as code: it must work where raydistill is missing or another version.
(A bucket is looked at with raydistill: where that is missing, the bucket is out of reach as well.)
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from raydistill.cluster.nodes import Autoscaler
    from raydistill.storage.objects import Objects

PACKAGES = ("ray", "torch", "raydistill")
_TORCH_S = 300.0


def versions() -> dict[str, str]:
    """Of Python and `PACKAGES`; "" where one is missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = str(importlib.import_module(name).__version__) if name == "raydistill" else _installed(name)
        except Exception:  # whatever a broken installation does
            found[name] = ""
    return found


def _installed(name: str) -> str:
    return importlib.metadata.version(name)


class Facts(TypedDict, total=False):
    """autoscaler: on the head, see `autoscaler`. A node that says nothing has none of it."""

    host: str
    versions: dict[str, str]
    autoscaler: Autoscaler | None


class TorchSeen(TypedDict):
    """gpus: how many torch can use; cuda: what it was built for, "" for CPUs only; error: why it does not start."""

    gpus: int
    cuda: str
    error: str


class MachineFacts(TypedDict):
    """memory: bytes. gpus: see `gpus`. ray_disk: (free, total) bytes where Ray keeps its files; None off a Ray's
    process."""

    host: str
    versions: dict[str, str]
    cores: int | None
    memory: int
    gpus: list[dict[str, str]]
    torch: TorchSeen
    ray_disk: tuple[int, int] | None


def facts(gcs_port: str) -> Facts:
    """What a node is. gcs_port: the cluster's."""
    return {"host": socket.gethostname(), "versions": versions(), "autoscaler": autoscaler(gcs_port)}


class Probe:
    """Looks at the machine that it is on; as an actor it is what a doctor sends to each node."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def clock(self) -> int:
        """Nanoseconds since 1970, by this machine's clock."""
        return time.time_ns()

    def machine(self) -> MachineFacts:
        return {
            "host": socket.gethostname(),
            "versions": versions(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "gpus": gpus(),
            "torch": torch_sees(),
            "ray_disk": _ray_disk(),
        }

    def write(self, folder: str, name: str, content: bytes) -> str:
        """Write a file, folders above it too; "" or what went wrong. folder: or the URI of a bucket."""
        if "://" in folder:
            try:
                _bucket(folder).put(name, content)
            except Exception as error:
                return str(error).strip().partition("\n")[0]
            return ""
        missing, above = [], folder
        while above and not os.path.isdir(above) and above != os.path.dirname(above):
            missing.append(above)
            above = os.path.dirname(above)
        try:
            for path in reversed(missing):
                os.mkdir(path)
                self._made.append(path)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return (error.strerror or str(error)).lower()
        return ""

    def read(self, folder: str, name: str) -> bytes | None:
        """A file's content; None where it is not seen."""
        if "://" in folder:
            with contextlib.suppress(Exception):
                found = _bucket(folder).get(name)
                return None if found is None else found[0]
            return None
        try:
            with open(os.path.join(folder, name), "rb") as file:
                return file.read()
        except OSError:
            return None

    def free(self, folder: str) -> int:
        """Free bytes where `folder`, or a node's working copy of a bucket, is or would be made."""
        if "://" in folder:
            folder = _working_copy(folder)
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        return shutil.disk_usage(folder).free

    def remove(self, folder: str, name: str) -> None:
        """Take back what `write` did."""
        if "://" in folder:
            with contextlib.suppress(Exception):
                _bucket(folder).delete(name)
            return
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, name))
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        self._made.clear()


def _bucket(uri: str) -> Objects:
    from raydistill.storage.objects import CHECK_S, Objects, parse_bucket_uri

    return Objects(parse_bucket_uri(uri), CHECK_S)


def _working_copy(uri: str) -> str:
    try:
        from raydistill.storage import open_store

        return str(open_store(uri).root)
    except Exception:  # it is missing here, or another version: that is said elsewhere
        return os.path.expanduser("~")


def gpus() -> list[dict[str, str]]:
    """name and driver of each GPU that NVIDIA's driver knows."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # nosec B603 - fixed words, no shell
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    return [{"name": name.strip(), "driver": driver.strip()} for name, _, driver in rows]


def torch_sees() -> TorchSeen:
    """Asked in a process of its own, as Ray hides the GPUs from one that has not asked for any."""
    code = "import json, torch; print(json.dumps([torch.cuda.device_count(), torch.version.cuda or torch.version.hip]))"
    hidden = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TORCH_S, check=True)  # nosec B603 - fixed words, no shell
        count, cuda = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        return {"gpus": 0, "cuda": "", "error": lines[-1][:200] if lines else "it ended without a word"}
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return {"gpus": 0, "cuda": "", "error": f"{type(error).__name__}: {error}"[:200]}
    return {"gpus": count, "cuda": cuda or "", "error": ""}


def _ray_disk() -> tuple[int, int] | None:
    try:
        from ray._private.worker import _global_node

        usage = shutil.disk_usage(_global_node.get_temp_dir_path())
    except Exception:  # no Ray in this process
        return None
    return usage.free, usage.total


def autoscaler(gcs_port: str) -> Autoscaler | None:
    """What the autoscaler of this cluster may start: its node types and limits; None: none runs on this machine.

    Without an autoscaling file it may start nothing: no types. The cluster itself does not know any of this; the
    autoscaler's process has its file on its command line.
    """
    for pid in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = [word.decode(errors="replace") for word in file.read().split(b"\0")]
        except OSError:
            continue
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
        ours = options.get("gcs-address", "").rpartition(":")[2] == gcs_port
        if ours and any(word.endswith("monitor.py") for word in words):
            file_name = options.get("autoscaling-config", "")
            return _read(file_name) if file_name else {"available_node_types": {}, "max_workers": 0}
    return None


def _read(file_name: str) -> Autoscaler | None:
    import yaml

    try:
        with open(os.path.expanduser(file_name)) as file:
            config = yaml.safe_load(file)
        wanted = {key: config[key] for key in ("available_node_types", "head_node_type", "max_workers")}
        types = wanted["available_node_types"]
        for name, kind in types.items():
            types[name] = {key: kind[key] for key in ("resources", "max_workers") if key in kind}
        found: Autoscaler = json.loads(json.dumps(wanted))
        return found
    except (OSError, ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError):
        return None
