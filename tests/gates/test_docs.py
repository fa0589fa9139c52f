"""The documents' gate: the table of a sent message, links, and claims that must not be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_docs import check
from claims import find_claims

TABLE = """# Architecture

| # | side | file : function | does |
|---|---|---|---|
| 1 | client | `client/device.py: Device.send` → `client/outbox.py: drain` | writes |
| 2 | server | `server/routes/messages.py: submit` | parses |
| 3 | server | `web/src/core/engine.ts: step` | steps |
"""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    files = {
        "ARCHITECTURE.md": TABLE,
        "README.md": "# Read me\n\nSee [the table](ARCHITECTURE.md#architecture) and [me](#read-me).\n",
        "src/curbside/client/device.py": "class Device:\n    async def send(self): ...\n",
        "src/curbside/client/outbox.py": "def drain(): ...\n",
        "src/curbside/server/routes/messages.py": "def submit(): ...\n",
        "web/src/core/engine.ts": "export class Engine {\n  step(event: Event): void {}\n}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def change(root: Path, name: str, old: str, new: str) -> list[str]:
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return check(root)


def test_good_documents_pass(documents: Path) -> None:
    assert check(documents) == []


def test_function_that_is_gone(documents: Path) -> None:
    assert (
        "Device.send, which does not exist"
        in change(documents, "src/curbside/client/device.py", "async def send", "async def post")[0]
    )


def test_function_that_is_gone_from_the_web_client(documents: Path) -> None:
    assert "engine.ts: step" in change(documents, "web/src/core/engine.ts", "step(", "advance(")[0]


def test_file_that_is_gone(documents: Path) -> None:
    (documents / "src/curbside/client/outbox.py").unlink()
    assert "client/outbox.py, which does not exist" in check(documents)[0]


def test_six_files_on_one_side(documents: Path) -> None:
    rows = ""
    for number in range(6):
        (documents / f"src/curbside/client/f{number}.py").write_text("def f(): ...\n")
        rows += f"| 9 | client | `client/f{number}.py: f` | more |\n"
    assert (
        "crosses 8 files on the client side"
        in change(documents, "ARCHITECTURE.md", "| 2 | server", rows + "| 2 | server")[0]
    )


def test_no_table(documents: Path) -> None:
    (documents / "ARCHITECTURE.md").write_text("# Architecture\n\nSoon.\n")
    assert "must open with a table" in check(documents)[0]


@pytest.mark.parametrize("link", ["docs/gone.md", "ARCHITECTURE.md#gone", "#gone", "../outside.md"])
def test_link_that_leads_nowhere(documents: Path, link: str) -> None:
    (documents.parent / "outside.md").touch()
    assert any("link to" in problem for problem in change(documents, "README.md", "#read-me", link))


def test_no_document_is_a_failure(tmp_path: Path) -> None:
    assert check(tmp_path) == ["docs: no Markdown file found"]


@pytest.mark.parametrize(
    "claim",
    [
        "Curbside is HIPAA certified.",
        "The result is HIPAA compliant.",
        "The NPRM requires it.",
        "We cannot read it, so no BAA needed.",
        "It is encrypted, so there is no breach.",
        "FIPS 140-3 validated",
        "Nobody but you can read them.",
        "The app blocks screenshots.",
        "Screenshots are blocked.",
        "Remote wipe erases a lost phone.",
        "Messages are gone everywhere.",
        "There is no metadata.",
        "We use sealed sender.",
        "Key transparency prevents interception.",
        "A read receipt proves that.",
        "The log is tamper-proof.",
        "Files are virus-scanned.",
        "Password rules are enforced by the server.",
        "A 6-digit PIN protects your data.",
        "It is safe on jailbroken phones.",
        "It replaces the EHR.",
        "Forward secrecy protects old messages.",
        "HIPAA bans WhatsApp.",
        "HIPAA requires end-to-end encryption.",
        "Messages are deniable.",
        "non-repudiation for all",
        "military-grade encryption",
        "It is quantum-safe.",
        "GDPR compliant",
    ],
)
def test_claim_that_cannot_be_true(claim: str) -> None:
    assert find_claims(f"First line.\n{claim}\n")[0][0] == 2


@pytest.mark.parametrize(
    "sentence",
    [
        "Curbside is not HIPAA certified; nobody can be.",
        "No app blocks screenshots.",
        "The log is tamper-evident, not tamper-proof.",
        "The PIN works only together with the server's share.",
        "We do not claim that messages are deniable.",
        "Made to support a HIPAA programme.",
        "The operator needs a BAA.",
        "<!-- claims: quoted -->\nHIPAA certified\n<!-- claims: ours -->",
    ],
)
def test_honest_sentence(sentence: str) -> None:
    assert find_claims(sentence) == []


def test_screens_are_read_too(documents: Path) -> None:
    (documents / "web/src/About.svelte").write_text("<p>Military-grade encryption</p>\n")
    assert "About.svelte:1: claims 'Military-grade'" in check(documents)[0]
