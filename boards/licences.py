#!/usr/bin/env python3
"""Prints the licences of everything that a board's binary is made of: its crates, the standard library, and musl."""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.I)

# What no crate of Cargo.lock is, and is in each binary.
STANDARD_LIBRARY = """The Rust standard library and its dependencies
MIT OR Apache-2.0; copyright (c) The Rust Project Contributors; https://www.rust-lang.org
"""
MUSL = """musl libc
MIT

Copyright (c) 2005-2020 Rich Felker, et al.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def cargo(*words):
    return subprocess.run(["cargo", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(target):
    """The crates that are linked into the program for this target, without the program itself."""
    tree = cargo("tree", "--locked", "--quiet", "--edges", "normal,no-proc-macro", "--target", target, "--prefix", "none",
                 "--format", "{p}")
    named = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(cargo("metadata", "--locked", "--quiet", "--format-version", "1"))
    crates = [package for package in metadata["packages"]
              if (package["name"], f"v{package['version']}") in named and package["name"] != "pandaproxy"]
    if len(crates) != len(named) - 1:
        sys.exit("licences.py: cargo tree and cargo metadata name other crates")
    return sorted(crates, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The crate's files about its licence, each as name and text."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and NAMES.match(path.name)]
    if not files:
        sys.exit(f"licences.py: the crate {package['name']} has no file with its licence; add its text here")
    return [(path.name, path.read_text(errors="replace").replace("\r\n", "\n").strip()) for path in files]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", metavar="TARGET", help="the Rust target, such as arm-unknown-linux-musleabihf")
    crates = linked(parser.parse_args().target)
    print("PandaProxy (MIT, see LICENSE) contains the following software. A text that several have stands once.")
    first = {}
    for package in crates:
        named = f"{package['name']} {package['version']}"
        line = "-" * 80
        print(f"\n{line}\n{named}\n{package['license'] or 'see the text'}")
        for name, text in texts(package):
            same = first.setdefault(text, f"{name} of {named}")
            print(f"\n{text}" if same == f"{name} of {named}" else f"\n{name}: as {same}")
    print(f"\n{'-' * 80}\n{STANDARD_LIBRARY}\n{'-' * 80}\n{MUSL}", end="")


if __name__ == "__main__":
    main()
