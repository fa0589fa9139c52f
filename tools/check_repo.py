"""What must never be committed, checked over every tracked file.

Nothing that ties the repository to one machine: addresses of package registries, absolute paths of somebody's disk,
`resolved` addresses in locks. Every locked package has its hash. Every import has its declared dependency. In the web
client no unencrypted storage, no way around Trusted Types, no third-party origin.

    python tools/check_repo.py [ROOT]
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

SKIPPED = {".venv", "node_modules", "dist", "build", ".git", "__pycache__"}
BINARY = {".xz", ".png", ".jpg", ".webp", ".woff2", ".ico", ".wasm", ".gz", ".cbor", ".bin", ".db"}
FOREIGN_LOCKS = {"uv.lock", "poetry.lock", "Pipfile.lock", "yarn.lock", "pnpm-lock.yaml"}

# Written in pieces, so that this file does not find itself.
REGISTRIES = re.compile(
    "|".join(
        map(
            re.escape,
            ["pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "deb.debian" + ".org", "yarnpkg" + ".com"],
        )
    )
)
MACHINE_PATHS = re.compile(
    r"(?<![\w.$}*~)-])(/(?:work|root|Users)/|/opt/(?:pypi|wheels)|/tmp/[a-z]*\." + r"|\.\./" + "shared)(?!\\*)"
)

WEB_CODE = {".ts", ".svelte", ".html", ".css"}
WEB_FORBIDDEN = [
    (
        re.compile(r"\b(localStorage|sessionStorage)\b"),
        "browser storage that nothing encrypts; the vault is the only place",
    ),
    (re.compile(r"document\.cookie"), "cookies; the session lives in the Worker"),
    (re.compile(r"\{@html|\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write"), "a way around Trusted Types"),
    (re.compile(r"\beval\(|new Function\("), "code made at run time"),
    (
        re.compile(
            r"https?://(?!www\.w3\.org/|localhost|127\.0\.0\.1|curbside\.invalid|[\w.-]*\.?example(\.|\b))[\w-]+\.\w"
        ),
        "another origin; everything is served by the own server",
    ),
]

# Import name of a package whose name differs.
IMPORT_NAMES = {
    "agentvault-mls-rs-uniffi": "mls_rs_uniffi",
    "apsw-sqlite3mc": "apsw",
    "argon2-cffi": "argon2",
    "nats-py": "nats",
    "opaque-ke-py": "opaque_ke_py",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pillow": "PIL",
    "pyyaml": "yaml",
}


def tracked_files(root: Path) -> list[Path]:
    """Files that git knows or would add; without git (a source archive) every file outside made folders."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0 and done.stdout:
        paths = [root / name for name in done.stdout.decode().split("\0") if name]
    else:
        paths = list(root.rglob("*"))
    return sorted(p for p in paths if p.is_file() and not SKIPPED & set(p.relative_to(root).parts))


def read(path: Path) -> str | None:
    if path.suffix in BINARY:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def hits(name: str, text: str, pattern: re.Pattern[str], what: str) -> list[str]:
    return [f"{name}:{text.count(chr(10), 0, m.start()) + 1}: {m.group()!r}: {what}" for m in pattern.finditer(text)]


def without_comments(text: str) -> str:
    """The code of a TypeScript, Svelte, HTML or CSS file; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match.group().count("\n")

    text = re.sub(r"/\*.*?\*/|<!--.*?-->", blank, text, flags=re.DOTALL)
    return re.sub(r"(^|\s)//[^\n]*", r"\1", text)


def check_web(name: str, text: str) -> list[str]:
    code = without_comments(text)
    return [problem for pattern, what in WEB_FORBIDDEN for problem in hits(name, code, pattern, what)]


def check_npm_lock(name: str, text: str) -> list[str]:
    packages = {key: value for key, value in json.loads(text)["packages"].items() if key}
    problems = [f"{name}: {key} records where it came from" for key, value in packages.items() if "resolved" in value]
    problems += [f"{name}: {key} has no integrity hash" for key, value in packages.items() if "integrity" not in value]
    return problems if packages else [f"{name}: locks no package"]


def check_python_lock(name: str, text: str) -> list[str]:
    entries = re.findall(r"^([A-Za-z0-9][^\n]*?(?:\\\n[^\n]*)*)$", text, flags=re.MULTILINE)
    problems = [] if entries else [f"{name}: locks no package"]
    for entry in entries:
        if "==" not in entry.split("\\")[0]:
            problems.append(f"{name}: {entry.split()[0]} is not pinned to one version")
        if "--hash=sha256:" not in entry:
            problems.append(f"{name}: {entry.split()[0]} has no hash")
    return problems + hits(
        name, text, re.compile(r"\w+://\S+|--(index|find-links|extra)\S*"), "a lock names no address"
    )


def distribution(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement.strip(), maxsplit=1)[0].lower()


def check_dependencies(root: Path) -> list[str]:
    """Imports of the package are declared; what is declared is asked for (run.in, an extra's own file), and locked."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {distribution(r) for r in project["dependencies"]}
    extras = project.get("optional-dependencies", {})
    asked = {distribution(x) for x in (root / "requirements/run.in").read_text().splitlines() if x and x[0] not in "#-"}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (root / "requirements/run.txt").read_text(), flags=re.MULTILINE))
    problems = [f"requirements/run.in lacks {name}, which pyproject.toml names" for name in sorted(declared - asked)]
    problems += [f"requirements/run.txt lacks {name}; next step: make lock" for name in sorted(asked - locked)]
    for extra, requirements in extras.items():
        listed = (root / f"requirements/{extra}.in").read_text()
        problems += [f"requirements/{extra}.in lacks {r}" for r in requirements if r not in listed.splitlines()]
        declared |= {distribution(r) for r in requirements}
    known = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared}
    for path in sorted((root / "src").rglob("*.py")):
        for module in sorted(imported_packages(path) - known - set(sys.stdlib_module_names) - {"curbside"}):
            problems.append(f"{path.relative_to(root)} imports {module}, which pyproject.toml does not name")
    return problems + check_test_dependencies(root, known)


def check_test_dependencies(root: Path, known: set[str]) -> list[str]:
    """What tests import comes from the package, its dependencies, requirements/test.in, or lies beside them."""
    asked = root / "requirements/test.in"
    lines = asked.read_text().splitlines() if asked.exists() else []
    named = {distribution(line) for line in lines if line and line[0] not in "#-"}
    known = known | {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in named}
    files = [path for folder in ("tests", "bench", "tools") for path in sorted((root / folder).rglob("*.py"))]
    own = {path.stem for path in files} | {path.parent.name for path in files} | {"tests", "bench", "curbside"}
    return [
        f"{path.relative_to(root)} imports {module}, which requirements/test.in does not name"
        for path in files
        for module in sorted(imported_packages(path) - known - own - set(sys.stdlib_module_names))
    ]


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def check(root: Path) -> list[str]:
    """Problems found; looking at no file is one."""
    files = tracked_files(root)
    problems = [] if files else ["repository: no file found"]
    web = 0
    for path in files:
        name = str(path.relative_to(root))
        if path.name in FOREIGN_LOCKS:
            problems.append(
                f"{name}: a lock that records addresses; the locks are requirements/*.txt and package-lock.json"
            )
        text = read(path)
        if text is None or path.name == "LICENSE":
            continue
        problems += hits(
            name, text, REGISTRIES, "address of a registry; which one is used is the machine's own setting"
        )
        problems += hits(name, text, MACHINE_PATHS, "a path of one machine")
        if path.name == "package-lock.json":
            problems += check_npm_lock(name, text)
        if path.parent.name == "requirements" and path.suffix == ".txt":
            problems += check_python_lock(name, text)
        if (
            (name.startswith("web/src/") or name == "web/index.html")
            and path.suffix in WEB_CODE
            and ".test." not in name
        ):
            web += 1
            problems += check_web(name, text)
    problems += check_dependencies(root)
    if web == 0:
        problems.append("repository: no file of the web client found")
    if not problems:
        print(f"repository: {len(files)} files, {web} of the web client, nothing that ties it to a machine")
    return problems


if __name__ == "__main__":
    found = check(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(bool(found))
