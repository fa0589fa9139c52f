"""What the documents say must be there, and what they must not say must not.

1. ARCHITECTURE.md opens with the table "where does a sent message go". Every `file: function` in it exists, and no side
   needs more than five files.
2. Every relative link and every anchor in a Markdown file leads somewhere.
3. No document and no screen claims what cannot be true (tools/claims.py).

    python tools/check_docs.py [ROOT]
"""

from __future__ import annotations

import ast
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from claims import find_claims

FILES_PER_SIDE = 5
SKIPPED = {".venv", "node_modules", "dist", "build", ".git", ".pytest_cache"}
SOURCE_ROOTS = ("", "src/curbside", "web/src", "web", "src")
ENTRY = re.compile(r"`([\w./-]+\.(?:py|ts|svelte|sql))(?::\s*([\w.]+))?`")


@dataclass(frozen=True)
class Entry:
    """One place named in the table: on which side, in which file, which function (may be empty)."""

    side: str
    file: str
    function: str


def markdown_files(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        found += [Path(folder, name) for name in names if name.endswith(".md")]
    return sorted(found)


def screen_files(root: Path) -> list[Path]:
    """Files whose words a person sees in the product."""
    web = [p for ending in ("*.svelte", "*.ts", "*.html") for p in (root / "web" / "src").rglob(ending)]
    return sorted([*web, *(root / "src").rglob("*.py")])


def table_entries(text: str) -> list[Entry]:
    """Entries of the first table. Its columns need the words "side" and "file" in their heads."""
    rows = []
    for line in text.splitlines():
        if line.lstrip().startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            break
    if len(rows) < 3:
        return []
    head = [cell.lower() for cell in rows[0]]
    side = next((i for i, cell in enumerate(head) if "side" in cell), None)
    file = next((i for i, cell in enumerate(head) if "file" in cell), None)
    if side is None or file is None:
        return []
    return [
        Entry(row[side].lower(), found.group(1), found.group(2) or "")
        for row in rows[2:]
        if len(row) == len(head)
        for found in ENTRY.finditer(row[file])
    ]


def find_source(root: Path, name: str) -> Path | None:
    for base in SOURCE_ROOTS:
        path = root / base / name
        if path.is_file():
            return path
    return None


def has_function(path: Path, dotted: str) -> bool:
    """Whether the file defines the name: in Python by its syntax tree, elsewhere by the shape of a definition."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        body: list[ast.stmt] = ast.parse(text).body
        for part in dotted.split("."):
            found = [
                n
                for n in body
                if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and n.name == part
            ]
            if not found:
                return False
            body = found[0].body
        return True
    for part in dotted.split("."):
        name = re.escape(part)
        declared = rf"\b(function\*?|class|const|let)\s+{name}\b"
        method = rf"^\s*(public |private |static |async |\*)*#?{name}\s*[(<]"
        if not re.search(rf"{declared}|{method}|\b{name}\s*:", text, re.MULTILINE):
            return False
    return True


def check_table(root: Path) -> list[str]:
    path = root / "ARCHITECTURE.md"
    if not path.is_file():
        return ["ARCHITECTURE.md is missing; it opens with the table: where does a sent message go"]
    entries = table_entries(path.read_text(encoding="utf-8"))
    if len(entries) < 4 or len({entry.side for entry in entries}) < 2:
        return [
            "ARCHITECTURE.md must open with a table with the columns `side` and `file: function`, naming both sides"
        ]
    problems = []
    sides: dict[str, set[str]] = {}
    for entry in entries:
        sides.setdefault(entry.side, set()).add(entry.file)
        source = find_source(root, entry.file)
        if source is None:
            problems.append(f"ARCHITECTURE.md names {entry.file}, which does not exist")
        elif entry.function and not has_function(source, entry.function):
            problems.append(f"ARCHITECTURE.md names {entry.file}: {entry.function}, which does not exist")
    for side, files in sides.items():
        if len(files) > FILES_PER_SIDE:
            problems.append(f"a sent message crosses {len(files)} files on the {side} side, at most {FILES_PER_SIDE}")
    return problems


def without_code(text: str) -> str:
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """Anchors that headings get, as the common Markdown hosts make them."""
    found = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def check_links(root: Path, path: Path) -> tuple[int, list[str]]:
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(root)
    links = re.findall(r"\[[^\]]*\]\(\s*<?([^)\s>]+)", without_code(text))
    problems = []
    relative = [link for link in links if not re.match(r"[a-z][a-z0-9+.-]*:", link)]
    for link in relative:
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            problems.append(f"{name}: link to {link}, which does not exist")
        elif not file.is_relative_to(root):
            problems.append(f"{name}: link to {link} leaves the repository")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            problems.append(f"{name}: link to {link}: no such heading")
    return len(relative), problems


def check(root: Path) -> list[str]:
    """Problems found; looking at no document is one."""
    documents = markdown_files(root)
    if not documents:
        return ["docs: no Markdown file found"]
    problems = check_table(root)
    links = 0
    for path in documents:
        count, broken = check_links(root, path)
        links += count
        problems += broken
    screens = screen_files(root)
    for path in [*documents, *screens]:
        for line, claim in find_claims(path.read_text(encoding="utf-8")):
            problems.append(f"{path.relative_to(root)}:{line}: claims {claim.text!r}: {claim.why}; say: {claim.say}")
    if not problems:
        print(f"docs: {len(documents)} documents and {len(screens)} screen files checked, {links} relative links")
    return problems


if __name__ == "__main__":
    found = check(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(bool(found))
