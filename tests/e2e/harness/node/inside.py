"""Run a node in namespaces of its own: mounts, network, control plane, containerd, kubelet, kube-proxy, DNS.

The keeper starts this module as process 1 of new namespaces, so that the kernel ends every process of the node with
it. It answers requests on a Unix socket in the node's directory. It must never write outside that directory, nor change
a setting of the whole machine. A second node is the same module in namespaces inside those of the first.
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

from harness.controlplane import SERVICE_RANGE, ControlPlane, Options
from harness.node import settings
from harness.node.image import write_archive
from harness.node.keeper import UNSHARE, unshared_child
from harness.process import Component, Reaper
from harness.rest import Client
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
    pods: str = settings.POD_SUBNETS[0]
    second: dict[str, str] | None = None
    credentials: dict[str, str] | None = None

    @classmethod
    def read(cls, file: Path) -> "Spec":
        """Read the file that the keeper wrote."""
        content = json.loads(file.read_text())
        content |= {"directory": Path(content["directory"]), "hierarchies": tuple(content["hierarchies"])}
        return cls(**content)

    def write(self, file: Path) -> None:
        """Write the file for another process."""
        file.write_text(json.dumps({**dataclasses.asdict(self), "directory": str(self.directory)}))


def sh(*command: object) -> str:
    """Run a command. Raises AssertionError with its output unless it succeeds."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Machine:
    """A node's processes, and what tests ask of them. `credentials` has the paths of its certificates."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.directory = spec.directory
        self.programs = {name: Path(place) for name, place in spec.parts["programs"].items()}
        self.optional = frozenset(spec.parts.get("optional", ()))
        self.environment = {
            "PATH": f"{self.directory}/bin:{self.programs['containerd'].parent}:{PATH}",
            "HOME": str(self.directory),
            "LC_ALL": "C",
        }
        self._reaper = Reaper()
        self._components: dict[str, Component] = {}
        self.requests: dict[str, Callable[..., Any]] = {
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
        if name not in self._components:
            self._components[name] = Component(name, self.directory / f"{name}.log", self._reaper)
        return self._components[name]

    def credentials(self) -> dict[str, str]:
        """Return the paths of the certificates and kubeconfigs of the node's programs."""
        assert self.spec.credentials is not None
        return self.spec.credentials

    def start(self) -> None:
        """Start everything; return when it runs."""
        self.mounts()
        self.network()
        self.runtime()
        self.start_kubelet()
        self.start_network_programs()

    def first_exited(self) -> str | None:
        """Return why the node can never become ready, None while it can."""
        for name, component in self._components.items():
            if not component.running:
                return f"{name} exited\n{component.tail()}"
        return None

    def mounts(self) -> None:
        """Give the node its own /sys, /run, /var/lib and /var/log, and the unpacked packages on /usr."""
        lower = [f"{root}/usr" for root in self.spec.parts["debian"] if root != "/"]
        if lower:
            sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={':'.join([*lower, '/usr'])}", "/usr")
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
            "bin",
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
        sh("ip", "addr", "add", f"{self.spec.address}/32", "dev", INTERFACE)
        sh("ip", "link", "set", INTERFACE, "up")
        sh("ip", "route", "add", f"{self.spec.gateway}/32", "dev", INTERFACE)
        sh("ip", "route", "add", "default", "via", self.spec.gateway)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        (self.directory / "resolv.conf").write_text(f"nameserver {settings.DNS_ADDRESS}\n")
        (self.directory / "cni" / "10-node.conflist").write_text(settings.cni(self.spec.pods))

    def runtime(self) -> None:
        """Start containerd and load the images."""
        config = self.directory / "containerd.toml"
        runtimes = settings.GVISOR if "gvisor" in self.optional else ""
        config.write_text(settings.containerd(self.directory, self.programs["ptp"].parent) + runtimes)
        for name in ("runsc", "containerd-shim-runsc-v1"):
            if name in self.programs:
                (self.directory / "bin" / name).symlink_to(self.programs[name])
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
        name, files = self.spec.name, self.credentials()
        config = self.directory / "kubelet.yaml"
        pair = (files["ca"], files["certificate"], files["key"])
        config.write_text(settings.kubelet(self.directory, name, self.spec.address, *pair))
        self.component("kubelet").start(
            [
                self.programs["kubelet"],
                f"--config={config}",
                f"--kubeconfig={files['kubelet']}",
                f"--hostname-override={name}",
                f"--node-ip={self.spec.address}",
                "--root-dir=/var/lib/kubelet",
                "--v=2",
            ],
            self.environment,
        )

    def start_network_programs(self) -> None:
        """Start kube-proxy, and kube-router if NetworkPolicies are enforced."""
        files = self.credentials()
        proxy = self.directory / "kube-proxy.yaml"
        proxy.write_text(settings.kube_proxy(self.spec.name, files["proxy"]))
        command = [self.programs["kube-proxy"], f"--config={proxy}"]
        self.component("kube-proxy").start(command, self.environment)
        if "network-policy" in self.optional:
            self.start_policies(files)

    def start_policies(self, files: dict[str, str]) -> None:
        """Start kube-router as the firewall of pods only. It ends without the Node, which the kubelet makes."""
        with contextlib.closing(Client.from_kubeconfig(Path(files["kubelet"]))) as client:
            path = f"/api/v1/nodes/{self.spec.name}"
            eventually(
                lambda: client.get(path).status == 200,
                f"{self.spec.name} is registered",
                seconds=READY_SECONDS,
                give_up=self.first_exited,
            )
        # Debian's names of these programs are links that only an installation makes.
        for name in settings.IPTABLES:
            (self.directory / "bin" / name).symlink_to("/usr/sbin/xtables-nft-multi")
        flags = settings.kube_router(self.spec.name, files["policies"], SERVICE_RANGE)
        self.component("kube-router").start([self.programs["kube-router"], *flags], self.environment)

    # What tests ask for.

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
        shims = ("containerd-shim-runc-v2", "containerd-shim-runsc-v1")
        programs = [self.programs[name] for name in shims if name in self.programs]
        # Those of a second node are visible here, too.
        own = Path("/proc/self/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                is_shim = entry.name.isdigit() and (entry / "exe").readlink() in programs
                if is_shim and (entry / "ns" / "pid").readlink() == own:
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


class Node(Machine):
    """The first node, with the control plane, the cluster's DNS and what the cluster has on request."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.control = ControlPlane(
            Path(spec.parts["controlplane"]), Options(scheduler=True, address=spec.address, port=API_PORT)
        )
        self.requests |= {
            "kubeconfig": self.kubeconfig,
            "certificate": self.certificate,
            "webhook_client_ca": lambda: str(self.control.webhook_client_ca),
        }

    def component(self, name: str) -> Component:
        return self.control.component(name) if name in self.control.programs else super().component(name)

    def credentials(self) -> dict[str, str]:
        return self.make_credentials(self.spec.name, self.spec.address)

    def make_credentials(self, name: str, address: str) -> dict[str, str]:
        """Return the certificates and kubeconfigs of a node's programs."""
        certificate, key, ca = self.certificate(f"kubelet-{name}", [name, address])
        return {
            "ca": ca,
            "certificate": certificate,
            "key": key,
            "kubelet": self.kubeconfig(f"system:node:{name}", ["system:nodes"]),
            "proxy": self.kubeconfig("system:kube-proxy"),
            "policies": self.kubeconfig(),
        }

    def start(self) -> None:
        """Start everything; return when all nodes are ready."""
        self.mounts()
        self.network()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            images = pool.submit(self.runtime)
            self.control.start()
            images.result()
        self.start_kubelet()
        self.start_network_programs()
        self.start_dns()
        if self.spec.second:
            self.start_second(self.spec.second)
        self.start_on_request()
        for name in self.names():
            eventually(
                lambda name=name: self.is_ready(name),  # type: ignore[misc]
                f"{name} is ready",
                seconds=READY_SECONDS,
                give_up=self.first_exited,
            )

    def names(self) -> list[str]:
        """Return the names of the nodes."""
        return [self.spec.name, *([self.spec.second["name"]] if self.spec.second else [])]

    def start_dns(self) -> None:
        """Start CoreDNS as a process of this node."""
        corefile = self.directory / "Corefile"
        corefile.write_text(settings.corefile(self.control.kubeconfig()))
        self.component("coredns").start([self.programs["coredns"], "-conf", corefile], self.environment)
        self.control.apply(*settings.dns_objects(self.spec.address))

    def start_on_request(self) -> None:
        """Start what this cluster has on request: the RuntimeClass of gVisor, a CSI driver."""
        if "gvisor" in self.optional:
            self.control.apply(settings.runtime_class("gvisor", "runsc"))
        if "csi" in self.optional:
            self.control.apply(*settings.csi_objects())
            state = ["--node", self.spec.name, "--state", self.directory / "csi"]
            provisioner = ["--kubeconfig", self.control.kubeconfig(settings.CSI_USER)]
            command = [self.programs["csidriver"], *state, *provisioner]
            self.component("csidriver").start(command, self.environment)

    def start_second(self, second: dict[str, str]) -> None:
        """Start a node in namespaces inside these. Raises AssertionError with its error."""
        directory = self.directory / "second"
        directory.mkdir()
        spec = dataclasses.replace(
            self.spec,
            directory=directory,
            name=second["name"],
            address=second["address"],
            gateway=self.spec.address,
            pods=settings.POD_SUBNETS[1],
            second=None,
            credentials=self.make_credentials(second["name"], second["address"]),
        )
        spec.write(directory / "spec.json")
        component = self.component("second")
        command = [*UNSHARE, sys.executable, "-m", "harness.node.inside", str(directory)]
        component.start(command, {**os.environ, "TMPDIR": str(directory)})
        child = unshared_child(component.pid)
        sh("ip", "link", "add", "node1", "type", "veth", "peer", "name", INTERFACE, "netns", child)
        # This node has one address for all others, which NetworkPolicies for the API server name.
        sh("ip", "addr", "add", f"{self.spec.address}/32", "dev", "node1")
        sh("ip", "link", "set", "node1", "up")
        sh("ip", "route", "add", f"{second['address']}/32", "dev", "node1")
        sh("ip", "route", "add", spec.pods, "via", second["address"])
        result = directory / "result.json"
        component.wait_ready(result.exists, READY_SECONDS)
        error = json.loads(result.read_text())["error"]
        assert error is None, f"the second node did not start: {error}"

    def is_ready(self, name: str) -> bool:
        """Return whether a node is ready and takes pods."""
        answer = self.control.client().get(f"/api/v1/nodes/{name}")
        if answer.status == 404:
            return False
        node = answer.ok()
        conditions = {entry["type"]: entry["status"] for entry in node["status"]["conditions"]}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def kubeconfig(self, user: str | None = None, groups: list[str] | None = None) -> str:
        """Return the path of a kubeconfig for a user, or for the cluster admin."""
        return str(self.control.kubeconfig(user, groups or []))

    def certificate(self, name: str, hosts: list[str]) -> list[str]:
        """Return a server certificate of the cluster's CA, its key, and the CA."""
        pair = self.control.server_certificate(name, hosts)
        return [str(pair.certificate), str(pair.key), str(self.control.ca)]


def main(directory: Path) -> None:
    """Start the node, report the result in the directory, and serve."""
    spec = Spec.read(directory / "spec.json")
    result = directory / "result.json"
    try:
        node = Machine(spec) if spec.credentials else Node(spec)
        node.start()
    except BaseException as error:
        traceback.print_exc()
        _report(result, {"error": f"{error}"})
        raise
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "control.sock"))
    listener.listen()
    _report(result, {"error": None})
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
