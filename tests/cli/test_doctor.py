"""What the doctor shows of what it found."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from raydistill.cli import doctor
from raydistill.cluster.doctor import Findings, Machine

VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "", "raydistill": "0.1.0"}
HEAD = Machine("box", True, VERSIONS, cores=8, memory_bytes=16 * 2**30,
               gpus=("NVIDIA A10G", "NVIDIA A10G", "NVIDIA T4"),
               driver="550.1", skew_ms=0.25, skew_error_ms=0.1, disk_bytes=3 * 2**29, storage="yes")  # fmt: skip
SILENT = Machine("far", False)


def findings(*machines: Machine, ray: bool = True) -> Findings:
    return Findings(machines, VERSIONS, (), (), ray)


def rows(table: Table) -> list[list[str]]:
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return [
        [cell for cell in line.split("  ") if cell.strip()] for line in text.getvalue().splitlines() if line.strip()
    ]


def test_a_machine_is_a_row_and_one_that_is_silent_says_so() -> None:
    *_, first, second = rows(doctor._machines(findings(HEAD, SILENT)))
    assert [cell.strip() for cell in first] == ["box (head)", "8", "16.0", "2 x A10G, 1 x T4", "550.1", "1.5"]
    assert [cell.strip() for cell in second] == ["far", "no answer", "-", "-"]


def test_versions_clock_and_storage() -> None:
    *_, first, second = rows(doctor._versions(findings(HEAD, SILENT)))
    assert [cell.strip() for cell in first] == ["box (head)", "3.11.7", "2.60.0", "-", "0.1.0", "+0.2 ± 0.1", "yes"]
    assert [cell.strip() for cell in second] == ["far", "-", "-", "-", "-", "-", "-"]


def test_which_ray_and_whether_every_node_can_use_the_storage() -> None:
    assert doctor._ray(findings(ray=False), "") == "2.60.0 here, not to be had"
    assert doctor._ray(findings(HEAD), "10.0.0.1:6379") == "2.60.0, 10.0.0.1:6379, 1 node"
    assert doctor._ray(findings(HEAD, SILENT), "auto") == "2.60.0, auto, 2 nodes"
    assert doctor._ray(findings(HEAD), "") == "2.60.0, started and ended on this machine"
    assert doctor._stored(findings(HEAD))
    assert not doctor._stored(findings(HEAD, SILENT))


def test_gpus_that_only_ray_counts_are_said_to_be_so() -> None:
    assert doctor._gpus(Machine("a", False, VERSIONS, ray_gpus=0.5)) == "0.5 by Ray's count"
    assert doctor._clock(Machine("a", False, VERSIONS, skew_ms=-5000.4, skew_error_ms=2.0)) == "-5000 ± 2"
