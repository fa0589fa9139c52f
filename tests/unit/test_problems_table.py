"""Every problem has a text, a next step and a code of its own, and docs/problems.md lists it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import pytest

from curbside.errors import CurbsideError, NotFound

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import problems_table


def test_the_document_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["problems_table.py", "--check"])
    assert problems_table.main() == 0
    assert len(problems_table.list_errors()) > 30


def test_a_document_that_is_not_current_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["problems_table.py", "--check"])
    monkeypatch.setattr(problems_table, "HEAD", "# Something else")
    assert problems_table.main() == 1
    assert "run tools/problems_table.py" in capsys.readouterr().err


def test_an_error_without_words_or_with_a_used_code_is_found() -> None:
    class Silent:
        __name__ = "Silent"
        code: ClassVar[str] = NotFound.code
        title = next_step = ""

    gaps = problems_table.find_gaps([NotFound, Silent])  # type: ignore[list-item]
    assert gaps == ["Silent has no title or next step", "the code not_found stands twice"]
    assert CurbsideError not in problems_table.list_errors()
