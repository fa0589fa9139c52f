// What the gates share: run a tool, count our own source files, and refuse to call an empty look a success.

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The web folder, or the copy under test. */
export const root = resolve(process.env.CURBSIDE_WEB_ROOT ?? join(dirname(fileURLToPath(import.meta.url)), ".."));

/** Runs a package's JavaScript entry with this very node. Returns { status, output }. */
export function runTool(entry, args, { quiet = false } = {}) {
  const result = spawnSync(process.execPath, [join(root, "node_modules", entry), ...args], {
    cwd: root,
    encoding: "utf8",
    stdio: quiet ? "pipe" : ["ignore", "inherit", "inherit"],
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error) throw result.error;
  return { status: result.status ?? 1, output: `${result.stdout ?? ""}${result.stderr ?? ""}` };
}

/** Our own source files below `folder` with one of the endings. */
export function sourceFiles(folder, endings) {
  const start = join(root, folder);
  if (!existsSync(start)) return [];
  return readdirSync(start, { recursive: true, encoding: "utf8" })
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .map((name) => join(folder, name));
}

export function fail(message) {
  console.error(message);
  process.exit(1);
}
