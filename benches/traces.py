#!/usr/bin/env python3
"""What a collector that hangs costs: latency of publications and memory of the node.

    python3 benches/traces.py --publications 100000 --rate 2000

Starts a node (core 0) that traces every publication, and publishes to one listener at a fixed rate (core 1): once
without a collector, and once with one that takes connections and never reads a byte. Memory is read after the
warm-up, half-way and at the end.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
WARMUP_SECONDS = 5
PATIENCE_SECONDS = 60
DROPPED = "curfew_trace_spans_dropped_total"


class FrozenCollector:
    """Takes connections, and reads nothing from them."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.taken = []
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        while True:
            try:
                self.taken.append(self.listener.accept()[0])
            except OSError:
                return

    def url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Node:
    def __init__(self, directory, telemetry):
        self.port, self.admin, self.key = free_port(), free_port(), directory / "key"
        self.key.write_text("k" * 44)
        config = directory / "bench.toml"
        config.write_text(f"""
[server]
listen = "127.0.0.1:{self.port}"
[admin]
listen = "127.0.0.1:{self.admin}"
[[auth.issuers]]
name = "main"
secret_file = "{self.key}"
[backend]
kind = "memory"
[telemetry]
{telemetry}
""")
        command = ["taskset", "-c", "0", RELEASE / "curfew", "serve", "--config", config]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.get("/readyz") is None:
            if time.monotonic() > deadline:
                raise TimeoutError("a node that is ready")
            time.sleep(0.05)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def metric(self, name):
        lines = (line.split() for line in (self.get("/metrics") or "").splitlines() if line.startswith(name))
        return sum(float(fields[1]) for fields in lines)

    def memory_kib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def stop(self):
        self.process.kill()
        self.process.wait()


def measure(publications, rate, telemetry):
    seconds = publications / rate
    with tempfile.TemporaryDirectory() as name:
        node = Node(pathlib.Path(name), telemetry)
        try:
            command = ["taskset", "-c", "1", RELEASE / "curfew-bench", "--json", "--key-file", node.key,
                       "--url", f"ws://127.0.0.1:{node.port}/ws", "--pid", node.process.pid, "fanout",
                       "--subscribers", 1, "--rate", rate, "--warmup", WARMUP_SECONDS, "--seconds", seconds]
            load = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
            memory = []
            time.sleep(WARMUP_SECONDS)
            for _ in range(2):
                memory.append(node.memory_kib())
                time.sleep(seconds / 2)
            told = json.loads(load.communicate()[0])
            memory.append(node.memory_kib())
            return {
                "deliveries": told["deliveries"],
                "lost": told["lost"],
                "latency": told["latency"],
                "memory_kib": memory,
                "spans_dropped": node.metric(DROPPED),
            }
        finally:
            node.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publications", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=2000, help="publications a second")
    arguments = parser.parse_args()
    collector = FrozenCollector()
    frozen = f'otlp_endpoint = "{collector.url()}"\ntrace_sample_ratio = 1.0'
    for name, telemetry in (("no collector", ""), ("frozen collector", frozen)):
        measured = measure(arguments.publications, arguments.rate, telemetry)
        print(json.dumps({"case": name, **measured}))


if __name__ == "__main__":
    main()
