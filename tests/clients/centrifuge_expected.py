"""What became of a suite's tests, compared with a list of expected failures: test to reason."""

import json
from pathlib import Path


def read_list(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def surprises(outcomes, reasons, expected, names):
    """The tests that went otherwise than expected, each with what happened."""
    for name, reason in sorted(expected.items()):
        if name not in names:
            yield f"{name} is expected to fail ({reason}), and the suite has no such test"
        elif name not in outcomes:
            yield f"{name} did not run"
    for name, outcome in sorted(outcomes.items()):
        if outcome == "passes" and name in expected:
            yield f"{name} passes, and was expected to fail: {expected[name]}"
        elif outcome != "passes" and name not in expected:
            yield f"{name} {outcome}: {reasons.get(name, 'it says nothing')}"


def report(outcomes, reasons, expected, names):
    """Prints what is not as expected; true if everything is, and something ran."""
    otherwise = list(surprises(outcomes, reasons, expected, names))
    for line in otherwise:
        print(line)
    failed = sum(outcome != "passes" for outcome in outcomes.values())
    print(f"{len(outcomes)} tests, {failed} failed, {len(expected)} were expected to, {len(otherwise)} surprises")
    return bool(outcomes) and not otherwise
