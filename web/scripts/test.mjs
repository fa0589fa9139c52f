// Tests of the web core (vitest). No test at all is a failure.

import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fail, runTool } from "./run.mjs";

const results = join(tmpdir(), `curbside-vitest-${process.pid}.json`);
const { status } = runTool("vitest/vitest.mjs", [
  "run",
  "--reporter=default",
  "--reporter=json",
  `--outputFile=${results}`,
  ...process.argv.slice(2),
]);
let passed = 0;
try {
  passed = JSON.parse(readFileSync(results, "utf8")).numPassedTests;
} catch {
  fail("web tests: vitest gave no report");
} finally {
  rmSync(results, { force: true });
}
if (status !== 0) fail("web tests: failed");
if (passed === 0) fail("web tests: no test ran");
console.log(`web tests: ${passed} passed`);
