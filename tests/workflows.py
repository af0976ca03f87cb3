#!/usr/bin/env python3
"""Which jobs of the workflows that a tag starts may write, or have a secret: each needs a job that has run ci.yml for that commit."""

import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[1] / ".github/workflows"
CI = "uses: ./.github/workflows/ci.yml"


def jobs(text):
    """The jobs of a workflow, each with its text."""
    parts = re.split(r"^  ([\w-]+):\n", text.split("\njobs:\n")[1], flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def before(all_jobs, name):
    """The jobs that have to have succeeded before one starts."""
    needs = re.search(r"^    needs: (.*)$", all_jobs[name], re.M)
    names = set(re.findall(r"[\w-]+", needs[1])) if needs else set()
    return names.union(*(before(all_jobs, one) for one in names))


def unchecked(text):
    """The jobs of a workflow that publish or sign whether or not CI has passed, and how many do either."""
    all_jobs = jobs(text)
    may = [name for name, job in all_jobs.items() if re.search(r"^      [\w-]+: write$|secrets\.", job, re.M)]
    return [name for name in may if not any(CI in all_jobs[one] for one in before(all_jobs, name))], len(may)


def main():
    assert re.search(r"^  workflow_call:$", (FOLDER / "ci.yml").read_text(), re.M), "ci.yml cannot be called"
    failed, count = [], 0
    for path in sorted(FOLDER.glob("*.yml")):
        text = path.read_text()
        if re.search(r"^    tags:", text, re.M):
            without, some = unchecked(text)
            failed += [f"{path.name}: {name} needs no job with `{CI}`" for name in without]
            count += some
    for line in failed:
        print(line, file=sys.stderr)
    print(f"{count} jobs of a release publish or sign, {len(failed)} of them without CI")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
