"""What runs on a node to say what is there.

The standard library only, and sent to the node as code: it must work where raydistill is missing or another version.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import socket
from typing import Any

PACKAGES = ("ray", "torch", "raydistill")


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


def facts(gcs_port: str) -> dict[str, Any]:
    """host, versions and, on the head, autoscaler (see `autoscaler`). gcs_port: the cluster's."""
    return {"host": socket.gethostname(), "versions": versions(), "autoscaler": autoscaler(gcs_port)}


def autoscaler(gcs_port: str) -> dict[str, Any] | None:
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


def _read(file_name: str) -> dict[str, Any] | None:
    import yaml

    try:
        with open(os.path.expanduser(file_name)) as file:
            config = yaml.safe_load(file)
        wanted = {key: config[key] for key in ("available_node_types", "head_node_type", "max_workers")}
        types = wanted["available_node_types"]
        for name, kind in types.items():
            types[name] = {key: kind[key] for key in ("resources", "max_workers") if key in kind}
        return dict(json.loads(json.dumps(wanted)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError):
        return None
