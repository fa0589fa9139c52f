// Types of the web client: tsc for the TypeScript files, svelte-check for the components. Warnings count as errors.
// The core is checked a second time without the types of a page: it has no DOM.

import { fail, root, runTool, sourceFiles } from "./run.mjs";

const typescript = sourceFiles("src", [".ts"]).length;
const components = sourceFiles("src", [".svelte"]).length;

const listed = runTool("typescript/bin/tsc", ["--noEmit", "--listFilesOnly"], { quiet: true });
const looked = listed.output.split("\n").filter((line) => line.startsWith(`${root}/src/`)).length;
if (listed.status !== 0 || looked === 0) fail(`types: tsc looked at ${looked} of our files\n${listed.output}`);

if (runTool("typescript/bin/tsc", ["--noEmit", "--pretty", "false"]).status !== 0) fail("types: tsc found errors");

// The core runs in a Worker: the same files again, with a Worker's types and without the page's.
const core = runTool("typescript/bin/tsc", ["--noEmit", "--pretty", "false", "-p", "tsconfig.core.json"], { quiet: true });
if (core.status !== 0) fail(`${core.output}\ntypes: the core does not fit into a Worker`);

const svelte = runTool(
  "svelte-check/bin/svelte-check",
  ["--tsconfig", "./tsconfig.json", "--fail-on-warnings", "--output", "machine"],
  { quiet: true },
);
const completed = /COMPLETED (\d+) FILES/.exec(svelte.output);
if (svelte.status !== 0) fail(`${svelte.output}\ntypes: svelte-check found errors`);
if (!completed || Number(completed[1]) === 0) fail(`types: svelte-check looked at no file\n${svelte.output}`);

console.log(`types: ${typescript} TypeScript files, ${components} components, 0 errors`);
