"""The Go SDK's own tests, unchanged but for the server's address, against a server of the Centrifuge protocol.

`centrifuge_go_suite.py build FOLDER GO` makes a program of the tests of the SDK that lies in the folder: the address
that the files name becomes that of an environment variable. `centrifuge_go_suite.py run TASK` runs it, with one JSON object:
`address` (host:port) of the server and `expected`, the path of a list of expected failures. Prints each test that went
otherwise than the list says, and fails if there is one.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from centrifuge_expected import read_list, report

SUITE = "suite.test"

VARIABLE = "CENTRIFUGE_ADDRESS"

LONGEST_SUITE = "5m"

ADDRESS_FILE = f"""package centrifuge

import "os"

var serverAddress = os.Getenv("{VARIABLE}")
"""


def build(folder, go):
    folder = Path(folder)
    named = '"ws://localhost:8000/'
    for path in folder.glob("*_test.go"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(named, '"ws://" + serverAddress + "/'), encoding="utf-8")
    (folder / "address_test.go").write_text(ADDRESS_FILE, encoding="utf-8")
    subprocess.run([go, "test", "-c", "-o", SUITE, "."], cwd=folder, check=True)


def run(address, expected):
    suite = Path(os.environ["CURFEW_CLIENTS"], "centrifuge-go", SUITE)
    listed = subprocess.run([suite, "-test.list", "."], check=True, capture_output=True, text=True)
    names = set(listed.stdout.split())
    running = subprocess.run(
        [suite, "-test.v", "-test.timeout", LONGEST_SUITE],
        env={**os.environ, VARIABLE: address},
        capture_output=True,
        text=True,
    )
    outcomes, reasons, lines = {}, {}, []
    for line in running.stdout.splitlines():
        # A sub-test counts for the test that it belongs to.
        if ended := re.match(r"--- (PASS|FAIL|SKIP): (\w+) ", line):
            verdict, name = ended.groups()
            outcomes[name] = {"PASS": "passes", "FAIL": "fails", "SKIP": "is skipped"}[verdict]
            reasons[name] = "; ".join(lines).strip()
        elif line.startswith("=== RUN") and "/" not in line:
            lines = []
        elif not line.startswith("==="):
            lines.append(line.strip())
    is_well = report(outcomes, reasons, read_list(expected), names)
    for name in sorted(names - set(outcomes)):
        print(f"{name} did not end")
    # A panic ends the program in the middle of a test.
    if names - set(outcomes):
        print(running.stdout[-2000:], running.stderr[-2000:])
    return is_well and names == set(outcomes)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(*sys.argv[2:])
    else:
        sys.exit(0 if run(**json.loads(sys.argv[2])) else 1)
