"""The command line: quick help, one line an error, exit code 2, a dry run that starts nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import ray
import torch
import typer
import yaml

from raydistill.cli.main import app
from tests.cli.conftest import Ended

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "search_spaces" / "simplenet.yaml"
Command = Callable[..., Ended]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([command, "--help"] for command in ("sweep", "init", "compress", "summary", "sensitivity", "doctor")),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["raydistill", *{arguments!r}]
from raydistill.cli.main import run
try:
    run()
finally:
    heavy = {{"torch", "ray", "mlflow", "numpy", "pandas"}} & set(sys.modules)
    assert not heavy, heavy
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Usage" in ended.stdout


def test_version(raydistill: Command) -> None:
    try:
        expected = version("raydistill")
    except PackageNotFoundError:
        expected = "not installed"
    assert expected in raydistill("--version").out


@pytest.mark.slow
def test_no_such_file(raydistill: Command, tmp_path: Path) -> None:
    (tmp_path / "simplenet.yaml").write_text("{}")
    ended = raydistill("sweep", tmp_path / "simplnet.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: {tmp_path}/simplnet.yaml: no such file; did you mean 'simplenet.yaml'?\n"


@pytest.mark.slow
def test_every_fault_is_a_line_and_nothing_is_started(raydistill: Command, tmp_path: Path) -> None:
    space = yaml.safe_load(SPACE.read_text())
    space["training"]["epoch"] = 3
    space["schedule"]["pruners"]["agp"]["class"] = "AutomatedGradualPrunner"
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(space))
    ended = raydistill("sweep", file, "--storage", tmp_path / "sweeps")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    lines = ended.err.splitlines()
    assert lines == [f"error: {file}: training.epoch: unknown key; did you mean 'epochs'?"]
    del space["training"]["epoch"]
    file.write_text(yaml.safe_dump(space))
    (line,) = raydistill("sweep", file, "--storage", tmp_path / "sweeps").err.splitlines()
    assert line.startswith(
        f"error: {file}: schedule.pruners.agp.class: unknown pruner class, got 'AutomatedGradualPrunner'"
    )
    assert "did you mean 'AutomatedGradualPruner'" in line
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_missing_data_folder(raydistill: Command, tmp_path: Path) -> None:
    ended = raydistill("sweep", SPACE, "--data-dir", tmp_path / "gone", "--storage", tmp_path / "sweeps")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert f"dataset.data_dir: no such file or folder, got '{tmp_path}/gone'" in ended.err
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_an_image_that_cannot_be_decoded_is_named(raydistill: Command, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                (folder / f"{i}.png").write_bytes(b"no image at all")
    space = yaml.safe_load(SPACE.read_text())
    space["dataset"] = {"name": "imagefolder", "data_dir": str(tmp_path / "images"), "image_size": [32, 32]}
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(space))
    ended = raydistill("sweep", file, "--storage", tmp_path / "sweeps")
    assert ended.code == 2
    assert str(tmp_path / "images") in ended.err
    assert ".png" in ended.err
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_dry_run_prints_space_and_resources_and_starts_nothing(
    raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ray.is_initialized()
    ended = raydistill("sweep", SPACE, "--dry-run", "--dataset", "digits", "--num-samples", "3", "--epochs", "30")
    assert (ended.code, ended.err) == (0, "")
    for part in (
        "per_layer.fc1.weight.final_sparsity",
        "uniform(0, 0.99)",
        "policies.agp.frequency",
        "choice(1, 2, 3, 4)",
        "61,770 weights",
        "digits, 1,",
        "3 of 30 epochs, seed 0",
        "CPU a trial",
        "sweeps/simplenet",
    ):
        assert part in ended.out, part
    assert max(map(len, ended.out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []
    assert ray.is_initialized() == before


def changed_space(tmp_path: Path, **changes: object) -> Path:
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(SPACE.read_text()), **changes}))
    return file


@pytest.mark.slow
def test_a_dry_run_shows_constraints_and_confirmation_and_no_password(raydistill: Command, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    file = changed_space(tmp_path, constraints=["top1_drop <= 0.01"], confirm=2, num_samples=3)
    ended = raydistill("sweep", file, "--dry-run", "--dataset", "digits", "--cpu", "--tracking-uri", uri)
    assert (ended.code, ended.err) == (0, "")
    assert "constraints: top1_drop <= 0.01" in ended.out
    assert "each front member 2 times more" in ended.out
    assert f"MLflow:      {uri}" in ended.out
    assert not (tmp_path / "m.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--epochs", "2")])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"lr_schedulers": {"d": {"class": "CosineAnealingLR", "T_max": 2}}}, "did you mean 'CosineAnnealingLR'?"),
        ({"lr_schedulers": {"d": {"class": "StepLR", "stepsize": 2}}}, "baseline.schedule"),
        ({"policies": [{"lr_scheduler": {"instance_name": "d"}, "epochs": ["x"]}]}, "baseline.schedule"),
        ({"policies": [{"lr_scheduler": {"instance_name": "d"}, "ending_epoch": [1]}]}, "baseline.schedule"),
        ({"policies": {"a": None}}, "baseline.schedule"),
    ],
)
def test_a_dry_run_checks_the_baselines_schedule(
    raydistill: Command, tmp_path: Path, schedule: dict[str, object], expected: str, options: tuple[str, ...]
) -> None:
    if "d" not in schedule.get("lr_schedulers", {}):  # type: ignore[operator]
        schedule = {"lr_schedulers": {"d": {"class": "StepLR", "step_size": 2}}, **schedule}
    policies = [{"lr_scheduler": {"instance_name": "d"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1}]
    file = changed_space(tmp_path, baseline={"epochs": 2, "schedule": {"policies": policies, **schedule}})
    ended = raydistill("sweep", file, "--dry-run", "--dataset", "digits", "--cpu", *options)
    assert ended.code == 2
    assert expected in ended.err
    assert all(line.startswith(f"error: {file}: baseline.schedule") for line in ended.err.splitlines())


@pytest.mark.slow
def test_a_dry_run_looks_where_it_would_go(raydistill: Command, tmp_path: Path) -> None:
    def dry(*options: object) -> Ended:
        return raydistill("sweep", SPACE, "--dry-run", "--dataset", "digits", "--storage", tmp_path, *options)

    assert "--resume: there is no sweep in" in dry("--resume").err
    assert "no MLflow server answers there" in dry("--tracking-uri", "http://me:secret@127.0.0.1:1").err
    assert "secret" not in dry("--tracking-uri", "http://me:secret@127.0.0.1:1").err
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        ended = dry("--address", address)
    assert ended.code == 2
    assert ended.err == (
        f"error: --address {address}: nothing answers there ([Errno 111] Connection refused); "
        "check 'ray status' there, or leave --address out\n"
    )


def test_more_trials_than_can_be_planned(raydistill: Command) -> None:
    ended = raydistill("sweep", SPACE, "--dry-run", "--num-samples", 10**8)
    assert ended.err.endswith("num_samples: must be at most 100000, got 100000000\n")


@pytest.mark.slow
def test_resume_without_a_sweep(raydistill: Command, tmp_path: Path) -> None:
    ended = raydistill("sweep", SPACE, "--resume", "--storage", tmp_path / "sweeps", "--dataset", "digits")
    assert ended.code == 2
    assert (
        ended.err
        == f"error: --resume: there is no sweep in {tmp_path}/sweeps/simplenet; leave --resume out to start it\n"
    )


@pytest.mark.ray
def test_resources_that_the_machine_lacks_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "search_spaces" / "simplenet.yaml").read_text()
    file = tmp_path / "space.yaml"
    file.write_text(text + "resources_per_trial: {cpu: 9999}\n")
    command = [sys.executable, "-c", "from raydistill.cli.main import run; run()", "sweep", str(file)]
    storage = tmp_path / "sweeps"
    result = subprocess.run(
        [*command, "--dataset", "digits", "--storage", str(storage)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "space.yaml: resources_per_trial.cpu: asks for cpu: 9999, this machine has" in result.stderr
    assert "starting Ray" not in result.stdout
    assert not storage.exists()


@pytest.mark.slow
def test_a_gpu_where_there_is_none_and_the_way_out(raydistill: Command, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    file = tmp_path / "space.yaml"
    file.write_text(SPACE.read_text() + "resources_per_trial: {gpu: 1}\n")
    asked = ("sweep", file, "--dataset", "digits", "--storage", tmp_path / "sweeps", "--dry-run")
    ended = raydistill(*asked)
    assert ended.code == 2
    assert ended.err == (
        f"error: {file}: resources_per_trial.gpu: asks for gpu: 1, this machine has none; "
        "use --cpu to run trials on CPU cores, or add a GPU\n"
    )
    ended = raydistill(*asked, "--cpu")
    assert ended.code == 0, ended.err
    assert "resources:   1 CPU a trial" in ended.out


@pytest.mark.parametrize("command", ["sweep", "compress", "check", "summary", "sensitivity", "doctor"])
def test_help_names_every_option_whole_at_80_columns(raydistill: Command, command: str) -> None:
    text = raydistill(command, "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    for parameter in found.params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert name in text, name


def test_help_says_each_command_in_a_whole_line(raydistill: Command) -> None:
    text = raydistill("--help").out
    assert not [line for line in text.splitlines()[1:] if line.endswith("...")]
    assert max(map(len, text.splitlines())) <= 80
