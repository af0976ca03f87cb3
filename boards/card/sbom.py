#!/usr/bin/env python3
"""The software bill of materials of a memory card's image, as CycloneDX 1.5 JSON: Debian's packages, the program, and the crates in
it. boards/card/build.sh calls it; of the same image the same bytes."""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import time
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "boards"))
sys.dont_write_bytecode = True
import licences  # noqa: E402


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return [{"alg": "SHA-256", "content": digest.hexdigest()}]


def packages(lines):
    """Components of lines `NAME VERSION ARCHITECTURE SOURCE SOURCE-VERSION SHA256 LICENCE; LICENCE`, with tabs between."""
    for line in lines:
        name, version, arch, source, source_version, digest, names = line.rstrip("\n").split("\t")
        escaped = version.replace("+", "%2B").replace(":", "%3A").replace("~", "%7E")
        purl = f"pkg:deb/debian/{name}@{escaped}?arch={arch}&distro=debian-12"
        yield {
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "supplier": {"name": "Debian"}, "hashes": [{"alg": "SHA-256", "content": digest}],
            "licenses": [{"license": {"name": licence}} for licence in names.split("; ")],
            "properties": [{"name": "debian:source", "value": source}, {"name": "debian:source-version", "value": source_version}],
        }


def crates(target):
    """Components of the crates that cargo links into the program, and what each of them is made with."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    known = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(crate["name"], crate["version"]): crate.get("checksum") for crate in locked}
    about = {crate["id"]: crate for crate in known["packages"]}
    needs = {node["id"]: [need["pkg"] for need in node["deps"] if any(kind["kind"] is None for kind in need["dep_kinds"])]
             for node in known["resolve"]["nodes"]}

    root = known["resolve"]["root"]
    # cargo metadata has the features of tests as well, and crates that only those need.
    linked = {crate["id"] for crate in licences.linked(target)} | {root}

    def purl(crate):
        return f"pkg:cargo/{about[crate]['name']}@{about[crate]['version'].replace('+', '%2B')}"

    components, dependencies = [], []
    for crate in sorted(linked, key=purl):
        kept = sorted(purl(need) for need in needs[crate] if need in linked)
        if crate == root:
            ours = kept
            continue
        name, version = about[crate]["name"], about[crate]["version"]
        component = {"type": "library", "bom-ref": purl(crate), "name": name, "version": version, "purl": purl(crate)}
        if checksums.get((name, version)):
            component["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
        if about[crate]["license"]:
            component["licenses"] = [{"expression": about[crate]["license"].replace("/", " OR ")}]
        components.append(component)
        dependencies.append({"ref": purl(crate), "dependsOn": kept})
    return components, dependencies, ours


def standard_library(program):
    """Rust's own library, which is linked into the program: its version as the compiler wrote it there."""
    found = re.search(rb"rustc version ([0-9][0-9A-Za-z.+-]*)", pathlib.Path(program).read_bytes())
    if not found:
        return []
    version = found[1].decode()
    return [{"type": "library", "bom-ref": f"rust-std@{version}", "name": "rust-std", "version": version,
             "licenses": [{"expression": "MIT OR Apache-2.0"}]}]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("board", "version", "target", "program", "image"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--packages", required=True, help="lines with tabs, one for each package of Debian")
    parser.add_argument("--epoch", type=int, required=True, help="the time of the image, in seconds since 1970")
    arguments = parser.parse_args()
    components, dependencies, ours = crates(arguments.target)
    rust = standard_library(arguments.program)
    with open(arguments.packages, encoding="utf-8") as file:
        debian = list(packages(file))
    card = f"pandaproxy-card-{arguments.board}@{arguments.version}"
    program = f"pandaproxy@{arguments.version}"
    own = [{"expression": "MIT"}]
    content = {
        "components": [
            {"type": "application", "bom-ref": program, "name": "pandaproxy", "version": arguments.version, "licenses": own,
             "hashes": sha256(arguments.program)},
            *debian, *components, *rust,
        ],
        "dependencies": [
            {"ref": card, "dependsOn": [program, *(one["bom-ref"] for one in debian)]},
            {"ref": program, "dependsOn": ours + [one["bom-ref"] for one in rust]},
            *dependencies,
        ],
    }
    metadata = {
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(arguments.epoch)),
        "component": {"type": "firmware", "bom-ref": card, "name": f"pandaproxy-card-{arguments.board}",
                      "version": arguments.version, "licenses": own, "hashes": sha256(arguments.image)},
    }
    # A number that is this content's, as every list of parts has one of its own.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([metadata, content], sort_keys=True))
    whole = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{number}", "version": 1,
             "metadata": metadata, **content}
    json.dump(whole, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
