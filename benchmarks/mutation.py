"""Do the tests notice? One change at a time is made to a copy of the package, and its tests are run.

    python benchmarks/mutation.py --count 80 --seed 0 [--first 1] [--only 4 17] [--rooms search] [--slow]
    python benchmarks/mutation.py --of-its-name --each 8 [--modules sweep/record] [--rooms search]

A sample, by seed, of all places where a comparison, an arithmetic or logical operator, a number, a truth value, a
condition, a returned value or a call's effect can be changed. A changed line is *noticed* when a test of its module's
name fails (slow ones too), or a quick one of its room, or one of all the quick tests; with --slow also its room's slow
ones (those that start Ray among them), which take minutes: best for what is left alone, with --only. Prints the changes
that nobody noticed and the score. Hours for large samples: run it by hand.

The second form shows where tests are loose: so many changes of each module, held against the tests of its name alone
(a second or two each), and a count for each module at the end.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import copy
import importlib
import os
import py_compile
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("compression", "search", "sweep", "training", "tracking", "storage")
QUICK = "not ray and not slow and not cluster and not long and not gpu"
OF_ITS_NAME = "not ray and not cluster and not long and not gpu"
_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One changed line. source: the whole file with it."""

    file: Path
    line: int
    before: str
    after: str
    source: str


def places(file: Path) -> list[int]:
    """The numbers of the nodes of a file that can be changed; annotations and texts are left alone."""
    nodes = enumerate(_nodes(ast.parse(file.read_text())))
    return [index for index, node in nodes if _change(copy.copy(node))]


def change_at(file: Path, index: int) -> Change:
    text = file.read_text()
    tree = ast.parse(text)
    node = list(_nodes(tree))[index]
    _change(node)
    return Change(file, node.lineno, text.splitlines()[node.lineno - 1].strip(), _near(tree, node), ast.unparse(tree))


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from _nodes(ast.Expr(node.value))
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.arg, ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            continue  # an error's words are not the point; that it is raised is changed at its condition
        if isinstance(node, ast.keyword) and node.arg == "strict":
            continue  # of zip: what is of one length stays so
        if isinstance(node, ast.FunctionDef):
            for part in (*node.args.defaults, *node.body):
                yield part
                yield from _nodes(part)
            continue
        if hasattr(node, "lineno"):
            yield node
        yield from _nodes(node)


def _change(node: Any) -> bool:
    """Change a node in place; False where there is nothing to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
        node.ops = [_SWAPS[type(node.ops[0])](), *node.ops[1:]]
        return True
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in _SWAPS:
        node.op = _SWAPS[type(node.op)]()
        return True
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return True
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
        return True
    if isinstance(node, ast.Return) and node.value is not None:
        if isinstance(node.value, ast.Constant):
            return False
        node.value = ast.Constant(None)
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        node.value = ast.Constant(None)
        return True
    return False


def _near(tree: ast.AST, changed: ast.AST) -> str:
    """The innermost statement around the change, as it reads now."""
    around = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and changed in ast.walk(node)]
    return ast.unparse(around[-1]).splitlines()[0]


def tests(house: Path, what: list[str], marks: str, limit_s: float) -> str:
    """The last lines of the first that fails, nothing where they all pass; running out of time is noticed too. A fork
    of this process runs them: it has the libraries already, and nothing of the package."""
    told = house.parent / "told"
    child = os.fork()
    if not child:
        os.setsid()
        told_to = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told_to, 1)
        os.dup2(told_to, 2)
        os.chdir(house)
        os.environ["PYTHONPATH"] = str(house)
        sys.path.insert(0, str(house))
        os._exit(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", marks, *what]))
    until = time.monotonic() + limit_s
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"not done after {limit_s:.0f} s"
        time.sleep(0.02)
    passed = os.waitstatus_to_exitcode(ended[1]) in (0, 5)
    return "" if passed else "\n".join(told.read_text(errors="replace").splitlines()[-20:])


def carried_over(temporary: Path) -> Path:
    """A copy of what is committed. Its bytecode holds good for the very text that it was made of."""
    house = temporary / "house"
    house.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "x", "-C", str(house)], input=archive.stdout, check=True)
    if (ROOT.parent / "shared").exists():
        (temporary / "shared").symlink_to(ROOT.parent / "shared")
    by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(house / "raydistill", quiet=1, invalidation_mode=by_hash)
    sys.dont_write_bytecode = True
    for library in ("torchvision", "torch._dynamo", "pandas", "hypothesis", "typer"):
        importlib.import_module(library)
    return house


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=1, help="of the sample, to go on from there")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="of the sample, by their numbers")
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--modules", nargs="*", default=[""], help="what their paths in the package begin with")
    parser.add_argument("--each", type=int, help="so many of each module, in place of --count of all")
    parser.add_argument("--of-its-name", action="store_true", help="by the tests of a module's name alone")
    parser.add_argument("--slow", action="store_true", help="where the quick tests notice nothing, the slow ones too")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of one run of tests")
    asked = parser.parse_args()
    tried: Counter[str] = Counter()
    unnoticed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        house = carried_over(Path(temporary))
        package = house / "raydistill"
        files = sorted(file for room in asked.rooms for file in (package / room).rglob("*.py"))
        files = [file for file in files if str(file.relative_to(package)).startswith(tuple(asked.modules))]
        of_file = {file: [(file, index) for index in places(file)] for file in files}
        every = [place for found in of_file.values() for place in found]
        drawn = random.Random(asked.seed)
        if asked.each is None:
            sample = drawn.sample(every, min(asked.count, len(every)))
        else:
            sample = [place for found in of_file.values() for place in drawn.sample(found, min(asked.each, len(found)))]
        print(f"{len(every):,} possible changes in {len(files)} files; {len(sample)} of them, seed {asked.seed}")
        if not asked.of_its_name and (failed := tests(house, ["tests"], QUICK, 3 * asked.limit)):
            sys.exit(f"the tests fail without any change:\n{failed}")
        numbered = [(n, *place) for n, place in enumerate(sample, 1) if n >= asked.first and n in (asked.only or [n])]
        for number, file, index in numbered:
            change = change_at(file, index)
            whole = file.read_text()
            begun = time.monotonic()
            module = file.relative_to(package)
            room = module.parts[0]
            of_its_name = module.parent / f"test_{module.name}"
            try:
                file.write_text(change.source)
                noticed = ""
                if (house / "tests" / of_its_name).exists():
                    for marks in (QUICK, f"slow and {OF_ITS_NAME}"):
                        noticed = noticed or tests(house, [f"tests/{of_its_name}"], marks, asked.limit)
                if not asked.of_its_name:
                    noticed = noticed or tests(house, [f"tests/{room}"], QUICK, asked.limit)
                    noticed = noticed or tests(house, ["tests", f"--ignore=tests/{room}"], QUICK, asked.limit)
                if not noticed and asked.slow:
                    slow = f"not cluster and not long and not ({QUICK})"
                    noticed = tests(house, [f"tests/{room}"], slow, 3 * asked.limit)
            finally:
                file.write_text(whole)
            tried[str(module)] += 1
            unnoticed[str(module)] += not noticed
            told = "noticed  " if noticed else "UNNOTICED"
            place = f"{file.relative_to(house)}:{change.line}"
            print(f"{number:>4} {told} {time.monotonic() - begun:6.1f} s  {place}", flush=True)
            if not noticed:
                print(f"       - {change.before}\n       + {change.after}", flush=True)
        if asked.each is not None:
            for name in sorted(tried, key=lambda name: -unnoticed[name] / tried[name]):
                print(f"{unnoticed[name]:>4} of {tried[name]:>3} unnoticed  {name}")
        done = len(numbered)
        left = unnoticed.total()
        print(f"noticed: {done - left} of {done}, {100 * (done - left) / max(1, done):.0f} %")


if __name__ == "__main__":
    main()
