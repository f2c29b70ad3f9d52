#!/usr/bin/env python3
"""What Curfew costs when the work grows: one table for each thing that can grow.

    cargo build --release -p curfew -p curfew-benches
    python3 benches/curves.py --out benches/results/curves      # some 6 minutes for each round
    python3 benches/curves.py --curves subscribers,bytes

Nodes on core 0, load generator (and Redis) on core 1. More connections than half of `ulimit -Hn` are
left out. The tables have the server's CPU time of one delivery or handshake, which should stay flat.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import socket
import ssl
import statistics
import subprocess
import tempfile
import time

import compare

# A node allows 128 subscriptions of a session.
CHANNELS_EACH = 100


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


@contextlib.contextmanager
def cluster(folder, key, nodes, redis):
    """Nodes, and their Redis; gives the process ids and the URLs."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "curves.log", "ab"))
        if redis:
            stack.enter_context(compare.redis(folder, log))
        pids, urls = [], []
        for number in range(nodes):
            port = compare.PORT + 2 * number
            config = compare.curfew_config(folder, key, number, redis)
            pids.append(stack.enter_context(compare.curfew(config, log, port)))
            urls.append(f"ws://127.0.0.1:{port}/ws")
        time.sleep(2.5 if redis else 0.7)
        yield pids, urls


def load(folder, key, arguments, nodes=1, redis=False):
    with cluster(folder, key, nodes, redis) as (pids, urls):
        command = ["taskset", "-c", compare.LOAD_CORE, compare.RELEASE / "curfew-bench", "--json", "--key-file", key,
                   "--pid", ",".join(map(str, pids)), "--url", ",".join(urls), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        return {"failed": done.stderr.strip()[-160:]}
    return json.loads(done.stdout)


def several(options, folder, key, arguments, paths, **more):
    """The median of each figure over the rounds."""
    reports = [load(folder, key, arguments, **more) for _ in range(options.rounds)]
    failed = [report["failed"] for report in reports if "failed" in report]
    if failed:
        return [failed[0]] + ["-"] * (len(paths) - 1)
    return [compare.number(statistics.median(compare.figure(report, path) for report in reports)) for path in paths]


def connections(options, folder, key):
    lines = ["## Idle connections on one node", "", row("connections", "KiB each", "s to open all"), row("---", "---", "---")]
    for count in [1000, 5000, 10000, 19000, 50000]:
        if count < options.most:
            figures = several(options, folder, key, ["idle", "--connections", count, "--seconds", 3, "--settle", 0],
                              ["server_rss.per_connection", "seconds_to_open"])
            lines.append(row(f"{count:,}", *figures))
    return lines


def tls(options, folder, key):
    """One thread of Python is slow, but what an idle connection takes does not depend on it."""
    lines = ["## Idle connections over TLS 1.3", "", row("connections", "KiB each"), row("---", "---")]
    certificate, private = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bench",
                    "-out", certificate, "-keyout", private], check=True, capture_output=True)
    config = compare.curfew_config(folder, key)
    config.write_text(config.read_text().replace("[admin]", f'tls_cert_file = "{certificate}"\ntls_key_file = "{private}"\n[admin]'))
    token = subprocess.run([compare.RELEASE / "curfew", "token", "--user", "bench", "--key-file", key], check=True, capture_output=True, text=True).stdout.strip()
    request = (f"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n").encode()
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "curves.log", "ab"))
        pid = stack.enter_context(compare.curfew(config, log))
        time.sleep(0.7)
        before, opened = resident(pid), 0
        for count in [1000, 4000, 8000]:
            while opened < count:
                stream = stack.enter_context(context.wrap_socket(socket.create_connection(("127.0.0.1", compare.PORT))))
                stream.sendall(request)
                received = b""
                while b'"connected"' not in received:
                    received += stream.recv(4096)
                opened += 1
            time.sleep(3)
            lines.append(row(f"{count:,}", compare.number((resident(pid) - before) / count)))
    return lines


def resident(pid):
    """KiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def fan(title, name, values, arguments, options, folder, key):
    lines = [f"## {title}", "", row(name, "deliveries/s, saturated", "CPU of a delivery, us", "the same at 10,000 deliveries/s, us"),
             row("---", "---", "---", "---")]
    for value in values:
        base, listeners = arguments(value)
        if listeners + 1 >= options.most:
            continue
        base = ["fanout", *base, "--seconds", options.seconds, "--warmup", 1]
        saturated = several(options, folder, key, base, ["deliveries_per_second", "server_cpu_us_per_delivery"])
        rate = 10000 / base[base.index("--subscribers") + 1]
        paced = several(options, folder, key, [*base, "--rate", rate, "--spin"], ["server_cpu_us_per_delivery"])
        lines.append(row(f"{value:,}", *saturated, *paced))
    return lines


def subscribers(options, folder, key):
    return fan("Subscribers of one channel", "subscribers", [1, 10, 100, 1000, 10000],
               # Of 10,000 what is on its way to all would be more than a node may hold.
               lambda count: (["--subscribers", count, "--window", min(256, 256_000 // count)], count),
               options, folder, key)


def channels(options, folder, key):
    return fan("Channels of one subscriber each", "channels", [1, 10, 100, 1000, 10000],
               lambda count: (["--channels", count, "--subscribers", 1], count), options, folder, key)


def many_channels(options, folder, key):
    return fan(f"Channels, {CHANNELS_EACH} of them to a connection", "channels", [100, 1000, 10000, 100000],
               lambda count: (["--channels", count, "--subscribers", 1, "--channels-each", CHANNELS_EACH], count // CHANNELS_EACH),
               options, folder, key)


def sizes(options, folder, key):
    return fan("Bytes of a publication's data, to 100", "bytes", [64, 256, 1024, 4096, 16384, 32000],
               lambda count: (["--subscribers", 100, "--bytes", count], 100), options, folder, key)


def nodes(options, folder, key):
    lines = ["## Nodes through one Redis: CPU of all nodes for a delivery at 20,000 deliveries/s, us", "",
             row("nodes", "500 subscribers of one channel", "10 subscribers each of 50"), row("---", "---", "---")]
    loads = [["--subscribers", 500, "--rate", 40], ["--channels", 50, "--subscribers", 10, "--rate", 2000]]
    for name, count, redis in [("1, embedded", 1, False), *((count, count, True) for count in [1, 2, 3, 4])]:
        figures = []
        for arguments in loads:
            arguments = ["fanout", *arguments, "--spin", "--seconds", options.seconds, "--warmup", 1]
            figures += several(options, folder, key, arguments, ["server_cpu_us_per_delivery"], nodes=count, redis=redis)
        lines.append(row(name, *figures))
    return lines


CURVES = {"connections": connections, "tls": tls, "subscribers": subscribers, "channels": channels,
          "many_channels": many_channels, "bytes": sizes, "nodes": nodes}


def main():
    compare.end_children_when_ended()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--curves", type=lambda text: text.split(","), default=list(CURVES))
    parser.add_argument("--out", type=pathlib.Path, default=None)
    options = parser.parse_args()
    options.most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 64
    about = compare.machine()
    lines = [f"# Curves of {about['date']}", "",
             f"Commit {about['commit']}; {about['cpu']}, Linux {about['kernel']}. `python3 benches/curves.py --rounds {options.rounds} --seconds {options.seconds}`; "
             f"medians of {options.rounds}. At most {options.most:,} open files here.", ""]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        key = folder / "key"
        key.write_text(os.urandom(24).hex() + "\n")
        for name in options.curves:
            part = CURVES[name](options, folder, key)
            print("\n".join(part), flush=True)
            lines += part + [""]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
