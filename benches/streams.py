#!/usr/bin/env python3
"""What streams cost: each figure beside that of channels without one, in one run.

    cargo build --release -p curfew -p curfew-benches
    python3 benches/streams.py --out benches/results/streams-$(date +%F)    # some 20 minutes
    python3 benches/streams.py --measures script,memory --rounds 3

Nodes on core 0; Redis and the load generator on core 1. Every measurement has a fresh Redis and fresh nodes, on free
ports. A round measures all variants of a measure, in an order that turns from round to round, so that what else the
machine does meets all of them. Ratios are of the same round. Exits with 1 if a figure misses its goal or cannot be had.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import compare

SCRIPTS = compare.HERE.parent / "crates/curfew-backend-redis/src"
PATIENCE = 30
# Publications in one call of a script, and the goal. The node sends at most 512 in one write. One alone is no batch.
CALLS = {512: 0.25, 64: 0.25, 16: 0.25, 1: None}
# Times that a measurement is begun: a machine that is very busy makes a node lose its lease.
ATTEMPTS = 3
# First parts of channels' names, as long as each other: messages differ only by what a stream adds to them.
STREAM, PLAIN = "streams", "without"
CHANNELS = f"""
[[channels]]
pattern = "{STREAM}:*"
history = {{ size = 100, ttl = "10m" }}
"""
PRESENCE = f"""
[[channels]]
pattern = "{STREAM}:*"
presence = true
[[policy.rules]]
name = "who-is-there"
channels = ["*"]
actions = ["presence"]
"""


def free_ports(count):
    """Ports that are free, each another: they are held until all are found."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def wait_until_ready(port):
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        if time.monotonic() > deadline:
            raise RuntimeError("a node is not ready in time")
        time.sleep(0.05)


def cpu_seconds(pid):
    """CPU time of a process so far, in seconds."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Bench:
    """The files of this run, and what is started for a measurement."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds
        self.key = folder / "key"
        self.key.write_text(os.urandom(24).hex() + "\n")

    @contextlib.contextmanager
    def redis(self):
        """An empty Redis: its process id and port."""
        [port] = free_ports(1)
        with open(self.folder / "redis.log", "ab") as log:
            command = ["redis-server", "--port", port, "--save", "", "--dir", self.folder]
            with compare.process(command, compare.LOAD_CORE, port, log) as pid:
                yield pid, port

    @contextlib.contextmanager
    def node(self, redis_port, channels):
        """A node that is ready: its process id and URL."""
        port, admin = free_ports(2)
        config = self.folder / f"node-{port}.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{port}"\n[admin]\nlisten = "127.0.0.1:{admin}"\n'
            f'[[auth.issuers]]\nname = "main"\nsecret_file = "{self.key}"\n'
            f'[backend]\nkind = "redis"\n[backend.redis]\nurl = "redis://127.0.0.1:{redis_port}"\n{channels}'
        )
        with open(self.folder / "node.log", "wb") as log:
            try:
                with compare.process([*compare.CURFEW, config], compare.SERVER_CORE, port, log) as pid:
                    wait_until_ready(admin)
                    yield pid, f"ws://127.0.0.1:{port}/ws"
            except RuntimeError as error:
                said = (self.folder / "node.log").read_text().strip().splitlines()
                raise RuntimeError(f"the node fails: {said[-1] if said else error}") from error

    def load(self, *arguments, channels=CHANNELS, nodes=1):
        """The report of one load against fresh nodes; `URL2` and `REDIS` in the arguments are the second node and Redis."""
        with contextlib.ExitStack() as stack:
            redis_pid, redis_port = stack.enter_context(self.redis())
            started = [stack.enter_context(self.node(redis_port, channels)) for _ in range(nodes)]
            names = {"URL2": started[-1][1], "REDIS": f"127.0.0.1:{redis_port}"}
            done = subprocess.run(
                ["taskset", "-c", compare.LOAD_CORE, compare.RELEASE / "curfew-bench", "--json", "--key-file", self.key,
                 "--url", started[0][1], "--pid", ",".join(str(pid) for pid, _ in started), "--redis-pid", str(redis_pid),
                 *(names.get(argument, str(argument)) for argument in arguments)],
                capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-200:] or "the load generator fails")
        return json.loads(done.stdout)

    def script(self, variant, each):
        """Publications a second of a saturated Redis that runs nothing but the script, so many publications a call."""
        with self.redis() as (pid, port):
            say = lambda *words, **more: subprocess.run(
                ["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=True, **more).stdout
            source = lambda *names: "".join((SCRIPTS / name).read_text() for name in names)
            never = str(10**17)
            envelope = '"from":"bench-100","data":"' + "0" * 62 + '"}'
            if variant == PLAIN:
                text = source("fence/publish.lua")
                words = ["0", never] + ["curfew:channel:bench:100", '{"v":1,' + envelope] * each
            else:
                text = source("streams/stream.lua", "streams/append.lua")
                server = next(line.partition(":")[2] for line in say("INFO", "replication").split() if line.startswith("master_replid:"))
                stream = "curfew:stream:{0}:bench:100"
                words = ["3", stream, stream + ":meta", "curfew:channel:bench:100",
                         never, server, "kdWqZx3a", str(30 * 86_400_000), "600000", "300000", "100", "PUBLISH", "kdWqZx3a:0"]
                words += ["0", "," + envelope] * each
            digest = say("-x", "SCRIPT", "LOAD", input=text).strip()
            tried = say("EVALSHA", digest, *words)
            if "ERR" in tried or "FENCED" in tried:
                raise RuntimeError(tried.strip()[:200])
            # One write has as many calls as the node would send in it. All calls together take about three seconds.
            write = max(1, 512 // each)
            calls = max(200, 900_000 // (each + 4))
            before = cpu_seconds(pid)
            done = subprocess.run(
                ["taskset", "-c", compare.SERVER_CORE, "redis-benchmark", "-p", str(port), "-c", "8", "-P", str(write),
                 "-n", str(calls), "--csv", "EVALSHA", digest, *words],
                capture_output=True, text=True, timeout=300, check=True)
            # The title, which has the arguments in it, then seven figures.
            rate = float(done.stdout.strip().rsplit('","', 7)[1])
            return {"publications_per_second": rate * each, "redis_capacity": calls * each / (cpu_seconds(pid) - before)}


def publications(bench, variant, channels):
    more = [] if channels is None else ["--channels", channels]
    report = bench.load("publish", "--prefix", variant, "--answer-every", 16, "--seconds", bench.seconds, *more)
    return report | {"redis_capacity": 1e6 / report["redis_cpu_us_per_publication"]}


def storm(bench, variant, elsewhere):
    prefix = PLAIN if variant == PLAIN else STREAM
    more = ["--since"] if variant == "recovered" else []
    more += ["--back-to", "URL2"] if elsewhere else []
    return bench.load("recover", "--prefix", prefix, "--redis", "REDIS", *more, nodes=2 if elsewhere else 1)


def memory(bench, variant, channels):
    return bench.load("subscriptions", "--prefix", variant, "--channels", channels)


# A figure of a report, in its unit, with how the goal reads it: "ratio" is that of the variant by the baseline, and
# "difference" what the variant has more.
Figure = collections.namedtuple("Figure", "title path scale unit kind goal at_least")
# A measure: what runs a variant, the baseline, the other variants, and the figures. The last variant is the one that
# has to reach the goal.
Measure = collections.namedtuple("Measure", "title run variants figures")

RATE = lambda title, path, goal: Figure(title, path, 1, "/s", "ratio", goal, True)
CAPACITY = lambda goal: RATE("publications that Redis' core can carry, by its CPU time", "redis_capacity", goal)
MEASURES = {
    **{
        f"script-{each}": Measure(
            f"a saturated Redis that runs nothing but the script, {each} publications a call",
            lambda bench, variant, each=each: bench.script(variant, each), [PLAIN, STREAM],
            [RATE("publications through one Redis", "publications_per_second", goal), CAPACITY(goal)])
        for each, goal in CALLS.items()
    },
    **{
        f"publish-{name}": Measure(
            f"256 sessions publish {where}, through one node",
            lambda bench, variant, channels=channels: publications(bench, variant, channels), [PLAIN, STREAM],
            [RATE("publications, as many as the node sends", "publications_per_second", 0.25),
             CAPACITY(0.25)])
        for name, where, channels in [("one", "to one channel", 1), ("each", "to a channel each", None)]
    },
    "deliveries": Measure(
        "1 channel of 500, saturated",
        lambda bench, variant: bench.load("fanout", "--subscribers", 500, "--prefix", variant, "--seconds", bench.seconds),
        [PLAIN, STREAM],
        [RATE("deliveries", "deliveries_per_second", 0.9),
         Figure("CPU of the node for a delivery", "server_cpu_us_per_delivery", 1, " us", "ratio", 1 / 0.9, False)]),
    **{
        f"storm-{name}": Measure(
            f"2,000 subscribers of one channel are cut off, 10 publications behind, and come back to {where}",
            lambda bench, variant, elsewhere=elsewhere: storm(bench, variant, elsewhere), [PLAIN, STREAM, "recovered"],
            [Figure("time until all are current", "seconds_until_all_are_current", 1000, " ms", "ratio", 1.3, False),
             Figure("CPU of the node for one of them", "server_cpu_us_per_connection", 1, " us", "ratio", None, False)])
        for name, where, elsewhere in [("same", "the same node", False), ("other", "a node that knows nothing of the channel", True)]
    },
    "memory": Measure(
        "1,000 sessions subscribe to 100 channels each, the same",
        lambda bench, variant: memory(bench, variant, 100), [PLAIN, STREAM],
        [Figure("memory of a subscription", "bytes_per_subscription", 1, " B", "difference", 48, False)]),
    "memory-own": Measure(
        "1,000 sessions subscribe to 100 channels each, all different",
        lambda bench, variant: memory(bench, variant, 100_000), [PLAIN, STREAM],
        [Figure("memory of a subscription with its channel", "bytes_per_subscription", 1, " B", "difference", None, False)]),
    "presence": Measure(
        "one of 10 and one of 10,000 subscribers ask who is there",
        lambda bench, variant: bench.load("presence", "--prefix", STREAM, "--subscribers", variant, channels=PRESENCE),
        ["10", "10000"],
        [Figure("median", "latency.p50_us", 1e-3, " ms", "itself", 20, False),
         Figure("99th percentile", "latency.p99_us", 1e-3, " ms", "itself", 20, False)]),
}


def attempt(run):
    """A report, from one of a few attempts; each that fails is told."""
    for at in range(ATTEMPTS):
        try:
            return run()
        except (RuntimeError, subprocess.SubprocessError) as error:
            if at + 1 == ATTEMPTS:
                raise
            print(f"begun again: {error}", flush=True)


def spread(values, unit, digits=3):
    shown = lambda value: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return f"{shown(statistics.median(values))}{unit} ({shown(min(values))} to {shown(max(values))})"


def lines_of(measure, reports):
    """The table's lines of one measure, and whether each goal is reached."""
    lines, reached = [], []
    baseline, wanted = measure.variants[0], measure.variants[-1]
    for figure in measure.figures:
        values = {variant: [compare.figure(report, figure.path) * figure.scale for report in reports[variant]]
                  for variant in measure.variants}
        for variant in measure.variants:
            judged = {"ratio": [a / b for a, b in zip(values[variant], values[baseline])],
                      "difference": [a - b for a, b in zip(values[variant], values[baseline])],
                      "itself": values[variant]}[figure.kind]
            compared, goal = "", ""
            if variant != baseline:
                compared = spread(judged, figure.unit if figure.kind != "ratio" else "")
            if variant == wanted and figure.goal is not None:
                median = statistics.median(judged)
                reached.append(median >= figure.goal if figure.at_least else median <= figure.goal)
                goal = f"{'at least' if figure.at_least else 'at most'} {figure.goal:.3g}: {'reached' if reached[-1] else '**missed**'}"
            lines.append(f"| {figure.title} | {variant} | {spread(values[variant], figure.unit)} | {compared} | {goal} |")
    return lines, reached


def commands_of(reports):
    """Redis' commands by which recovery differs from the same storm that subscribes without a place: medians."""
    storms = {variant: [report["redis_commands"] for report in reports[variant]] for variant in (STREAM, "recovered")}
    names = sorted({name for counts in storms.values() for count in counts for name in count})
    median = lambda variant, name: statistics.median(count.get(name, 0) for count in storms[variant])
    differences = {name: median("recovered", name) - median(STREAM, name) for name in names}
    scripts = {name: more for name, more in differences.items() if name.startswith(("eval", "fcall"))}
    others = {name: more for name, more in differences.items() if name not in scripts and name not in ("info", "config|resetstat")}
    shown = ", ".join(f"{name} {more:+g}" for name, more in (scripts | others).items() if more) or "none"
    # What admissions happen to share is noise in both directions: only more commands count.
    more = sum(max(0, count) for count in others.values())
    return (f"Redis commands of recovery: {more:g} more, calls of scripts {sum(scripts.values()):+g}"
            f" (goal: below 100; by command: {shown})"), more + max(0, sum(scripts.values())) < 100


def usage_of(reports):
    """Who was busy, by variant: what a rate means depends on it."""
    parts = []
    for variant, several in reports.items():
        usages = [report["usage"] for report in several if "usage" in report]
        if usages:
            busy = ", ".join(f"{name.removesuffix('_busy')} {statistics.median(usage[name] for usage in usages):.2f}"
                             for name in ("server_busy", "redis_busy", "load_busy") if name in usages[0])
            parts.append(f"{variant}: {busy}")
    return "Busy: " + "; ".join(parts) + "." if parts else ""


def main():
    compare.end_children_when_ended()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="time to measure a rate")
    parser.add_argument("--measures", type=lambda text: text.split(","), default=["all"],
                        help=f"of these, or how their names begin: {','.join(MEASURES)}")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="folder and name of the results, without extension")
    options = parser.parse_args()
    for program in ("curfew", "curfew-bench"):
        if not (compare.RELEASE / program).exists():
            sys.exit(f"{program} is missing: cargo build --release -p curfew -p curfew-benches")
    wanted = [name for name in MEASURES if any(begin == "all" or name.startswith(begin) for begin in options.measures)]
    if not wanted or os.cpu_count() < 2:
        sys.exit("there is nothing to measure, or no second core for Redis and the load generator")
    table = ["| figure | variant | median (least to most) | by the first variant | goal |", "| --- | --- | --- | --- | --- |"]
    notes, kept, well = [], {}, True
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder), options.seconds)
        for name in wanted:
            measure, reports = MEASURES[name], collections.defaultdict(list)
            try:
                for turn in range(options.rounds):
                    at = turn % len(measure.variants)
                    for variant in measure.variants[at:] + measure.variants[:at]:
                        report = attempt(lambda: measure.run(bench, variant))
                        reports[variant].append(report)
                        first = measure.figures[0]
                        shown = compare.figure(report, first.path) * first.scale
                        print(f"{name:14} round {turn + 1} {variant:10} {shown:14,.2f}{first.unit}", flush=True)
            except (RuntimeError, subprocess.SubprocessError) as error:
                print(f"{name}: {error}", flush=True)
                notes.append(f"- {measure.title}: not measured: {error}")
                well = False
                continue
            kept[name] = reports
            lines, reached = lines_of(measure, reports)
            table += [f"| **{measure.title}** | | | | |", *lines]
            well &= all(reached)
            if busy := usage_of(reports):
                notes.append(f"- {measure.title}. {busy}")
            if "recovered" in measure.variants:
                text, few = commands_of(reports)
                notes.append(f"- {measure.title}. {text}")
                well &= few
    about = compare.machine()
    text = "\n".join([
        f"# Streams, {about['date']}", "",
        f"Commit {about['commit']}; {about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; {about['rustc']}. "
        f"`python3 benches/streams.py --rounds {options.rounds} --seconds {options.seconds:g}`; load average at the end "
        f"{os.getloadavg()[0]:.1f}.", "", *table, "", *notes, ""])
    print("\n" + text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text(text)
        options.out.with_suffix(".json").write_text(json.dumps({"machine": about, "results": kept}, indent=1) + "\n")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
