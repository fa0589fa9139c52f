"""docs/problems.md: every problem a person or program can meet, made from the tree of errors.

python tools/problems_table.py            write it
python tools/problems_table.py --check    fail if it is not what src/curbside/errors.py says
"""

from __future__ import annotations

import sys
from pathlib import Path

from curbside.errors import CurbsideError

TARGET = Path(__file__).resolve().parent.parent / "docs" / "problems.md"
RETRY = {"never": "no", "later": "yes, after a wait", "after_sync": "yes, after catching up"}
HEAD = """# Problems

Made by `tools/problems_table.py` from `src/curbside/errors.py`; do not edit. On HTTP a problem is
`application/problem+json` (RFC 9457) with `type` = `urn:curbside:problem:<code>`, on the stream a `Refused` or
`Closing` frame with the code. The SDK raises the class again; the web client has the same table
(`core/errors.generated.ts`).

| code | status | what people read | what to do | the app tries again by itself | class |
|---|---|---|---|---|---|"""


def list_errors() -> list[type[CurbsideError]]:
    """All errors that can be raised, by code."""
    found: list[type[CurbsideError]] = []
    waiting = [CurbsideError]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if "code" in vars(kind):
                found.append(kind)
    return sorted(found, key=lambda kind: kind.code)


def find_gaps(errors: list[type[CurbsideError]]) -> list[str]:
    """What an error lacks: a text, a next step, or a code of its own."""
    codes = [kind.code for kind in errors]
    gaps = [f"{kind.__name__} has no title or next step" for kind in errors if not (kind.title and kind.next_step)]
    return gaps + [f"the code {code} stands twice" for code in sorted({c for c in codes if codes.count(c) > 1})]


def build() -> str:
    """The whole document."""
    rows = [
        f"| {kind.code} | {kind.status} | {kind.title} | {kind.next_step} | {RETRY[kind.retry]} | {kind.__name__} |"
        for kind in list_errors()
    ]
    return "\n".join([HEAD, *rows, ""])


def main() -> int:
    """Exit code 1 when an error lacks something or --check finds a difference."""
    errors = list_errors()
    gaps = find_gaps(errors)
    if gaps or not errors:
        print("\n".join(gaps or ["no errors were found"]), file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(build(), encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != build():
        print("docs/problems.md is not what the errors say: run tools/problems_table.py", file=sys.stderr)
        return 1
    print(f"problems: {len(errors)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
