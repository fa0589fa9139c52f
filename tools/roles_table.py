"""docs/roles.md: who may do what, made from the routes and the access rules.

python tools/roles_table.py            write it
python tools/roles_table.py --check    fail if it is not what the routes and rules say
"""

from __future__ import annotations

import sys
from pathlib import Path

from curbside.policy.access import ANY, RULES, Relation, Role, Rule
from curbside.server.interface import ROUTES, check_routes

TARGET = Path(__file__).resolve().parent.parent / "docs" / "roles.md"
WORDS = {
    Relation.OWN: "own",
    Relation.MEMBER: "as member",
    Relation.SHARED: "shared",
}
STREAM = {"R-stream", "R-message-send", "R-message-read"}
HEAD = """# Who may do what

Made by `tools/roles_table.py` from the routes and from `src/curbside/policy/access.py`; do not edit.
`tests/integration/test_roles.py` calls each route in each role, and fails where an answer differs from this table.

- **yes**: for any object. **no**: never. **own**: the asker's own user, device or upload.
- **as member**: of that conversation. **shared**: people with whom the asker shares a conversation.
- **filtered**: the answer holds only people with whom the asker shares a conversation.
- A refusal of a rule marked *hidden* looks exactly like absence (`not_found`); others are `policy_denied`.
- What a conversation's members may change in it is the conversation's own signed policy ([trust.md](trust.md)).
"""


def describe(rule: Rule, role: Role) -> str:
    """One cell: what the rule gives to a role."""
    words: list[str] = []
    for grant in rule.grants:
        if role not in grant.roles:
            continue
        if grant.relations == ANY:
            return "filtered" if grant.duties else "yes"
        words += [WORDS[relation] for relation in Relation if relation in grant.relations]
    return ", ".join(words) or "no"


def row(first: str, rule: Rule) -> str:
    """One line of the table."""
    cells = ["anyone"] * len(Role) if rule.public else [describe(rule, role) for role in Role]
    hidden = " *(hidden)*" if rule.hides else ""
    return f"| {first} | {rule.id}{hidden} | " + " | ".join(cells) + " |"


def build() -> str:
    """The whole document."""
    check_routes(ROUTES)
    roles = " | ".join(role.value.replace("_", " ") for role in Role)
    head = f"| route | rule | {roles} |\n|" + "---|" * (len(Role) + 2)
    named: set[str] = set()
    rows = []
    for route in sorted(ROUTES, key=lambda each: (min(each.paths), sorted(each.http_methods))):
        rule = RULES[route.opt["rule"]]
        named.add(rule.id)
        path = min(route.paths).replace(":str}", "}")
        rows.append(row(f"{' '.join(sorted(route.http_methods))} {path}", rule))
    others = [row("stream" if rule.id in STREAM else "—", rule) for rule in RULES.values() if rule.id not in named]
    rules = [f"| {rule.id} | {rule.sentence} |" for rule in RULES.values()]
    tables = [HEAD, "## Routes\n", head, *rows, "\n## Not routes\n", head, *others]
    return "\n".join([*tables, "\n## Rules\n", "| rule | says |\n|---|---|", *rules, ""])


def main() -> int:
    """Exit code 1 when --check finds a difference."""
    text = build()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
        print(f"wrote {TARGET.name}: {len(ROUTES)} routes, {len(RULES)} rules")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print("docs/roles.md is not what the routes and rules say: run tools/roles_table.py", file=sys.stderr)
        return 1
    print(f"roles: {len(ROUTES)} routes, {len(RULES)} rules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
