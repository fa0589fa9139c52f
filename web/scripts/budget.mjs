// What a phone loads before it can show the lock screen: index.html with everything it pulls in statically, gzipped.
// At most 250 KiB. Also: the page has no inline script, no inline style, and names no other origin.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { fail, root } from "./run.mjs";

const SHELL_KIB = 250;

const dist = join(root, "dist");
const manifestFile = join(dist, ".vite/manifest.json");
if (!existsSync(manifestFile)) fail("budget: web/dist is not built; next step: make web");
const manifest = JSON.parse(readFileSync(manifestFile, "utf8"));
const page = readFileSync(join(dist, "index.html"), "utf8");

/** Files of an entry and of what it imports statically; dynamic imports load after the first paint. */
function shell(key, found = new Set()) {
  const chunk = manifest[key];
  if (!chunk || found.has(chunk.file)) return found;
  for (const file of [chunk.file, ...(chunk.css ?? [])]) found.add(file);
  for (const next of chunk.imports ?? []) shell(next, found);
  return found;
}

const files = ["index.html", ...shell("index.html")];
if (files.length < 2) fail("budget: the manifest has no entry for index.html");
const sizes = files.map((file) => ({ file, kib: gzipSync(readFileSync(join(dist, file))).length / 1024 }));
const total = sizes.reduce((sum, { kib }) => sum + kib, 0);

if (/<script(?![^>]*\ssrc=)[^>]*>\s*\S/.test(page)) fail("budget: index.html has an inline script, which the policy blocks");
if (/<style|\sstyle=/.test(page)) fail("budget: index.html has an inline style, which the policy blocks");
if (/(src|href)="(https?:)?\/\//.test(page)) fail("budget: index.html names another origin");
if (total > SHELL_KIB) {
  for (const { file, kib } of sizes) console.error(`  ${kib.toFixed(1).padStart(7)} KiB  ${file}`);
  fail(`budget: ${total.toFixed(1)} KiB gzip before the first paint, at most ${SHELL_KIB}`);
}
console.log(`budget: ${total.toFixed(1)} of ${SHELL_KIB} KiB gzip in ${files.length} files before the first paint`);
