"""Run a node in namespaces of its own: mounts, network, control plane, containerd, kubelet, kube-proxy, DNS.

The keeper starts this module as process 1 of new namespaces, so that the kernel ends every process of the node with
it. It answers requests on a Unix socket in the node's directory. It must never write outside that directory, nor change
a setting of the whole machine.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.controlplane import ControlPlane, Options
from harness.node import settings
from harness.node.image import write_archive
from harness.process import Component
from harness.waiting import eventually

INTERFACE = "node0"
API_PORT = 6443
READY_SECONDS = 240.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """What the keeper passes on: names, addresses, and where the parts are."""

    directory: Path
    name: str
    address: str
    gateway: str
    hierarchies: tuple[str, ...]
    parts: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> "Spec":
        """Read the file that the keeper wrote."""
        matches = json.loads(file.read_text())
        return cls(
            Path(matches["directory"]),
            matches["name"],
            matches["address"],
            matches["gateway"],
            tuple(matches["hierarchies"]),
            matches["parts"],
        )


def sh(*command: object) -> str:
    """Run a command. Raises AssertionError with its output unless it succeeds."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Node:
    """The node's processes, and what tests ask of them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.directory = spec.directory
        self.programs = {name: Path(place) for name, place in spec.parts["programs"].items()}
        self.control = ControlPlane(
            Path(spec.parts["controlplane"]), Options(scheduler=True, address=spec.address, port=API_PORT)
        )
        self.environment = {
            "PATH": f"{self.programs['containerd'].parent}:{PATH}",
            "HOME": str(self.directory),
            "LC_ALL": "C",
        }
        self.requests: dict[str, Callable[..., Any]] = {
            "kubeconfig": self.kubeconfig,
            "certificate": self.certificate,
            "webhook_client_ca": lambda: str(self.control.webhook_client_ca),
            "restart": self.restart,
            "run": self.run,
            "spawn": self.spawn,
            "signal": os.kill,
            "processes": self.processes,
            "kill_containers": self.kill_containers,
            "reboot": self.reboot,
            "log": lambda name: self.component(name).tail(200),
        }

    def component(self, name: str) -> Component:
        """Return one of the node's programs."""
        return self.control.component(name)

    def start(self) -> None:
        """Start everything; return when the node is ready."""
        self.mounts()
        self.network()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            images = pool.submit(self.runtime)
            self.control.start()
            images.result()
        self.start_kubelet()
        self.start_network_programs()
        self.control.apply(*settings.dns_objects(self.spec.address))
        eventually(self.is_ready, "the node is ready", seconds=READY_SECONDS, give_up=self.first_exited)

    def first_exited(self) -> str | None:
        """Return why the node can never become ready, None while it can."""
        for name in ("containerd", "kubelet", "kube-proxy", "coredns"):
            component = self.component(name)
            if not component.running:
                return f"{name} exited\n{component.tail()}"
        return None

    def mounts(self) -> None:
        """Give the node its own /sys, /run, /var/lib and /var/log, and the unpacked packages on /usr."""
        root = self.spec.parts["debian"]
        if root != "/":
            sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={root}/usr:/usr", "/usr")
        aside = self.directory / "cgroups"
        for name in (
            "cgroups",
            "varlib/upper",
            "varlib/work",
            "varlog",
            "kubelet",
            "cni",
            "sysctl",
            "volumeplugins",
        ):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        sh("mount", "--rbind", "/sys/fs/cgroup", aside)
        sh("mount", "-t", "sysfs", "sysfs", "/sys")
        sh("mount", "--rbind", aside, "/sys/fs/cgroup")
        options = (
            f"lowerdir=/var/lib,upperdir={self.directory}/varlib/upper,workdir={self.directory}/varlib/work"
        )
        sh("mount", "-t", "overlay", "overlay", "-o", options, "/var/lib")
        sh("mount", "--bind", self.directory / "varlog", "/var/log")
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        Path("/var/lib/kubelet").mkdir(exist_ok=True)
        sh("mount", "--bind", self.directory / "kubelet", "/var/lib/kubelet")
        for name, value in settings.SYSCTLS.items():
            if Path("/proc/sys", name).exists():
                file = self.directory / "sysctl" / name.replace("/", ".")
                file.write_text(f"{value}\n")
                sh("mount", "--bind", file, f"/proc/sys/{name}")
        sh("mount", "--make-rshared", "/")

    def network(self) -> None:
        """Bring up the interfaces; the keeper has put one end of a pair here."""
        socket.sethostname(self.spec.name)
        eventually(lambda: Path("/sys/class/net", INTERFACE).exists(), "the keeper's interface", seconds=20)
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "addr", "add", f"{self.spec.address}/30", "dev", INTERFACE)
        sh("ip", "link", "set", INTERFACE, "up")
        sh("ip", "route", "add", "default", "via", self.spec.gateway)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        (self.directory / "resolv.conf").write_text(f"nameserver {settings.DNS_ADDRESS}\n")
        (self.directory / "cni" / "10-node.conflist").write_text(settings.cni("10.244.0.0/24"))

    def runtime(self) -> None:
        """Start containerd and load the images."""
        config = self.directory / "containerd.toml"
        config.write_text(settings.containerd(self.directory, self.programs["ptp"].parent))
        self.start_containerd()
        pause = self.directory / "pause.tar"
        write_archive(pause, settings.PAUSE, self.programs["pause"])
        for archive in (pause, *map(Path, self.spec.parts["archives"])):
            self.load(archive)

    def load(self, archive: Path) -> None:
        """Load an image archive into containerd."""
        command = [self.programs["ctr"], "--address", settings.SOCKET, "--namespace", "k8s.io"]
        sh(*command, "images", "import", "--local", archive)

    def start_containerd(self) -> None:
        """Start containerd and wait until it answers."""
        component = self.component("containerd")
        config = self.directory / "containerd.toml"
        component.start([self.programs["containerd"], "--config", config], self.environment)
        ctr = [self.programs["ctr"], "--address", settings.SOCKET, "version"]
        component.wait_ready(lambda: sh(*ctr), 60.0)

    def start_kubelet(self) -> None:
        """Start the kubelet; its credential is that of a node."""
        name = self.spec.name
        pair = self.control.server_certificate(f"kubelet-{name}", [name, self.spec.address])
        config = self.directory / "kubelet.yaml"
        config.write_text(
            settings.kubelet(
                self.directory, name, self.spec.address, self.control.ca, pair.certificate, pair.key
            )
        )
        self.component("kubelet").start(
            [
                self.programs["kubelet"],
                f"--config={config}",
                f"--kubeconfig={self.control.kubeconfig(f'system:node:{name}', ['system:nodes'])}",
                f"--hostname-override={name}",
                f"--node-ip={self.spec.address}",
                "--root-dir=/var/lib/kubelet",
                "--v=2",
            ],
            self.environment,
        )

    def start_network_programs(self) -> None:
        """Start kube-proxy and CoreDNS."""
        proxy = self.directory / "kube-proxy.yaml"
        proxy.write_text(settings.kube_proxy(self.spec.name, self.control.kubeconfig("system:kube-proxy")))
        command = [self.programs["kube-proxy"], f"--config={proxy}"]
        self.component("kube-proxy").start(command, self.environment)
        corefile = self.directory / "Corefile"
        corefile.write_text(settings.corefile(self.control.kubeconfig()))
        self.component("coredns").start([self.programs["coredns"], "-conf", corefile], self.environment)

    def is_ready(self) -> bool:
        """Return whether the node is ready and takes pods."""
        node = self.control.client().get(f"/api/v1/nodes/{self.spec.name}").ok()
        conditions = {entry["type"]: entry["status"] for entry in node["status"]["conditions"]}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    # What tests ask for.

    def kubeconfig(self, user: str | None = None, groups: list[str] | None = None) -> str:
        """Return the path of a kubeconfig for a user, or for the cluster admin."""
        return str(self.control.kubeconfig(user, groups or []))

    def certificate(self, name: str, hosts: list[str]) -> list[str]:
        """Return a server certificate of the cluster's CA, its key, and the CA."""
        pair = self.control.server_certificate(name, hosts)
        return [str(pair.certificate), str(pair.key), str(self.control.ca)]

    def restart(self, name: str) -> None:
        """Restart containerd, kubelet, kube-proxy or CoreDNS. Pods keep running."""
        component = self.component(name)
        command = Path(f"/proc/{component.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        component.stop()
        if name == "containerd":
            self.start_containerd()
        else:
            component.start(command, self.environment)

    def run(self, command: list[str], stdin: str = "", seconds: float = 60.0) -> list[Any]:
        """Run a command in the node's namespaces: exit code, stdout, stderr."""
        done = subprocess.run(
            command,
            input=stdin,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return [done.returncode, done.stdout, done.stderr]

    def spawn(self, name: str, command: list[str]) -> None:
        """Start a further program of the node, such as a device plugin, unless it runs."""
        if not self.component(name).running:
            self.component(name).start(command, self.environment)

    def processes(self, uid: str) -> list[dict[str, Any]]:
        """Return the processes of a pod: id and command line."""
        matches = []
        for process in sorted(self.container_processes()):
            with contextlib.suppress(OSError):
                if uid in Path(f"/proc/{process}/cgroup").read_text():
                    command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
                    matches.append({"pid": process, "command": command.replace("\0", " ")})
        return matches

    def container_processes(self) -> set[int]:
        """Return the process ids below the node's cgroups."""
        matches: set[int] = set()
        for hierarchy in self.spec.hierarchies:
            for file in Path(hierarchy, self.spec.name).rglob("cgroup.procs"):
                with contextlib.suppress(OSError, ValueError):
                    matches |= {int(line) for line in file.read_text().split()}
        return matches - {0}

    def kill_containers(self) -> int:
        """Kill every process of every container, as a crash of all of them would."""
        processes = self.container_processes()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(processes)

    def reboot(self) -> None:
        """End the kubelet, containerd and all containers, as a reboot of the node does; then start again."""
        for name in ("kubelet", "containerd"):
            self.component(name).kill()
        while self.kill_containers():
            time.sleep(0.2)
        for shim in self._shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim, signal.SIGKILL)
        self.start_containerd()
        self.start_kubelet()

    def _shims(self) -> Iterator[int]:
        program = self.programs["containerd-shim-runc-v2"]
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "exe").readlink() == program:
                    yield int(entry.name)

    def serve(self, listener: socket.socket) -> None:
        """Answer requests, one line of JSON each, until process 1 ends."""
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                request = json.loads(line)
                try:
                    answer = {"result": self.requests[request["do"]](*request["arguments"])}
                except Exception as error:  # noqa: BLE001 -- the other side raises it
                    answer = {"error": f"{error}"}
                stream.write(json.dumps(answer) + "\n")
                stream.flush()


def main(directory: Path) -> None:
    """Start the node, report the result in the directory, and serve."""
    spec = Spec.read(directory / "spec.json")
    result = directory / "result.json"
    try:
        node = Node(spec)
        node.start()
    except BaseException as error:
        traceback.print_exc()
        _report(result, {"error": f"{error}"})
        raise
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "control.sock"))
    listener.listen()
    _report(
        result,
        {"error": None, "programs": {name: str(place) for name, place in node.control.programs.items()}},
    )
    node.serve(listener)


def _report(file: Path, content: dict[str, Any]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.rename(file)


def process_one(directory: Path) -> int:
    """Collect orphans as process 1 must, while a child runs the node; end with it."""
    child = os.fork()
    if not child:
        main(directory)
        return 0
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    # Ctrl-C at the terminal is the keeper's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(process_one(Path(sys.argv[1])))
