"""Writes the vectors that hold the Python and the TypeScript of the trust chain together.

    python tools/make_trust_vectors.py            write vectors/trust/*.json
    python tools/make_trust_vectors.py --check    fail when a file is not what would be written

All keys come from labels, so the same code writes the same bytes. Which check refuses a case is written here by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import trust_cases_certificates
import trust_cases_rules
import trust_cases_secrets

ROOT = Path(__file__).resolve().parent.parent
FILES: dict[str, Any] = {
    "certificates": trust_cases_certificates.certificates,
    "chains": trust_cases_certificates.chains,
    "invites": trust_cases_certificates.invites,
    "safety_numbers": trust_cases_certificates.safety_numbers,
    "proofs": trust_cases_secrets.proofs,
    "passphrases": trust_cases_secrets.passphrases,
    "attachments": trust_cases_secrets.attachments,
    "group_rules": trust_cases_rules.group_rules,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    folder = ROOT / "vectors" / "trust"
    folder.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in FILES.items():
        path = folder / f"{name}.json"
        text = json.dumps(make(), indent=1, ensure_ascii=True) + "\n"
        if check and (not path.exists() or path.read_text("utf-8") != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text, "utf-8")
    if stale:
        print(f"trust vectors: stale: {', '.join(stale)}; run python tools/make_trust_vectors.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
