// Applies patches/*.patch to node_modules and proves the result.
//
// Beside each `<name>.patch` lies `<name>.json`: SHA-256 of every file before and after. A file that is neither stops
// the build: the client must not be made from cryptographic code that nobody has reviewed. Running it twice is harmless.
//
//   node scripts/apply-patches.mjs            apply and verify
//   node scripts/apply-patches.mjs --record   after changing a patch: write the JSON anew (from a fresh `npm ci`)

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** Splits a unified diff into files: [{ path, hunks: [{ start, lines }] }]. Paths lose their `a/` or `b/`. */
export function parsePatch(text) {
  const files = [];
  let file;
  let hunk;
  for (const line of text.split("\n")) {
    if (line.startsWith("--- ")) {
      file = { path: line.slice(4).replace(/^[ab]\//, "").trim(), hunks: [] };
      files.push(file);
      hunk = undefined;
    } else if (line.startsWith("+++ ") && !hunk) {
      continue;
    } else if (line.startsWith("@@ ")) {
      const start = /^@@ -(\d+)/.exec(line);
      if (!file || !start) throw new Error(`cannot read the hunk header: ${line}`);
      hunk = { start: Number(start[1]), lines: [] };
      file.hunks.push(hunk);
    } else if (hunk && /^[ +-]/.test(line)) {
      hunk.lines.push(line);
    }
  }
  return files;
}

/** The text after the hunks. Every context and removed line must match exactly; no searching about. */
export function applyHunks(text, hunks) {
  const source = text.split("\n");
  const result = [];
  let at = 0;
  for (const hunk of hunks) {
    result.push(...source.slice(at, hunk.start - 1));
    at = hunk.start - 1;
    for (const line of hunk.lines) {
      const rest = line.slice(1);
      if (line[0] === "+") {
        result.push(rest);
        continue;
      }
      if (source[at] !== rest) throw new Error(`line ${at + 1} is not what the patch expects`);
      if (line[0] === " ") result.push(rest);
      at += 1;
    }
  }
  result.push(...source.slice(at));
  return result.join("\n");
}

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

/** Applies one patch below `root`. Returns how many files were written. Throws when a file is neither original nor patched. */
export function applyPatch(root, patchText, expected) {
  let written = 0;
  const files = parsePatch(patchText);
  const named = files.map((f) => f.path).sort();
  if (files.length === 0 || JSON.stringify(named) !== JSON.stringify(Object.keys(expected).sort()))
    throw new Error("the patch and its checksums name different files");
  for (const { path, hunks } of files) {
    const target = join(root, path);
    const text = readFileSync(target, "utf8");
    const { before, after } = expected[path];
    if (sha256(text) === after) continue;
    if (sha256(text) !== before) throw new Error(`${path} is neither the published file nor the patched one`);
    const patched = applyHunks(text, hunks);
    if (sha256(patched) !== after) throw new Error(`${path} came out different from what was reviewed`);
    writeFileSync(target, patched);
    written += 1;
  }
  return written;
}

function record(root, patchText) {
  const sums = {};
  for (const { path, hunks } of parsePatch(patchText)) {
    const text = readFileSync(join(root, path), "utf8");
    sums[path] = { before: sha256(text), after: sha256(applyHunks(text, hunks)) };
  }
  return sums;
}

function main() {
  const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
  const folder = join(root, "patches");
  const patches = readdirSync(folder).filter((name) => name.endsWith(".patch"));
  if (patches.length === 0) throw new Error("no patch found in web/patches");
  for (const name of patches) {
    const patchText = readFileSync(join(folder, name), "utf8");
    const sums = join(folder, name.replace(/\.patch$/, ".json"));
    if (process.argv.includes("--record")) writeFileSync(sums, JSON.stringify(record(root, patchText), null, 2) + "\n");
    const expected = JSON.parse(readFileSync(sums, "utf8"));
    const written = applyPatch(root, patchText, expected);
    const total = Object.keys(expected).length;
    console.log(`patch ${name}: ${total} files verified, ${written} changed now`);
  }
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    main();
  } catch (error) {
    console.error(`patch failed: ${error.message}`);
    console.error("next step: remove web/node_modules and run `make web`; if it fails again, the package was changed upstream.");
    process.exit(1);
  }
}
