"""The hosts that other tests need: they end with whom they belong to, and their absence is an error."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import Network, install_tools
from tests.launching import ROOT

pytestmark = pytest.mark.cluster


def test_hosts_reach_each_other_by_name_and_nobody_else(tmp_path: Path) -> None:
    install_tools()
    network = Network(tmp_path, "one", "two")
    try:
        one, two = network.hosts
        assert sorted(one.run("ls /proc/sys/net/ipv4/conf", 30)[1].split()) == ["all", "default", "eth0", "lo", "two"]
        ssh = "ssh -o StrictHostKeyChecking=no -o ConnectTimeout=5 two"
        assert one.run(f"{ssh} hostname", 30)[1].splitlines()[-1] == "two"
        network.pull_cable(two)
        assert one.run(f"{ssh} hostname", 30)[0] == 255
        network.plug_in(two)
        assert one.run(f"{ssh} 'nohup sleep 1000 >/dev/null 2>&1 & touch ~/here'", 30)[0] == 0
        assert list(two.processes().values()) == ["sleep 1000"]
        assert not one.processes()
        network.power_cut(two)
        network.boot(two)
        assert one.run(f"{ssh} ls", 30)[1].splitlines()[-2:] == ["apex-mario", "here"]
        assert not two.processes()
    finally:
        network.close()


def test_hosts_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    install_tools()
    code = (
        "import sys, time; from pathlib import Path; from tests.cluster.hosts import Network\n"
        "network = Network(Path(sys.argv[1]), 'one', 'two')\n"
        "print(*(host.init for host in network.hosts), network.folder, flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    *pids, folder = process.stdout.readline().split()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert folder not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(folder)  # the disks are all that stays


def test_where_namespaces_cannot_be_made_a_network_is_an_error() -> None:
    code = "import sys; from pathlib import Path; from tests.cluster.hosts import Network; Network(Path(), 'one')"
    refused = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert refused.returncode == 1
    assert "RuntimeError: no namespaces for a host can be made here: unshare: " in refused.stderr
