// Import rules of the web client (.dependency-cruiser.cjs). dependency-cruiser once read 0 modules and reported success,
// so the count of modules is part of the verdict.

import { fail, runTool, sourceFiles } from "./run.mjs";

const ours = sourceFiles("src", [".ts", ".svelte"]).filter((name) => !name.endsWith(".d.ts"));
const { output } = runTool(
  "dependency-cruiser/bin/dependency-cruiser.mjs",
  ["src", "--config", ".dependency-cruiser.cjs", "--output-type", "json"],
  { quiet: true },
);
let report;
try {
  report = JSON.parse(output.slice(output.indexOf("{")));
} catch {
  fail(`imports: dependency-cruiser gave no report\n${output}`);
}
const cruised = new Set(report.modules.map((module) => module.source));
const missed = ours.filter((name) => !cruised.has(name));
if (ours.length === 0) fail("imports: there is no source file in web/src");
if (missed.length > 0) fail(`imports: dependency-cruiser did not look at ${missed.join(", ")}`);
const edges = report.modules.filter((m) => m.source.startsWith("src/")).reduce((n, m) => n + m.dependencies.length, 0);
if (edges === 0 && ours.length > 1) fail("imports: dependency-cruiser saw no import at all");

for (const violation of report.summary.violations)
  console.error(`imports: ${violation.rule.name}: ${violation.from} → ${violation.to}`);
if (report.summary.error > 0) fail(`imports: ${report.summary.error} rules broken`);
console.log(`imports: ${ours.length} files, ${edges} imports, 0 rules broken`);
