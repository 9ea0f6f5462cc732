"""Is a folder one and the same for every node? Each writes a file there, and others read it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from raydistill.errors import ABSENT, Fault

Ask = Callable[..., Any]
"""A node's `probe.Probe`: its method's name and arguments to what it returns."""

_CONTENT_BYTES = 2**20
LITTLE_BYTES = 2**30


def check_storage(folder: str, nodes: Mapping[str, Ask], where: str = "--storage") -> dict[str, Fault]:
    """What is wrong with an absolute `folder`, or a bucket's URI, by node; all that was written is taken back.

    nodes: by name; the first one's view is what the others have to share. where: what named the folder.
    """
    names = list(nodes)
    token = secrets.token_hex(8)
    files = {name: f".raydistill-doctor-{token}-{number}" for number, name in enumerate(names)}
    content = {name: os.urandom(_CONTENT_BYTES) for name in names}
    found: dict[str, Fault] = {}
    at = f"{where} {folder}"
    try:
        for name in names:
            reason = nodes[name]("write", folder, files[name], content[name])
            if reason:
                way_out = "free some space, mend its permissions or name another folder"
                found[name] = Fault(at, f"node {name} cannot write there ({reason})", ABSENT, way_out)
        written = [name for name in names if name not in found]
        for name in written:
            shown = nodes[name]("read", folder, files[written[0]]) == content[written[0]]
            if not shown or nodes[written[0]]("read", folder, files[name]) != content[name]:
                rule = f"nodes {written[0]} and {name} do not see there what the other one wrote"
                found[name] = Fault(at, rule, ABSENT, "name a folder that all nodes share")
        for name in written:  # of a bucket: where the node works on its copy
            free = nodes[name]("free", folder)
            if free < LITTLE_BYTES:
                rule = f"node {name} has {free / 2**20:.0f} MB of disk left there"
                found.setdefault(name, Fault(at, rule, ABSENT, "free some space or name another folder"))
    finally:
        for name in reversed(names):
            nodes[name]("remove", folder, files[name])
    return found
