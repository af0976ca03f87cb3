"""Parses PowerShell scripts and names each place that is no PowerShell."""

import sys

import tree_sitter
import tree_sitter_powershell

parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
wrong = 0


def walk(path: str, node: tree_sitter.Node) -> None:
    global wrong
    if node.is_error or node.is_missing:
        wrong += 1
        print(f"{path}:{node.start_point.row + 1}: cannot be parsed")
    for child in node.children:
        walk(path, child)


for path in sys.argv[1:]:
    with open(path, "rb") as script:
        walk(path, parser.parse(script.read()).root_node)
sys.exit(1 if wrong or len(sys.argv) < 2 else 0)
