"""Machines made of namespaces on this one: each has its own network, processes, /tmp, home folder, host name and sshd.

    laboratory (10.78.0.254: where `ray up` is typed, and PostgreSQL)
      bridge
        head 10.78.0.1    worker1 10.78.0.2    worker2 10.78.0.3

All of it stands inside one process namespace whose first process dies with the test: the kernel then ends every process
in it and takes down bridge, links and mounts. Nothing of this machine's own network is touched.

A host's home folder has an environment for the set-up commands of cluster.onprem.yaml to find, as a machine image may
have it: empty, but what the tests' Python has installed is importable there. So pip, which is told of no registry,
finds everything satisfied.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NET = "10.78.0"
LABORATORY = f"{NET}.254"
HOSTS = {"head": f"{NET}.1", "worker1": f"{NET}.2", "worker2": f"{NET}.3"}
TOOLS = ("ip", "ssh", "ssh-keygen", "rsync", "unshare", "nsenter", "setpriv", "flock", "/usr/sbin/sshd")

_WHERE, _PREFIX = "/var/tmp", "raydistill-hosts-"
_NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
_BOOT = """
set -e
mount --bind {folder}/tmp {stash}
for kept in {kept}; do mkdir -p {stash}$kept; mount --bind /tmp$kept {stash}$kept; done
mount --rbind {stash} /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size=1g tmpfs /dev/shm
mkdir /run/sshd
hostname {name}
for file in hosts passwd shadow; do mount --bind {folder}/$file /etc/$file; done
mount --bind {folder}/home {home}
ip link set lo up
exec {command}
"""
_SSHD = (
    "/usr/sbin/sshd -D -e -f /dev/null -h {folder}/hostkey -o PidFile=none -o UsePAM=no -o StrictModes=no "
    "-o PermitRootLogin=prohibit-password -o PasswordAuthentication=no -o AuthorizedKeysFile={key}.pub"
)


def missing() -> str:
    """Why there can be no hosts here; "" if there can."""
    if os.geteuid():
        return "network namespaces need root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (tests/cluster/run installs them)"
    attempt = subprocess.run(
        ["unshare", *_NAMESPACES, "sh", "-c", "ip link add name br0 type bridge && mount -t tmpfs tmpfs /mnt"],
        capture_output=True,
        text=True,
    )
    return f"namespaces are not allowed here: {attempt.stderr.strip()}" if attempt.returncode else ""


@dataclass
class Machine:
    """pid: of its first process, as this machine counts. home: its home folder as it is seen from outside."""

    name: str
    address: str
    folder: Path
    pid: int = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def tilde(self) -> Path:
        """The home folder's path on the machine itself: the same on all, as it is where one user has them all."""
        return self.folder.parent / "home"

    def command(self, *words: str | Path, cwd: Path | None = None) -> list[str]:
        """A command line that runs these words on the machine, in its home folder or in `cwd`."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--pid"]
        settings = [f"HOME={self.tilde}", "RAY_AUTH_MODE=token", "PYTHONUNBUFFERED=1", f"PATH={_path()}"]
        chdir = f"--chdir={cwd or self.tilde}"
        return [*enter, "--", "env", "-i", chdir, *settings, *(str(word) for word in words)]

    def start(self, *words: str | Path, log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Run in the background, for as long as the laboratory stands at most; its stdin stays open."""
        with log.open("ab") as output:
            return subprocess.Popen(self.command(*words, cwd=cwd), stdin=subprocess.PIPE, stdout=output, stderr=output)

    def run(self, *words: str | Path, cwd: Path | None = None, timeout: float = 300) -> str:
        """Run to its end; gives what it printed.

        Raises:
            AssertionError: it failed.
        """
        result = subprocess.run(
            self.command(*words, cwd=cwd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert result.returncode == 0, f"{shlex.join(map(str, words))}\n{result.stdout}"
        return result.stdout


@dataclass
class Laboratory(Machine):
    """folder: where all is kept, readable by everyone. shared: a folder that every host sees. key: ssh's."""

    hosts: dict[str, Machine] = field(default_factory=dict)

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def cut(self, name: str) -> None:
        """Pull the host's network cable; what runs there runs on."""
        self.run("ip", "link", "set", f"v-{name}", "down")

    def mend(self, name: str) -> None:
        self.run("ip", "link", "set", f"v-{name}", "up")


@contextlib.contextmanager
def laboratory() -> Iterator[Laboratory]:
    """Three hosts that answer to ssh while the block runs."""
    _clear_killed()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_WHERE))
    folder.chmod(0o755)
    alive = _locked(folder)
    (folder / "home").mkdir()
    lab = Laboratory("laboratory", LABORATORY, folder / "laboratory")
    started: list[subprocess.Popen[bytes]] = []
    try:
        _furnish(lab)
        lab.shared.mkdir()
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", lab.key)
        started.append(_boot(lab, "sleep", "env --ignore-signal=CHLD sleep infinity", []))
        for line in ("link add name bridge type bridge", f"addr add {LABORATORY}/24 dev bridge", "link set bridge up"):
            lab.run("ip", *line.split())
        for name, address in HOSTS.items():
            host = lab.hosts[name] = Machine(name, address, folder / name)
            _furnish(host)
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host.folder / "hostkey")
            started.append(_boot(host, "sshd", _SSHD.format(folder=host.folder, key=lab.key), _enter(lab)))
            _wire(lab, host)
        for host in lab.hosts.values():
            _await_ssh(lab, host)
        yield lab
    finally:
        for process in started:  # the laboratory first: the kernel ends all that is in it
            process.kill()
            process.wait()
        _await_end(lab)
        shutil.rmtree(folder, ignore_errors=True)
        if alive is not None:
            os.close(alive)


def _locked(folder: Path) -> int | None:
    """Hold this folder for as long as this process lives; None: another one holds it."""
    file = os.open(folder / "alive", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _clear_killed() -> None:
    """Folders of tests that were killed; the kernel has ended what ran there, and nobody removed them."""
    for folder in Path(_WHERE).glob(f"{_PREFIX}*"):
        file = _locked(folder)
        if file is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(file)


def _furnish(machine: Machine) -> None:
    """Its folders and the files of /etc that are its own."""
    for name in ("tmp", "stash", "home"):
        (machine.folder / name).mkdir(parents=True)
    (machine.folder / "tmp").chmod(0o1777)
    names = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
    (machine.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    users = Path("/etc/passwd").read_text().splitlines()
    root = f"root:x:0:0:root:{machine.tilde}:/bin/bash"
    (machine.folder / "passwd").write_text("\n".join([root, *(u for u in users if not u.startswith("root:"))]) + "\n")
    (machine.folder / "shadow").write_text("root:*:19000:0:99999:7:::\n")
    environment = machine.home / "raydistill-env"
    packages = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages / "of-the-tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    for script, entry in (("pip", "pip._internal.cli.main:main"), ("ray", ""), ("mlflow", "")):
        _script(environment / "bin" / script, machine.tilde / "raydistill-env/bin/python", script, entry)
    (machine.home / ".bashrc").write_text(f"PATH={_path()}\n")
    (machine.home / ".profile").write_text(". ~/.bashrc\n")
    (machine.home / ".config" / "pip").mkdir(parents=True)
    (machine.home / ".config" / "pip" / "pip.conf").write_text(
        "[global]\nno-index = true\ndisable-pip-version-check = true\n[install]\nno-build-isolation = false\n"
    )  # to pip, that false means: no isolation


def _script(path: Path, python: Path, name: str, entry: str) -> None:
    """What pip would have put into the environment's bin for a package that is importable there."""
    if not entry:
        from importlib.metadata import entry_points

        entry = next(point.value for point in entry_points(group="console_scripts", name=name))
    module, _, function = entry.partition(":")
    path.write_text(f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    path.chmod(0o755)


def _path() -> str:
    """The tests' own Python first: Ray wants the same version on all machines."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve().parent
    return f"{base}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _boot(machine: Machine, first: str, command: str, enter: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a machine; first: the name of its first process."""
    needed = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve())
    kept = sorted({f"/{path.parts[2]}" for path in needed if path.parts[1] == "tmp"})
    folder, stash = machine.folder, machine.folder / "stash"
    inside = {"folder": folder, "stash": stash, "home": machine.tilde, "kept": " ".join(kept)}
    boot = _BOOT.format(**inside, name=machine.name, command=command)
    words = ["setpriv", "--pdeathsig", "KILL", *enter, "unshare", *_NAMESPACES, "bash", "-c", boot]
    with (folder / "boot.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.name() == first:  # the script is through: it has become the command
                    machine.pid = child.pid
                    return process
        time.sleep(0.05)
    process.kill()
    raise RuntimeError((folder / "boot.log").read_text())


def _enter(lab: Machine) -> list[str]:
    return ["nsenter", "--target", str(lab.pid), "--net", "--mount", "--uts", "--pid", "--"]


def _wire(lab: Laboratory, host: Machine) -> None:
    net = ["nsenter", "--target", str(lab.pid), "--net", "--", "ip"]  # in our process namespace: host.pid is ours
    _run(*net, "link", "add", f"v-{host.name}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    _run(*net, "link", "set", f"v-{host.name}", "master", "bridge", "up")
    host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")


def _await_ssh(lab: Laboratory, host: Machine) -> None:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"]
    words = lab.command("ssh", *options, "-i", lab.key, f"root@{host.address}", "hostname")
    for _ in range(60):
        answer = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if answer.stdout.strip() == host.name:
            return
        time.sleep(0.5)
    raise RuntimeError(f"{host.name}: {answer.stderr}\n{(host.folder / 'boot.log').read_text()}")


def _await_end(lab: Machine) -> None:
    """The mounts are gone when the last process is."""
    deadline = time.monotonic() + 30
    while lab.pid and Path(f"/proc/{lab.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def postgres_folder() -> Path | None:
    """Where PostgreSQL's programs are: Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    users = {user.pw_name for user in pwd.getpwall()}
    return found[-1].parent if found and "postgres" in users else None
