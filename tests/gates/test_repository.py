"""Nothing that ties the repository to one machine, and nothing that weakens the web client, gets past the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_repo import check


def test_repository_is_clean(root: Path) -> None:
    assert check(root) == []


def test_small_repository_is_accepted(repository: Path) -> None:
    assert check(repository) == []


def test_no_web_file_is_a_failure(repository: Path) -> None:
    (repository / "web/src/main.ts").unlink()
    assert check(repository) == ["repository: no file of the web client found"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("README.md", "from https://" + "pypi" + ".org/simple\n", "address of a registry"),
        ("docs/a.md", "kept in /" + "work/main\n", "a path of one machine"),
        ("docs/a.md", "see .." + "/shared/DESIGN.md\n", "a path of one machine"),
        ("uv.lock", "", "a lock that records addresses"),
        (
            "web/package-lock.json",
            '{"packages": {"node_modules/a": {"integrity": "x", "resolved": "y"}}}',
            "where it came",
        ),
        ("web/package-lock.json", '{"packages": {"node_modules/a": {"version": "1.0.0"}}}', "no integrity hash"),
        ("web/package-lock.json", '{"packages": {}}', "locks no package"),
        ("requirements/run.txt", "click==8.5.1\n", "has no hash"),
        ("requirements/run.txt", "click>=8 \\\n    --hash=sha256:00\n", "not pinned"),
        ("requirements/run.txt", "--index-url a://b\nclick==8.5.1 --hash=sha256:00\n", "names no address"),
        ("requirements/run.in", "", "run.in lacks click"),
        ("requirements/run.in", "click\nhttpx\n", "run.txt lacks httpx"),
        ("src/curbside/other.py", "import numpy\n", "imports numpy"),
        ("tests/unit/test_a.py", "import numpy\n", "test.in does not name"),
        ("web/src/a.ts", 'localStorage.setItem("a", "b");\n', "storage that nothing encrypts"),
        ("web/src/a.svelte", "<p>{@html text}</p>\n", "Trusted Types"),
        ("web/src/a.ts", "node.innerHTML = text;\n", "Trusted Types"),
        ("web/src/a.ts", "document.cookie;\n", "cookies"),
        ("web/src/a.ts", 'fetch("https://fonts.somewhere.com/x");\n', "another origin"),
        ("web/src/a.ts", 'new Function("x");\n', "code made at run time"),
    ],
)
def test_seeded_violation_is_found(repository: Path, name: str, text: str, expected: str) -> None:
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert any(expected in problem for problem in check(repository))
