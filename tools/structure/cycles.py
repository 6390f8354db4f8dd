#!/usr/bin/env python3
"""Checks how the Rust sources are cut into files.

Reports, and exits with 1 if there is any:

- cycles: files that use each other, directly or by way of others;
- files of more than 500 lines;
- functions of more than 80 lines.

One file uses another if it names an item that the other defines, in a `use` declaration or in a path (`crate::a::b`,
`super::b`, `b::c` for a child module `b`). Re-exports (`pub use`) are followed to the file that defines the item, and
are not uses themselves. A module may use its children, and a child its parents, but not both ways round by way of a
third file: uses of a parent are left out of the search for cycles, uses of a child are not.

Tests and benches are held to the same limits. Only the standard library of Python 3.9 or later is needed.
"""

import argparse
import re
import sys
from pathlib import Path

# The root files of the crates: each crate's modules are found from there.
ROOTS = [
    "src/main.rs",
    "src/engine/lib.rs",
    "src/tensor/lib.rs",
    "src/weights/lib.rs",
    "src/onnx/lib.rs",
    "src/diffusion/lib.rs",
    "src/evaluation/lib.rs",
    "nodes/lib.rs",
]

# The folders whose files are measured, whether or not a root leads to them.
FOLDERS = ["src", "nodes", "tests", "tools"]

LONGEST_FILE = 500
LONGEST_FUNCTION = 80

TOKENS = re.compile(
    r"""
      //[^\n]*
    | /\*.*?\*/
    | b?r(?P<hashes>\#*)".*?"(?P=hashes)
    | b?"(?:\\.|[^"\\])*"
    | b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\])'
    """,
    re.VERBOSE | re.DOTALL,
)


def blanked(text):
    """The code with comments and the contents of strings blanked out; line numbers stay."""
    return TOKENS.sub(lambda token: re.sub(r"[^\n]", " ", token.group()), text)


class Module:
    """A file: its path in the crate, its child modules, and what it re-exports."""

    def __init__(self, file, path):
        self.file = file
        self.path = path
        self.code = blanked(file.read_text(encoding="utf-8"))
        self.children = {}
        # Name -> absolute path, of `pub use`; None -> the paths of `pub use a::*`.
        self.exports = {}
        self.globs = []
        # Absolute paths that this file names.
        self.uses = set()


class Crate:
    def __init__(self, root):
        self.modules = {}
        self.load(root, ())
        for module in self.modules.values():
            self.read_uses(module)

    def load(self, file, path):
        module = self.modules[path] = Module(file, path)
        is_folder = not path or file.name == "mod.rs"
        folder = file.parent if is_folder else file.parent / file.stem
        # A `mod` inside braces is a module in the same file; only those at the start of a line are files here.
        for match in re.finditer(r"^(?:pub(?:\([^)]*\))? )?mod (\w+);", module.code, re.MULTILINE):
            name = match.group(1)
            for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if child.exists():
                    module.children[name] = child
                    self.load(child, path + (name,))

    def read_uses(self, module):
        code = module.code
        for match in re.finditer(r"(pub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", code):
            for path, name in leaves(match.group(2)):
                absolute = self.absolute(module, path)
                if absolute is None:
                    continue
                if match.group(1) and name == "*":
                    module.globs.append(absolute)
                elif match.group(1):
                    module.exports[name] = absolute
                else:
                    module.uses.add(absolute)
        code = re.sub(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+[^;]+;", "", code)
        for match in re.finditer(r"(?<![\w:$])(?:\w+::)+\w+", code):
            absolute = self.absolute(module, match.group().split("::"))
            if absolute is not None:
                module.uses.add(absolute)

    def absolute(self, module, path):
        """The path from the crate's root on; None if it leads out of the crate."""
        path = list(path)
        if path[0] == "crate":
            return tuple(path[1:])
        if path[0] in ("self", "super"):
            base = module.path
            while path and path[0] in ("self", "super"):
                if path.pop(0) == "super":
                    base = base[:-1]
            return base + tuple(path)
        if path[0] in module.children:
            return module.path + tuple(path)
        return None

    def definer(self, path, depth=0):
        """The file that defines what a path names."""
        at = ()
        for index, part in enumerate(path):
            if at + (part,) in self.modules:
                at += (part,)
                continue
            module = self.modules[at]
            if depth > 20:
                return module
            if part in module.exports:
                return self.definer(module.exports[part] + tuple(path[index + 1 :]), depth + 1)
            for glob in module.globs:
                found = self.definer(glob + tuple(path[index:]), depth + 1)
                if re.search(rf"\b(?:fn|struct|enum|trait|type|const|static|union|macro_rules!) {part}\b", found.code):
                    return found
            return module
        return self.modules[at]

    def edges(self):
        """File -> files that it uses, without its parents."""
        edges = {}
        for module in self.modules.values():
            used = {self.definer(path).path for path in module.uses}
            edges[module.path] = {path for path in used if path != module.path[: len(path)]}
        return edges

    def cycles(self):
        files = lambda paths: sorted(str(self.modules[path].file) for path in paths)
        return [files(component) for component in components(self.edges()) if len(component) > 1]


def leaves(tree):
    """The paths of a use tree, each with the name that it gets."""
    tree = tree.strip()
    start = tree.find("{")
    if start < 0:
        path, _, alias = tree.partition(" as ")
        parts = [part.strip() for part in path.split("::") if part.strip()]
        if parts and parts[-1] == "*":
            return [(parts[:-1] or ["self"], "*")]
        if parts and parts[-1] == "self":
            parts = parts[:-1] or ["self"]
        return [(parts, alias.strip() or parts[-1])] if parts else []
    prefix = [part.strip() for part in tree[:start].split("::") if part.strip()]
    inner = tree[start + 1 : tree.rindex("}")]
    found, depth, item = [], 0, ""
    for c in inner + ",":
        if c == "," and depth == 0:
            if item.strip():
                found += [(prefix + path if path != ["self"] else prefix, name) for path, name in leaves(item)]
            item = ""
            continue
        depth += (c == "{") - (c == "}")
        item += c
    return found


def components(edges):
    """The strongly connected components (Tarjan), without recursion."""
    index, low, on_stack, stack, found = {}, {}, set(), [], []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(sorted(edges[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(sorted(edges[target]))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == node:
                            break
                    found.append(component)
    return found


def functions(code):
    """Name, line and length of each function that has a body."""
    for match in re.finditer(r"\bfn (\w+)", code):
        at, depth = match.end(), 0
        # Up to the body: a `;` outside brackets ends a function without one.
        while at < len(code) and not (code[at] in "{;" and depth == 0):
            depth += (code[at] in "([") - (code[at] in ")]")
            at += 1
        if at == len(code) or code[at] == ";":
            continue
        end, depth = at, 0
        while end < len(code):
            depth += (code[end] == "{") - (code[end] == "}")
            end += 1
            if depth == 0:
                break
        first = code.count("\n", 0, match.start())
        yield match.group(1), first + 1, code.count("\n", 0, end) - first + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="report only files whose path begins with one of these")
    parser.add_argument("--edges", action="store_true", help="print which file uses which, and stop")
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    crates = [Crate(root / file) for file in ROOTS if (root / file).exists()]
    shown = lambda file: str(Path(file).relative_to(root))
    wanted = lambda file: not arguments.only or any(shown(file).startswith(prefix) for prefix in arguments.only)
    if arguments.edges:
        for crate in crates:
            for path, targets in sorted(crate.edges().items()):
                file = crate.modules[path].file
                if wanted(file) and targets:
                    print(shown(file), "->", ", ".join(shown(crate.modules[t].file) for t in sorted(targets)))
        return 0
    problems = []
    for crate in crates:
        for files in crate.cycles():
            if any(wanted(file) for file in files):
                problems.append(f"cycle of {len(files)} files: {', '.join(map(shown, files))}")
    folders = [root / folder for folder in FOLDERS if (root / folder).exists()]
    for file in sorted(file for folder in folders for file in folder.rglob("*.rs")):
        if not wanted(file) or "target" in file.relative_to(root).parts:
            continue
        text = file.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > LONGEST_FILE:
            problems.append(f"{shown(file)}: {lines} lines")
        for name, line, length in functions(blanked(text)):
            if length > LONGEST_FUNCTION:
                problems.append(f"{shown(file)}:{line}: `{name}` has {length} lines")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
