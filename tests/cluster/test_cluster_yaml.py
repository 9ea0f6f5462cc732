"""cluster.yaml and cluster.onprem.yaml, without a cluster: Ray's own checks, and what the comments promise."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import click
import pytest
import ray
import typer
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.event_logger import AutoscalerEventLogger
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from raydistill.cli.main import app

ROOT = Path(__file__).parents[2]
FILES = ("cluster.yaml", "cluster.onprem.yaml")
COMMANDS = (
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
MACHINES = {"m6i.xlarge": (4, 0, 16), "g5.xlarge": (4, 1, 16)}
"""vCPUs, GPUs and GiB, from AWS's list of instance types."""


def text(name: str) -> str:
    return (ROOT / name).read_text()


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load(text(name))


def shell_commands(name: str) -> list[str]:
    config = content(name)
    return [command for key in (*COMMANDS, "initialization_commands") for command in config.get(key, [])]


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(name: str) -> None:
    validate_config(prepare_config(content(name)))


def test_both_install_and_start_the_same() -> None:
    aws, own = content("cluster.yaml"), content("cluster.onprem.yaml")
    for key in COMMANDS:
        ours = [
            command.replace("STORE=/shared/raydistill ", "STORE=s3://MY-BUCKET/raydistill ").replace(
                "RAY_enable_autoscaler_v2=0 ", ""
            )
            for command in own.get(key, [])
        ]
        assert ours == aws.get(key, []), key
    for key in ("cluster_name", "file_mounts", "rsync_exclude", "cluster_synced_files"):
        assert own[key] == aws[key], key


@pytest.mark.parametrize("name", FILES)
def test_commands_are_what_a_shell_takes(name: str) -> None:
    for command in shell_commands(name):
        subprocess.run(["bash", "-n", "-c", f"({command})"], check=True)  # in brackets, as Ray runs them


@pytest.mark.parametrize("name", FILES)
def test_servers_listen_on_loopback(name: str) -> None:
    said = " ".join(shell_commands(name))
    hosts = re.findall(r"--(?:dashboard-)?host[ =](\S+)", said)
    assert hosts == ["127.0.0.1", "127.0.0.1"]  # MLflow's and the dashboard's
    assert "0.0.0.0" not in text(name)


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_in_the_file(name: str) -> None:
    said = text(name).replace("postgresql://user:password@host/db", "")
    assert not re.search(r"AKIA|BEGIN |password|[0-9a-f]{32}|(?i:secret|token)\s*[:=]\s*['\"]?\w{8}", said)
    assert content(name)["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "export RAY_AUTH_MODE=token" in said


def test_what_has_to_be_edited_is_marked_and_little() -> None:
    marked = {name: [line for line in text(name).splitlines() if line.endswith("# EDIT")] for name in FILES}
    assert len(marked["cluster.yaml"]) == 3
    assert len(marked["cluster.onprem.yaml"]) == 5
    outside_comments = [line for line in text("cluster.yaml").splitlines() if not line.startswith("#")]
    for placeholder in ("MY-BUCKET", "us-west-2", "ami-0123456789abcdef0"):
        lines = [line for line in outside_comments if placeholder in line and not line.startswith("  #")]
        assert lines
        assert all(line.endswith("# EDIT") for line in lines), lines


def test_the_machines_are_what_the_table_says() -> None:
    config, rows = content("cluster.yaml"), {}
    for line in text("cluster.yaml").splitlines():
        words = line.removeprefix("#").split()
        if len(words) >= 6 and words[0] in config["available_node_types"] and words[2].isdigit():
            rows[words[0]] = (words[1], *map(int, words[2:5]))
    assert set(rows) == set(config["available_node_types"])
    for name, kind in config["available_node_types"].items():
        instance, *amounts = rows[name]
        assert instance == kind["node_config"]["InstanceType"]
        assert tuple(amounts) == MACHINES[instance]
        if name == config["head_node_type"]:
            assert kind["resources"] == {"CPU": 0}
        else:
            assert kind["resources"] == {"CPU": amounts[0], "GPU": amounts[1]}


@pytest.mark.slow
def test_aws_takes_the_machines() -> None:
    """Names and types of all that is said about a machine, against the description of EC2 that AWS's client has."""
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in content("cluster.yaml")["available_node_types"].items():
        report = ParamValidator().validate({**kind["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert kind["node_config"]["IamInstanceProfile"]["Name"].startswith("raydistill-")


def plan(demand: list[dict[str, float]], failed: Mapping[str, float] = {}) -> dict[str, int]:
    """What Ray's autoscaler would launch for these waiting trials; failed: types that AWS has none of."""
    config = AutoscalingConfig(content("cluster.yaml"), skip_content_hash=True)
    requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(each) for each in demand])
    reply = ResourceDemandScheduler(AutoscalerEventLogger(None)).schedule(
        SchedulingRequest(
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_worker_nodes(),  # this plan has no head in it
            disable_launch_config_check=True,
            resource_requests=requests,
            recoverable_resource_availabilities=dict(failed),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type != "head"}


TRIAL = {"CPU": 1.0, "GPU": 1.0}


@pytest.mark.slow
def test_workers_come_from_nothing_spot_first_on_demand_where_there_is_none() -> None:
    assert plan([]) == {}
    assert plan([TRIAL]) == {"gpu_spot": 1}
    assert plan([TRIAL] * 5) == {"gpu_spot": 5}
    assert plan([TRIAL] * 100) == {"gpu_spot": 8}
    assert plan([TRIAL] * 3, {"gpu_spot": 0.0}) == {"gpu_on_demand": 3}
    assert plan([{"CPU": 1.0, "GPU": 0.25}] * 4) == {"gpu_spot": 1}
    assert plan([{"CPU": 1.0}]) == {"gpu_spot": 1}  # the head is not for trials


def test_ray_is_pinned_to_what_is_installed_here() -> None:
    (extra,) = re.findall(r"^cluster = \[(.*)\]$", text("pyproject.toml"), re.MULTILINE)
    pins = dict(re.findall(r"(\w+)\[[\w,]+\]==([\d.]+)", extra))
    assert pins["ray"] == ray.__version__
    for name in FILES:
        assert sum("[cluster]" in command for command in content(name)["setup_commands"]) == 1


@pytest.mark.slow
def test_the_roles_of_the_comment_are_made() -> None:
    """The comment's commands, run with an `aws` that writes down what it is told."""
    lines = [line.removeprefix("#") for line in text("cluster.yaml").splitlines() if line.startswith("#        ")]
    script = "\n".join(lines[lines.index(next(line for line in lines if "for name in" in line)) :])
    told = f"aws() {{ {shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"; }}\n"
    output = subprocess.run(["bash", "-ec", told + script], capture_output=True, text=True, check=True).stdout
    calls = [json.loads(line) for line in output.splitlines()]
    model = botocore.session.get_session().get_service_model("iam")
    profiles: dict[str, list[str]] = {}
    for service, operation, *options in calls:
        assert service == "iam"
        given = dict(zip(options[::2], options[1::2], strict=True))
        camel = {"".join(part.title() for part in key.strip("-").split("-")): value for key, value in given.items()}
        name = "".join(part.title() for part in operation.split("-"))
        report = ParamValidator().validate(camel, model.operation_model(name).input_shape)
        assert not report.has_errors(), report.generate_report()
        for key, value in camel.items():
            if key.endswith("Document"):
                profiles.setdefault(camel["RoleName"], []).append(json.dumps(json.loads(value)))
    assert set(profiles) == {"raydistill-head", "raydistill-worker"}
    assert all(any("s3:*" in policy for policy in policies) for policies in profiles.values())
    assert any("iam:PassRole" in policy for policy in profiles["raydistill-head"])
    assert not any("iam:PassRole" in policy for policy in profiles["raydistill-worker"])


def commands_in(name: str) -> Iterator[list[str]]:
    """The words of each command of Ray's or ours that a reader is to type."""
    content = text(name)
    if name.endswith(".md"):  # what is fenced as bash, as if it were indented
        content = "\n".join(re.findall(r"^```bash\n(.*?)^```", content, re.MULTILINE | re.DOTALL))
        content = re.sub(r"^", "    ", content, flags=re.MULTILINE)
    for line in re.sub(r"\\\n#?\s*", " ", content).splitlines():
        line = re.sub(r"^#\s", "  ", line) if name.endswith(".yaml") else line
        found = re.search(r"(?:^    |:   )\s*((?:ray|raydistill) .*)", line)
        for part in found[1].split("&&") if found else []:
            words = shlex.split(part, comments=True)
            if words[0] in ("ray", "raydistill"):
                yield words


READABLE = ("docs/how-to/cluster.md", *FILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", READABLE)
def test_what_is_to_be_typed_can_be_parsed(name: str, monkeypatch) -> None:
    from ray.scripts.scripts import cli as ray_cli  # it brings all of Ray, which takes seconds

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "environ", {**os.environ, "RAY_ADDRESS": ""})
    parsed = 0
    for words in commands_in(name):
        command: click.Command = ray_cli if words[0] == "ray" else typer.main.get_command(app)
        context, rest = click.Context(command), words[1:]
        while isinstance(command, click.Group):
            word, command, rest = command.resolve_command(context, rest)
            assert command is not None, words
            context = click.Context(command, parent=context, info_name=word)
        command.parse_args(context, list(rest))  # raises on what the command does not know
        parsed += 1
    assert parsed >= 2
