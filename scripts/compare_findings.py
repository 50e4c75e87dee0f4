#!/usr/bin/env python3
"""What one regraft binary finds in cases that another doesn't: what is right must stay quiet.

  scripts/compare_findings.py BEFORE AFTER CASES

CASES is a directory of cases as scripts/make_cases.py writes them. Each is planned from its
headers, forwards with and without the model's keys as a target and backwards, by both binaries.
Warnings and errors that only AFTER has are listed, exit code 1 if there are any; notes are counted.
Needs only Python.
"""

import json
import os
import subprocess
import sys
import tempfile


def findings(binary, arguments):
    """Severity and code -> messages, of one plan."""
    run = subprocess.run([binary, "plan", *arguments, "--json"], capture_output=True, text=True)
    try:
        said = json.loads(run.stdout)
    except ValueError:
        return {("error", f"exit {run.returncode}"): [run.stderr.strip()[:200]]}
    found = {}
    for finding in said.get("findings", said.get("diagnostics", [])):
        found.setdefault((finding["severity"], finding["code"]), []).append(finding["message"])
    return found


def runs(case, folder):
    """The arguments of each plan of a case."""
    paths = {
        name: os.path.join(folder, f"{name}.json") for name in ("checkpoint", "model", "config")
    }
    headers = {"checkpoint": case["checkpoint"], "model": case["model"], "config": case["config"]}
    for name, path in paths.items():
        value = (
            headers[name]
            if name == "config"
            else {key: info[:2] for key, info in headers[name].items()}
        )
        with open(path, "w") as file:
            json.dump(value, file)
    config = ["--config", paths["config"]]
    yield "forward", [paths["checkpoint"], *config, "--to", "model"]
    yield (
        "forward, with a target",
        [paths["checkpoint"], *config, "--to", "model", "--target", paths["model"], "--no-strict"],
    )
    yield "reverse", [paths["model"], *config, "--from", "model", "--to", "hub"]


def main():
    before, after, cases = sys.argv[1:4]
    new, notes, planned = [], [0, 0], 0
    for name in sorted(os.listdir(cases)):
        if not name.endswith(".json"):
            continue
        with open(os.path.join(cases, name)) as file:
            case = json.load(file)
        with tempfile.TemporaryDirectory() as folder:
            for way, arguments in runs(case, folder):
                was, found = findings(before, arguments), findings(after, arguments)
                planned += 1
                for at, said in enumerate((was, found)):
                    notes[at] += sum(
                        len(messages)
                        for (severity, _), messages in said.items()
                        if severity == "note"
                    )
                for (severity, code), messages in sorted(found.items()):
                    if severity != "note" and len(messages) > len(was.get((severity, code), [])):
                        new.append(f"{name[:-5]}, {way}: {severity}[{code}]: {messages[0][:160]}")
    print("\n".join(new))
    print(
        f"{planned} plans: {len(new)} new warnings or errors; notes {notes[0]} before, {notes[1]} "
        "after"
    )
    return bool(new)


if __name__ == "__main__":
    sys.exit(main())
