"""Pictures and checks of the page, from the preview build (tools/page_preview.py).

    .venv/bin/python tools/screens.py            docs/screens/*.png: five screens, light and dark, phone and desktop
    .venv/bin/python tools/screens.py --check    every state at three sizes: axe-core, overflow, policy; no pictures

1 when the browser reported an error, axe-core a serious violation, or a page is wider than its screen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from page_preview import ROOT, SCREENS, SIZES, STATES, Walk, build_preview, launch, serve

AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
AXE_RUN = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
SERIOUS = {"serious", "critical"}
COLOURS = 128
COLOURS_OF_CAMERA = 40  # the pretend camera adds noise that no PNG packs


@dataclass
class Findings:
    """What was looked at, and what was wrong with it."""

    looked: int = 0
    faults: list[str] = field(default_factory=list)


def new_context(browser: Browser, size: str, scheme: str) -> BrowserContext:
    """A phone or a desktop, in the light or in the dark."""
    width, height = SIZES[size]
    is_phone = size != "desktop"
    return browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=2 if is_phone else 1,
        color_scheme="light" if scheme == "light" else "dark",
        has_touch=is_phone,
        is_mobile=is_phone,
        locale="en-GB",
        permissions=["camera"],
        reduced_motion="reduce",
    )


def listen(page: Page, where: str, findings: Findings) -> None:
    """Errors of the page and breaches of the policy become faults."""
    page.on("console", lambda m: findings.faults.append(f"{where}: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: findings.faults.append(f"{where}: {error}"))


def shoot(browser: Browser, address: str, out: Path, only: str) -> Findings:
    """Takes every picture whose name holds `only`."""
    findings = Findings()
    for size in ("phone", "desktop"):
        for scheme in ("light", "dark"):
            with new_context(browser, size, scheme) as context:
                for name, walk in SCREENS.items():
                    where = f"{name}-{size}-{scheme}"
                    if only in where:
                        page = context.new_page()
                        listen(page, where, findings)
                        walk(page, address)
                        page.wait_for_timeout(250)
                        save(page, out / f"{where}.png")
                        page.close()
                        findings.looked += 1
    return findings


def save(page: Page, path: Path) -> None:
    """One picture, with few enough colours to be small."""
    page.screenshot(path=path)
    colours = COLOURS_OF_CAMERA if path.name.startswith("camera") else COLOURS
    Image.open(path).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)


def check(browser: Browser, address: str, only: str) -> Findings:
    """Looks at every state whose name holds `only`, small to large."""
    findings = Findings()
    for size, scheme in (("narrow", "dark"), ("phone", "light"), ("desktop", "dark"), ("desktop", "light")):
        with new_context(browser, size, scheme) as context:
            for name, walk in STATES.items():
                where = f"{name}-{size}-{scheme}"
                if only in where:
                    check_state(context.new_page(), walk, address, where, findings)
    return findings


def check_state(page: Page, walk: Walk, address: str, where: str, findings: Findings) -> None:
    """One state: no error, nothing wider than the screen, nothing serious for axe-core."""
    listen(page, where, findings)
    walk(page, address)
    page.wait_for_timeout(150)
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        findings.faults.append(f"{where}: wider than the screen")
    page.evaluate(AXE.read_text("utf-8"))
    report = page.evaluate(AXE_RUN)
    if not report["passes"]:
        findings.faults.append(f"{where}: axe-core looked at nothing")
    for violation in report["violations"]:
        if violation["impact"] in SERIOUS:
            findings.faults.append(f"{where}: {violation['id']}: {violation['nodes'][0]['html'][:120]}")
    findings.looked += 1
    page.close()


def main() -> int:
    """Builds, serves, looks. 1 when something is wrong or nothing was looked at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/screens")
    parser.add_argument("--only", default="", help="part of a name, e.g. list-phone")
    parser.add_argument("--check", action="store_true", help="check all states instead of taking pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build_preview(work / "build")
        with serve(work / "build") as address, sync_playwright() as driver:
            browser = launch(driver, work)
            if options.check:
                findings = check(browser, address, options.only)
            else:
                options.out.mkdir(parents=True, exist_ok=True)
                findings = shoot(browser, address, options.out, options.only)
            browser.close()
    for fault in sorted(set(findings.faults)):
        print(f"screens: {fault}", file=sys.stderr)
    print(f"screens: {findings.looked} looked at, {len(findings.faults)} faults")
    return 1 if findings.faults or findings.looked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
