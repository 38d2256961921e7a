"""A small network of hosts on this machine, for tests that need several machines.

A host is a set of Linux namespaces: processes, network, mounts, name and shared memory of its own, with an address, a
home that outlives a power cut, and an sshd. Its system is this machine's. The hosts' cables end in the first one, which
is the user's own machine; nothing leads out of that. All of it ends with this process, however that ends.

Needs Linux, root (in a container CAP_SYS_ADMIN and CAP_NET_ADMIN), util-linux, and Debian's openssh-server, rsync and
iproute2, which are installed if they are missing.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

USER, USER_ID = "mario", 4711
HOME = Path("/srv") / USER
PROJECT = HOME / "apex-mario"
SHARED = Path("/srv/shared")  # the same folder on all hosts, as from a file server
_NETWORK = "192.168.77"  # any will do: it is not connected to anything
_ENVIRONMENT = {
    "HOME": str(HOME),
    "USER": USER,
    "LOGNAME": USER,
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}
_TOOLS = {"/usr/sbin/sshd": "openssh-server", "/usr/bin/rsync": "rsync", "/usr/sbin/ip": "iproute2"}
_SSHD_CONFIG = """\
HostKey /etc/ssh/host_key
PasswordAuthentication no
UsePAM no
Subsystem sftp internal-sftp
"""
# Runs as the first process of a host: $1 its disk, $2 its name, $3 its address, $4 the user's virtual environment.
_BOOT = f"""
set -e
mount --bind -o ro "$4" "$1/home/apex-mario/.venv"
mount -t tmpfs -o mode=755 none /srv
mkdir {HOME}
mount --rbind "$1/home" {HOME}
mkdir {SHARED}
mount --bind "$1/../shared" {SHARED}
for file in "$1"/etc/*; do mount --bind "$file" "/etc/${{file##*/}}"; done
for folder in /tmp /dev/shm; do mount -t tmpfs -o mode=1777 none $folder; done
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd
hostname "$2"
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip address add "$3/24" dev eth0
ip link set eth0 up
ip route add default via {_NETWORK}.1 || true  # nothing is there, but Ray looks for its own address this way
/usr/sbin/sshd -D -e
"""


def install_tools() -> None:
    """Installs what hosts need and this machine lacks; starts no service.

    Raises:
        RuntimeError: the tools are missing and cannot be installed.
    """
    missing = sorted({package for path, package in _TOOLS.items() if not Path(path).exists()})
    if not missing:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    if new := not policy.exists():
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in ("update -qq", f"install -qq --no-install-recommends {' '.join(missing)}"):
            subprocess.run(["apt-get", *command.split()], check=True, capture_output=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"hosts need {', '.join(missing)}: apt-get install them ({error})") from error
    finally:
        if new:
            policy.unlink()


class Host:
    """A machine of the network; made by `Network.add`."""

    def __init__(self, name: str, address: str, disk: Path, environment: Path) -> None:
        self.name = name
        self.address = address
        self.home = disk / "home"
        self._disk = disk
        self._environment = environment
        self._unshare: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[str]] = []
        self.init = 0  # process id of its first process, as seen from outside; 0: it is off

    def boot(self) -> None:
        """Starts it, as far as its cable.

        Raises:
            RuntimeError: namespaces cannot be made here.
        """
        # It ends with this process, even if that is killed: the kernel sees to it.
        unshare = "setpriv --pdeathsig KILL unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc"
        script = ["bash", "-c", _BOOT, "boot", str(self._disk), self.name, self.address, str(self._environment)]
        with self._log.open("w") as log:
            process = subprocess.Popen([*unshare.split(), *script], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._unshare = process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None:
            if found := children.read_text().split():
                self.init = int(found[0])
                return
            time.sleep(0.05)
        raise RuntimeError(f"no namespaces for a host can be made here: {self._log.read_text().strip()}")

    def wait_until_up(self) -> None:
        """Returns once its sshd listens."""
        deadline = time.monotonic() + 60
        while "Server listening" not in self._log.read_text():
            if self._unshare is None or self._unshare.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not come up: {self._log.read_text()}")
            time.sleep(0.1)

    def switch_off(self) -> None:
        """Ends all its processes at once; nothing happens if it is off."""
        if self._unshare is not None:
            self._unshare.kill()
            self._unshare.wait()
            self._unshare = None
            while self.init and _living(self.init):
                time.sleep(0.05)
            self.init = 0
        for process in self._started:
            process.communicate()
        self._started.clear()

    def start(self, line: str) -> "subprocess.Popen[str]":
        """A line of bash that runs here as the user, in the project's folder; both outputs come in one."""
        setpriv = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups"]
        environment = ["env", "-i", *(f"{name}={value}" for name, value in _ENVIRONMENT.items())]
        process = subprocess.Popen(
            [*self.enter, *setpriv, *environment, "bash", "-c", f"cd {PROJECT} && {line}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, line: str, timeout_s: float = 120) -> tuple[int, str]:
        """Exit status and output of such a line."""
        process = self.start(line)
        self._started.remove(process)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            raise AssertionError(f"{self.name}: {line!r} has not ended after {timeout_s} s: {output}") from None
        return process.returncode, output

    def processes(self) -> dict[int, str]:
        """Titles of its processes by process id as seen from outside, its first one and sshd's apart."""
        namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == namespace:
                    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(entry.name)] = title
        return {pid: title for pid, title in found.items() if title and pid != self.init and "sshd" not in title}

    @property
    def enter(self) -> list[str]:
        """What a command is prefixed with to run here as root."""
        return ["nsenter", "--target", str(self.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--"]

    @property
    def _log(self) -> Path:
        return self._disk / "boot.log"


class Network:
    """The hosts. `close` it: that removes them all, from a network that is half made too.

    Args:
        environment: folder that each host has as the project's .venv, read-only.
        names: of the hosts; the first is the user's own machine, which has the switch.
    """

    def __init__(self, environment: Path, *names: str) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("hosts can be made by root alone")
        self.folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self.folder.chmod(0o755)
        (self.folder / "shared").mkdir()
        os.chown(self.folder / "shared", USER_ID, USER_ID)
        self.hosts: list[Host] = []
        try:
            for number, name in enumerate(names, 1):
                self.hosts.append(self._make(name, f"{_NETWORK}.{number}", environment))
            self._write_etc()
            for host in self.hosts:
                self.boot(host)
        except BaseException:
            self.close()
            raise

    def boot(self, host: Host) -> None:
        """Switches it on and plugs it in."""
        host.boot()
        if host is self.hosts[0]:
            self._ip("link add eth0 type bridge")
        else:
            # The same hardware address after each boot, as others remember it.
            mac = f"02:00:00:00:00:{self.hosts.index(host):02x}"
            self._ip(f"link add {host.name} type veth peer name eth0 address {mac} netns {host.init}")
            self._ip(f"link set {host.name} master eth0 up")
        host.wait_until_up()

    def power_cut(self, host: Host) -> None:
        """Ends all its processes at once; its home stays."""
        self._ip(f"link delete {host.name}")
        host.switch_off()

    def pull_cable(self, host: Host) -> None:
        """Cuts it off; it runs on."""
        self._ip(f"link set {host.name} down")

    def plug_in(self, host: Host) -> None:
        """The end of that."""
        self._ip(f"link set {host.name} up")

    def close(self) -> None:
        """Ends and removes everything."""
        for host in reversed(self.hosts):
            host.switch_off()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ip(self, command: str) -> None:
        switch = f"--net=/proc/{self.hosts[0].init}/ns/net"
        subprocess.run(["nsenter", switch, "ip", *command.split()], check=True, capture_output=True, text=True)

    def _make(self, name: str, address: str, environment: Path) -> Host:
        disk = self.folder / name
        (disk / "etc/ssh").mkdir(parents=True)
        (disk / "home/apex-mario/.venv").mkdir(parents=True)
        (disk / "home/.ssh").mkdir(mode=0o700)
        key = disk / "etc/ssh/host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        (disk / "etc/ssh/sshd_config").write_text(_SSHD_CONFIG)
        return Host(name, address, disk, environment)

    def _write_etc(self) -> None:
        """Names, users and keys: the first host's user may log in at the others."""
        key = self.folder / self.hosts[0].name / "home/.ssh/id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        users = [line for line in Path("/etc/passwd").read_text().splitlines() if line.startswith(("root:", "sshd:"))]
        files = {
            "etc/hosts": ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in self.hosts)],
            "etc/resolv.conf": [],
            "etc/passwd": [*users, f"{USER}:*:{USER_ID}:{USER_ID}::{HOME}:/bin/bash"],
            "home/.ssh/authorized_keys": [key.with_suffix(".pub").read_text().strip()],
        }
        for host in self.hosts:
            for name, lines in files.items():
                (self.folder / host.name / name).write_text("".join(f"{line}\n" for line in lines))
            subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", host.home], check=True)


def _living(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
