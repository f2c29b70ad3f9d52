#!/usr/bin/env python3
"""How long a reload that makes more revocable takes, with many sessions open, and what others notice.

    python3 benches/reload.py --connections 5000 18000 --rounds 5

Starts a Redis, a node (core 0), idle connections and a channel of 200 listeners at a fixed rate (core 1). Each
round switches `session.revocable_claims` between `[]` and `["sub"]`, by which every session has one key more,
and sends SIGHUP. The time runs from the signal to the moment the metric of the last reload says 1.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
SUCCESS = "curfew_config_last_reload_successful"
LISTENERS, RATE = 200, 50
PATIENCE = 120


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, condition, pause=0.05):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(pause)
    return found


class Node:
    def __init__(self, directory, redis_port):
        self.directory, self.redis_port = directory, redis_port
        self.port, self.admin = free_port(), free_port()
        (directory / "key").write_text("k" * 44)
        self.configure("[]")
        self.log = (directory / "log").open("w")
        command = ["taskset", "-c", "0", RELEASE / "curfew", "serve", "--config", directory / "bench.toml"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        until("a node that is ready", lambda: self.get("/readyz"))

    def configure(self, claims):
        text = f"""
[server]
listen = "127.0.0.1:{self.port}"
[admin]
listen = "127.0.0.1:{self.admin}"
[[auth.issuers]]
name = "main"
secret_file = "{self.directory}/key"
[session]
revocable_claims = {claims}
[backend]
kind = "redis"
[backend.redis]
url = "redis://127.0.0.1:{self.redis_port}"
"""
        new = self.directory / "bench.new"
        new.write_text(text)
        new.rename(self.directory / "bench.toml")

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def metric(self, name):
        lines = (line.split() for line in (self.get("/metrics") or "").splitlines() if line.startswith(name + " "))
        return next((float(fields[1]) for fields in lines), None)

    def reloads(self):
        text = (self.directory / "log").read_text()
        return [json.loads(line) for line in text.splitlines() if '"configuration reloaded"' in line]

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reload(self, claims):
        """Seconds, and CPU seconds of the node, until the reload is over."""
        before = len(self.reloads())
        # The file is looked at every second as well: whichever comes first is measured from the signal.
        self.configure(claims)
        cpu, began = self.cpu(), time.monotonic()
        self.process.send_signal(signal.SIGHUP)
        until("the reload", lambda: len(self.reloads()) > before, 0.002)
        until("the metric", lambda: self.metric(SUCCESS) == 1, 0.002)
        # The clock of CPU times ticks every 10 ms.
        return time.monotonic() - began, self.cpu() - cpu


def load(node, *arguments):
    command = ["taskset", "-c", "1", RELEASE / "curfew-bench", "--json", "--key-file", node.directory / "key",
               "--url", f"ws://127.0.0.1:{node.port}/ws", *arguments]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)


def fanout(node, seconds):
    return load(node, "fanout", "--subscribers", LISTENERS, "--rate", RATE, "--warmup", 1, "--seconds", seconds)


def measure(connections, rounds):
    with tempfile.TemporaryDirectory() as name:
        directory, redis_port = pathlib.Path(name), free_port()
        command = ["taskset", "-c", "1", "redis-server", "--port", str(redis_port), "--save", "", "--dir", name]
        redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        node = idle = None
        try:
            node = Node(directory, redis_port)
            seconds = 2 * rounds + 20
            idle = load(node, "idle", "--connections", connections, "--seconds", 10 * PATIENCE)
            until("the sessions", lambda: (node.metric("curfew_sessions") or 0) >= connections)
            quiet = json.loads(fanout(node, rounds + 5).communicate()[0])
            beside = fanout(node, seconds)
            until("the listeners", lambda: (node.metric("curfew_sessions") or 0) >= connections + LISTENERS)
            time.sleep(2)
            idling = node.cpu()
            time.sleep(2)
            idling = (node.cpu() - idling) / 2
            times = []
            for at in range(rounds):
                times.append(node.reload('["sub"]' if at % 2 == 0 else "[]"))
                time.sleep(1.5)
            reported = [entry["took_ms"] for entry in node.reloads()[-rounds:]]
            loaded = json.loads(beside.communicate()[0])
            return times, reported, idling, quiet, loaded
        finally:
            for process in (idle, node and node.process, redis):
                if process:
                    process.kill()
                    process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=int, nargs="*", default=[5_000, 18_000])
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    points = []
    for connections in options.connections:
        times, reported, idling, quiet, loaded = measure(connections, options.rounds)
        took = [wall for wall, _ in times]
        cpu = [cpu - idling * wall for wall, cpu in times]
        points.append((connections, statistics.median(reported)))
        print(f"{connections} sessions: signal to metric {min(took) * 1e3:.0f}, {statistics.median(took) * 1e3:.0f}, "
              f"{max(took) * 1e3:.0f} ms; as the node says {min(reported)}, {statistics.median(reported):.0f}, {max(reported)} ms; "
              f"CPU {statistics.median(cpu) * 1e3:.0f} ms (minimum, median, maximum of {options.rounds})")
        print(f"  deliveries beside it, quiet:   {json.dumps(quiet)}")
        print(f"  deliveries beside the reloads: {json.dumps(loaded)}")
    if len(points) > 1:
        (few, short), (many, long) = points[0], points[-1]
        slope = (long - short) / (many - few)
        print(f"slope {slope * 1e3:.1f} ms per 1,000 sessions; drawn through to 100,000: {long + slope * (100_000 - many):.0f} ms")


if __name__ == "__main__":
    main()
