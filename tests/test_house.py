"""The house itself: which room imports which, what the engine drags in, and what a user's error looks like."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "raydistill"
FLOOR = {"errors", "metrics", "records", "resolve", "files", "locks", "masking", "tensor_file", "image_file"}
# Each room and the rooms it may import from, besides itself and the floor.
ROOMS = {
    "schedule": set(),
    "compression": {"schedule"},
    "models": {"compression"},
    "datasets": {"parts"},
    "tasks": {"parts", "schedule", "compression", "models", "datasets"},
    "training": {"parts", "schedule", "compression", "models", "datasets", "tasks"},
    "analysis": {"schedule", "compression", "models", "datasets", "tasks", "training"},
    "export": {"schedule", "compression", "models", "datasets", "tasks", "training", "analysis"},
    "adapters": {"compression", "training"},
    "parts": set(),
    "search": set(),
    "storage": set(),
    "tracking": set(),
    "cluster": {"schedule", "compression", "models", "datasets", "tasks", "training", "storage"},
    "sweep": {
        "parts",
        "schedule",
        "compression",
        "models",
        "datasets",
        "tasks",
        "training",
        "cluster",
        "search",
        "tracking",
        "storage",
        "export",
    },
}
ROOMS["cli"] = set(ROOMS)
ONLY_IN = {
    "ray": {"sweep", "cluster"}, "mlflow": {"tracking"}, "typer": {"cli"}, "rich": {"cli"}, "pyarrow": {"storage"},
    "lightning": {"adapters"},
}  # fmt: skip


@functools.cache
def nodes(path: Path) -> tuple[ast.Import | ast.ImportFrom | ast.Call, ...]:
    """What is looked at below; each module is read once."""
    found = ast.walk(ast.parse(path.read_text()))
    return tuple(node for node in found if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)))


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_go_up_only(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "raydistill" and len(parts) > 1 and parts[1] not in FLOOR | {"__version__"}:
                assert parts[1] in ROOMS[room] | {room}, f"{path.relative_to(PACKAGE)} imports {name}"
            if parts[0] in ONLY_IN:
                assert room in ONLY_IN[parts[0]], f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_floor_needs_nothing_of_the_house() -> None:
    for name in FLOOR:
        for imported in imports(PACKAGE / f"{name}.py"):
            heavy = {"torch", "numpy", "ray", "mlflow"} - {"tensor_file": {"torch"}, "image_file": {"numpy"}}.get(
                name, set()
            )
            assert imported.split(".")[0] not in heavy
            if imported.startswith("raydistill."):
                assert imported.split(".")[1] in FLOOR


@pytest.mark.slow  # a process that imports it all
def test_the_engine_drags_in_neither_ray_nor_mlflow_and_checking_a_sweep_is_quick() -> None:
    code = (
        "import sys, raydistill, raydistill.compression, raydistill.training\n"
        "from raydistill.training.determinism import training_environment\n"
        "with training_environment(1, deterministic=False): pass\n"  # torch's compiler takes longer than torch itself
        "print([n for n in ('ray', 'mlflow', 'pandas', 'matplotlib', 'torch._dynamo') if n in sys.modules])\n"
        "import raydistill.sweep.planning.plan\n"  # every trial's process imports it too
        "print([n for n in ('ray', 'mlflow', 'scipy.stats', 'optuna', 'torch._dynamo') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n") == ["[]", "[]", ""]


def test_every_module_has_tests_of_its_name() -> None:
    """An ``__init__`` may only hold a menu; what else it does is tested beside what is on it."""
    tests = Path(__file__).resolve().parent
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    without = [str(module) for module in modules if not (tests / module.parent / f"test_{module.name}").exists()]
    assert without == []


def test_every_public_name_is_there() -> None:
    import raydistill

    assert set(raydistill.__all__) == set(raydistill._HOMES)
    for name in raydistill.__all__:
        assert getattr(raydistill, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = raydistill.fitt


# Where something that could run what is in a file, or start a program, is called; and why it may be.
GUARDED = {
    "torch.load": {
        "tensor_file.py": "weights_only, and the listing is looked at first",
        "export/formats/pt2.py": "weights_only, to see that torch.export will not need more",
    },
    "torch.export.load": {"export/formats/pt2.py": "all of it is looked through first"},
    "yaml.load": {},  # `_Loader`, a SafeLoader, is used without it
    "yaml.dump": {"schedule/yaml_file.py": "a SafeDumper"},
    "Image.open": {"image_file.py": "formats of images only"},
    "importlib.import_module": {
        "__init__.py": "the package's own names",
        "resolve.py": "what the user names",
        "sweep/tune/memory_kills.py": "parts of Ray",
        "cluster/probe.py": "installed packages, by our own list",
    },
    "subprocess.run": {
        "cluster/probe.py": "fixed commands",
        "export/formats/safetensors.py": "this interpreter, a module that was written a moment ago",
    },
    "subprocess.Popen": {"datasets/decode.py": "this interpreter, our own code"},
    "np.load": {"datasets/decoded_cache.py": "without pickles"},
    "pickle.loads": {"sweep/trial/lazy.py": "what this sweep's driver packed a moment ago"},
}
NEVER = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "pickle.load",
    "marshal.loads",
    "yaml.unsafe_load", "yaml.full_load", "shelve.open", "torch.hub.load", "subprocess.call", "subprocess.check_output",
    "subprocess.check_call", "subprocess.getoutput", "joblib.load",
}  # fmt: skip


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    return [(_dotted(node.func), node) for node in nodes(path) if isinstance(node, ast.Call)]


def _dotted(node: ast.expr) -> str:
    """``torch.load``; of what is no dotted name, its last part: ``?.load``."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_what_could_run_code_is_called_where_it_is_argued_and_nowhere_else() -> None:
    found: dict[str, set[str]] = {name: set() for name in GUARDED}
    for path in PACKAGE.rglob("*.py"):
        place = str(path.relative_to(PACKAGE))
        for name, call in calls(path):
            assert name not in NEVER, f"{place}:{call.lineno} {name}"
            if name in GUARDED:
                found[name].add(place)
            words = {keyword.arg: keyword.value for keyword in call.keywords}
            shell = words.get("shell")
            assert shell is None or ast.literal_eval(shell) is False, f"{place}:{call.lineno} shell"
            if name == "torch.load":
                assert ast.literal_eval(words["weights_only"]) is True
            if name == "Image.open":
                assert "formats" in words, f"{place}:{call.lineno} opens what is no image too"
            if name == "np.load":
                assert ast.literal_eval(words["allow_pickle"]) is False
    assert found == {name: set(places) for name, places in GUARDED.items()}


def test_yaml_is_read_by_safe_loaders_only() -> None:
    import yaml

    from raydistill.schedule.yaml_file import _Dumper, _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    assert issubclass(_Dumper, yaml.SafeDumper)
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for unsafe in ("UnsafeLoader", "FullLoader", "yaml.Loader", "yaml.CLoader"):
            assert unsafe not in text, path


@functools.cache
def written_to(folder: Path) -> set[str]:
    """Names of attributes that something in a folder is assigned to."""
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    return set(re.findall(r"\.(\w+)(?:, [\w.]+)* [-+|&*/]?= ", text))


def test_values_that_nothing_is_written_to_are_frozen() -> None:
    """A dataclass whose fields nobody in its folder writes to, and which collects nothing, is the same to all who hold
    it: as it is passed from room to room, nobody can change it behind another's back."""
    open_ones = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        if "@dataclass" not in text:
            continue
        written = written_to(path.parent)
        for value in (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)):
            said = [ast.unparse(decorator) for decorator in value.decorator_list]
            if not any(each.startswith("dataclass") for each in said) or any("frozen=True" in each for each in said):
                continue
            fields = [node for node in value.body if isinstance(node, ast.AnnAssign)]
            collects = any(ast.unparse(node.annotation).startswith(("list[", "dict[", "set[")) for node in fields)
            if not collects and not written & {ast.unparse(node.target) for node in fields}:
                open_ones.append(f"{path.name}: {value.name}")
    assert open_ones == []
