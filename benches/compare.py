#!/usr/bin/env python3
"""Compares Curfew with its peers on one machine, in one run, and writes a table of ratios.

    cargo build --release -p curfew -p curfew-benches
    python3 benches/compare.py                          # everything, some 35 minutes
    python3 benches/compare.py --rounds 1 --seconds 2 --measures fanout,handshakes --servers "curfew;limit, coalesced"

Every server has core 0 to itself and the load generator core 1. A round measures each server once,
in an order that turns from round to round; every measurement has a fresh server. Nothing else should
run: what the load generator or another process disturbed is marked in the table, see "Method" in
benches/README.md. Peers come from the package registries, in the versions of benches/peers, into
target/peers. Only the standard library is needed here.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parent / "target"
RELEASE = TARGET / "release"
PEERS = TARGET / "peers"
CURFEW = [RELEASE / "curfew", "serve", "--config"]
SERVER_CORE, LOAD_CORE = "0", "1"
PORT = 18080
REDIS_PORT = 18079

# A measurement: arguments of curfew-bench, where its figure is, whether more of it is better, and
# whether the server is to be saturated.
MEASURES = {
    "fanout": ("1 channel of 500, saturated: deliveries/s",
               ["fanout", "--subscribers", "500"], "deliveries_per_second", True, True),
    "channels": ("100 channels of 10, saturated: deliveries/s",
                 ["fanout", "--channels", "100", "--subscribers", "10"],
                 "deliveries_per_second", True, True),
    "delivery_cpu": ("20,000 deliveries/s to 500: server CPU per delivery, us",
                     ["fanout", "--subscribers", "500", "--rate", "40", "--spin"],
                     "server_cpu_us_per_delivery", False, False),
    "roundtrips": ("100 publish to themselves: round trips/s",
                   ["roundtrip", "--connections", "100"], "roundtrips_per_second", True, True),
    "roundtrip_p99": ("one publishes to itself: p99, us",
                      ["roundtrip"], "latency.p99_us", False, False),
    "handshakes": ("handshakes with an HS256 token/s",
                   ["connect"], "handshakes_per_second", True, True),
    "reconnect": ("4,000 reconnect at once, all back after, s",
                  ["reconnect", "--connections", "4000"],
                  "seconds_until_all_are_back", False, False),
    "idle": ("10,000 idle connections: KiB each",
             ["idle", "--connections", "10000", "--seconds", "3", "--settle", "0"], "server_rss.per_connection", False, False),
}

# Which take a time to measure for, beside their warm-up.
TIMED = {"fanout", "channels", "delivery_cpu", "roundtrips", "roundtrip_p99", "handshakes"}


def curfew_config(folder, key, number=0, redis=False):
    """The configuration of a node; those with a Redis are of one cluster."""
    path = folder / f"node{number}{'-redis' if redis else ''}.toml"
    backend = f'kind = "redis"\n[backend.redis]\nurl = "redis://127.0.0.1:{REDIS_PORT}"\n' if redis else 'kind = "memory"\n'
    path.write_text(
        f'[server]\nlisten = "127.0.0.1:{PORT + 2 * number}"\n'
        f'[admin]\nlisten = "127.0.0.1:{PORT + 2 * number + 1}"\n'
        f'[[auth.issuers]]\nname = "main"\nsecret_file = "{key}"\n'
        f'[backend]\n{backend}'
    )
    return path


# What starts each server, the path of its URL, and what the load generator must know. Those whose
# names end in "Redis" have one.
def servers(folder, key):
    python = PEERS / "venv/bin/python"
    socketio = "/socket.io/?EIO=4&transport=websocket", ["--dialect", "socketio"]
    return {
        "curfew": ([*CURFEW, curfew_config(folder, key)], "/ws", []),
        "curfew with Redis": ([*CURFEW, curfew_config(folder, key, redis=True)], "/ws", []),
        "limit, one write each": ([RELEASE / "peer-limit", f"127.0.0.1:{PORT}", "each"], "/ws", []),
        "limit, coalesced": ([RELEASE / "peer-limit", f"127.0.0.1:{PORT}", "tick"], "/ws", []),
        "fastwebsockets": ([RELEASE / "peer-fastwebsockets", f"127.0.0.1:{PORT}"], "/ws", []),
        "uWebSockets": ([python, PEERS / "uwebsockets.py", PORT, key], "/ws", []),
        "ws": (["node", PEERS / "ws.mjs", PORT, key], "/ws", []),
        "Socket.IO": (["node", PEERS / "socketio.mjs", PORT, key], *socketio),
        "Socket.IO with Redis": (["node", PEERS / "socketio.mjs", PORT, key, f"redis://127.0.0.1:{REDIS_PORT}"], *socketio),
    }


def install():
    """Peers, anew only when what is to be installed has changed."""
    PEERS.mkdir(parents=True, exist_ok=True)
    wanted = "".join((HERE / "peers" / name).read_text() for name in ("package.json", "requirements.txt"))
    stamp = PEERS / "installed"
    for source in (HERE / "peers").iterdir():
        shutil.copy(source, PEERS / source.name)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    quiet = ["--no-package-lock", "--no-audit", "--no-fund"]
    subprocess.run(["npm", "install", "--prefix", PEERS, *quiet], check=True)
    subprocess.run([sys.executable, "-m", "venv", PEERS / "venv"], check=True)
    subprocess.run([PEERS / "venv/bin/python", "-m", "pip", "install", "--quiet",
                    "--requirement", PEERS / "requirements.txt"], check=True)
    stamp.write_text(wanted)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def process(command, core, port, log):
    """A process on a core, from when it listens until the block is left."""
    if listens(port):
        raise RuntimeError(f"another process has port {port}: it would be measured instead")
    command = ["taskset", "-c", core, *map(str, command)]
    started = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not listens(port):
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} does not listen")
            time.sleep(0.05)
        yield started.pid
    finally:
        started.kill()
        started.wait()


def redis(folder, log):
    """An empty Redis, beside the load generator."""
    return process(["redis-server", "--port", REDIS_PORT, "--save", "", "--dir", folder], LOAD_CORE, REDIS_PORT, log)


def curfew(config, log, port=PORT):
    """A node."""
    return process([*CURFEW, config], SERVER_CORE, port, log)


def figure(report, path):
    for name in path.split("."):
        report = report[name]
    return report


def measure(server, name, options, folder, key):
    """One measurement: the figure, what makes it doubtful, and the whole report."""
    command, path, more = servers(folder, key)[server]
    _, arguments, where, _, saturated = MEASURES[name]
    timed = ["--seconds", str(options.seconds)] if name in TIMED else []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "server.log", "wb"))
        has_redis = server.endswith("Redis")
        if has_redis:
            stack.enter_context(redis(folder, log))
        pid = stack.enter_context(process(command, SERVER_CORE, PORT, log))
        # What starting needs is not to be measured; a node with Redis waits for others first.
        time.sleep(2.5 if has_redis else 0.5)
        load = subprocess.run(
            ["taskset", "-c", LOAD_CORE, RELEASE / "curfew-bench", "--json", "--key-file", key,
             "--pid", str(pid), "--url", f"ws://127.0.0.1:{PORT}{path}", *more, *arguments, *timed],
            capture_output=True, text=True, timeout=300, check=False)
    if load.returncode != 0:
        return None, [load.stderr.strip()[-200:] or "failed"], None
    report = json.loads(load.stdout)
    usage, doubts = report.get("usage", {}), []
    if usage.get("load_busy", 0) > 0.9:
        doubts.append("the load generator was busy")
    if saturated and usage.get("server_busy", 1) < 0.95:
        doubts.append("the server was not")
    if report.get("lost"):
        doubts.append(f"{report['lost']} lost")
    return figure(report, where), doubts, report


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    version = lambda *command: subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    commit = version("git", "-C", str(HERE), "rev-parse", "--short", "HEAD")
    return {
        "date": datetime.date.today().isoformat(), "commit": commit, "cpu": model,
        "cores": os.cpu_count(), "kernel": platform.release(), "rustc": version("rustc", "--version"),
        "node": version("node", "--version"), "python": platform.python_version(),
        "peers": json.loads((HERE / "peers/package.json").read_text())["dependencies"]
        | dict(line.split("==") for line in (HERE / "peers/requirements.txt").read_text().split()),
    }


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(results, about, options):
    """The table, in Markdown. A ratio is Curfew's figure by the peer's of the same round, the other way
    round where less is better: more than 1 is better for Curfew in any case."""
    lines = [
        f"# Comparison of {about['date']}", "",
        f"Commit {about['commit']}; {about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; {about['rustc']}, "
        f"Node {about['node']}, Python {about['python']}; "
        + ", ".join(f"{name} {version}" for name, version in about["peers"].items()) + ".", "",
        f"`python3 benches/compare.py --rounds {options.rounds} --seconds {options.seconds}`: minimum, median and maximum of {options.rounds} rounds. "
        "*Ratio*: Curfew's figure by the peer's of the same round, or the other way round where less is better, so that more than 1 is "
        "in Curfew's favour. In brackets: rounds that are doubtful, and why. The limits and fastwebsockets verify no token and let "
        "everybody do everything.", "",
    ]
    for name in options.measures:
        title, _, _, more_is_better, _ = MEASURES[name]
        lines += [f"## {title}", "", "| | minimum | median | maximum | ratio | |", "| --- | --- | --- | --- | --- | --- |"]
        ours = results[name].get("curfew", [])
        for server, rounds in results[name].items():
            figures = [value for value, _, _ in rounds if value is not None]
            doubts = {}
            for _, why, _ in rounds:
                for one in why:
                    doubts[one] = doubts.get(one, 0) + 1
            note = "; ".join(f"{count} of {len(rounds)}: {why}" for why, count in doubts.items())
            if not figures:
                lines.append(f"| {server} | - | - | - | - | {note} |")
                continue
            pairs = [(mine[0], theirs[0]) for mine, theirs in zip(ours, rounds) if mine[0] and theirs[0]]
            ratios = [a / b if more_is_better else b / a for a, b in pairs]
            ratio = "" if server == "curfew" or not ratios else (
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            row = [number(min(figures)), number(statistics.median(figures)), number(max(figures))]
            lines.append(f"| {server} | {' | '.join(row)} | {ratio} | {note} |")
        lines.append("")
    return "\n".join(lines)


def end_children_when_ended():
    """Else what is under way would go on, and be measured the next time."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))


def main():
    end_children_when_ended()
    names = list(servers(pathlib.Path(tempfile.gettempdir()), "-"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--measures", type=lambda text: text.split(","), default=list(MEASURES))
    parser.add_argument("--servers", type=lambda text: text.split(";"), default=names, help=f"of these: {';'.join(names)}")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="folder and name of the results, without extension")
    options = parser.parse_args()
    for program in ("curfew", "curfew-bench", "peer-limit", "peer-fastwebsockets"):
        if not (RELEASE / program).exists():
            sys.exit(f"{program} is missing: cargo build --release -p curfew -p curfew-benches")
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the server, one for the load generator")
    install()
    about = machine()
    results = {name: {server: [] for server in options.servers} for name in options.measures}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        key = folder / "key"
        key.write_text(os.urandom(24).hex() + "\n")
        for name in options.measures:
            for turn in range(options.rounds):
                order = options.servers[turn % len(options.servers):] + options.servers[:turn % len(options.servers)]
                for server in order:
                    value, doubts, report = measure(server, name, options, folder, key)
                    results[name][server].append((value, doubts, report))
                    shown = "-" if value is None else number(value)
                    print(f"{name:14} round {turn + 1} {server:22} {shown:>12}  {'; '.join(doubts)}", flush=True)
    text = table(results, about, options)
    print("\n" + text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text(text + "\n")
        kept = {"machine": about, "options": {"rounds": options.rounds, "seconds": options.seconds}, "results": results}
        options.out.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
