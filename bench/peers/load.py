"""Runs the load generator, a Go program of ours, and reads what it measured; a wrong answer ends all."""

import json
import os
import subprocess


class Load:
    """The generator; ``program`` is its path, ``directory`` where bodies are put."""

    def __init__(self, program, directory):
        self.program = program
        self.directory = directory
        self._bodies = {}

    def body(self, content):
        """The file with these bytes."""
        if content not in self._bodies:
            path = self.directory / f"body-{len(self._bodies)}.json"
            path.write_bytes(content)
            self._bodies[content] = path
        return self._bodies[content]

    def run(self, target, content, *, contains="", status=200, cores=None, against=None, **options):
        """Post ``content`` to a `Target`; latencies in milliseconds. Raises AssertionError where an answer was wrong.

        ``options`` are clients, and seconds or count; ``cores`` are those that the generator may use. ``against`` is
        another URL and content that are posted in turns with it: what was found of them stands under ``without``.
        """
        command = [self.program, "-url", target.url, "-ca", str(target.ca), "-body", str(self.body(content))]
        command += ["-contains", contains, "-status", str(status)]
        if target.certificate:
            command += ["-certificate", str(target.certificate), "-key", str(target.key)]
        if against:
            url, other = against
            command += ["-against", url, "-against-body", str(self.body(other))]
            command += ["-against-contains", '"kind":"Pod"']
        for name, value in options.items():
            command += [f"-{name}", str(value)]
        environment = {**os.environ, "GOMAXPROCS": str(len(cores))} if cores else None
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        if cores:
            os.sched_setaffinity(process.pid, cores)
        out, err = process.communicate()
        assert process.returncode == 0, f"{target.url}: {err.strip()}"
        return json.loads(out)
