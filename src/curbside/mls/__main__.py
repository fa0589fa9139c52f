"""MLS at the command line, without a server: `python -m curbside.mls --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from curbside.errors import CurbsideError
from curbside.mls.demo import run_demo
from curbside.mls.inspect import describe
from curbside.mls.vectors import run_file

_EXAMPLES = """examples:
  python -m curbside.mls vectors vectors/mls/*.json.xz   run the official test vectors
  python -m curbside.mls inspect 0001000500...           explain an MLSMessage given in hex
  python -m curbside.mls inspect welcome.bin             the same from a file
  python -m curbside.mls demo                            three members in memory

`inspect` prints what is public in a message; it has no keys and shows no secrets."""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _vectors(files: Sequence[str]) -> int:
    good = True
    for path in files:
        result = run_file(path)
        _say(f"{result.passed}/{result.total} {path.rpartition('/')[2]}")
        for failure in result.failures[:3]:
            sys.stderr.write(f"  {failure}\n")
        good = good and result.passed == result.total > 0
    return 0 if good else 1


def _inspect(source: str) -> int:
    try:
        data = bytes.fromhex(source)
    except ValueError:
        with open(source, "rb") as file:
            data = file.read()
    for line in describe(data):
        _say(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m curbside.mls",
        description="Messaging Layer Security (RFC 9420): test vectors, messages explained, a demonstration.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    vectors = commands.add_parser("vectors", help="run official test vectors (.json or .json.xz)")
    vectors.add_argument("files", nargs="+", metavar="FILE")
    inspect = commands.add_parser("inspect", help="explain an MLSMessage")
    inspect.add_argument("source", metavar="HEX|FILE")
    commands.add_parser("demo", help="three members create, add, talk, remove")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the result is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "vectors":
            return _vectors(options.files)
        if options.command == "inspect":
            return _inspect(options.source)
        for line in run_demo():
            _say(line)
    except CurbsideError as error:
        sys.stderr.write(f"{error.code}: {error.detail}\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot be read: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
