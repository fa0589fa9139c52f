// Size budget of the web client: files 600 lines (tests 800), functions 60, folders at most two below src.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { fail, root, sourceFiles } from "./run.mjs";

const FILE_LINES = 600;
const TEST_FILE_LINES = 800;
const FUNCTION_LINES = 60;
const FOLDER_DEPTH = 2;

const { default: ts } = await import(pathToFileURL(join(root, "node_modules/typescript/lib/typescript.js")).href);

/** The TypeScript of a file: a component's scripts, with the lines before them left blank so that numbers stay true. */
function scriptOf(name, text) {
  if (!name.endsWith(".svelte")) return text;
  let script = "";
  for (const match of text.matchAll(/<script[^>]*>([\s\S]*?)<\/script>/g)) {
    const start = match.index + match[0].indexOf(match[1]);
    script += "\n".repeat(text.slice(0, start).split("\n").length - script.split("\n").length) + match[1];
  }
  return script;
}

function* longFunctions(name, text) {
  const source = ts.createSourceFile(name, scriptOf(name, text), ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);
  const line = (position) => source.getLineAndCharacterOfPosition(position).line + 1;
  const queue = [source];
  for (let node = queue.pop(); node; node = queue.pop()) {
    if (ts.isFunctionLike(node) && node.body) {
      const first = line(node.getStart());
      const lines = line(node.getEnd()) - first + 1;
      if (lines > FUNCTION_LINES) yield { first, lines };
    }
    ts.forEachChild(node, (child) => void queue.push(child));
  }
}

const files = [...sourceFiles("src", [".ts", ".svelte", ".css"]), ...sourceFiles("tests", [".ts"])];
if (files.length === 0) fail("sizes: no source file in web/src");
const problems = [];
for (const name of files) {
  const text = readFileSync(join(root, name), "utf8");
  const isTest = name.endsWith(".test.ts") || name.startsWith("tests/") || name.includes("/testing/");
  const limit = isTest ? TEST_FILE_LINES : FILE_LINES;
  const lines = text.split("\n").length - 1;
  if (lines > limit) problems.push(`web/${name}: ${lines} lines, at most ${limit}`);
  const depth = name.split("/").length - 2;
  if (depth > FOLDER_DEPTH && !isTest) problems.push(`web/${name}: ${depth} folders below src, at most ${FOLDER_DEPTH}`);
  // A test file's describe() block is a list of tests, not a function that somebody has to follow.
  if (name.endsWith(".css") || isTest) continue;
  for (const { first, lines: length } of longFunctions(name, text))
    problems.push(`web/${name}:${first}: a function of ${length} lines, at most ${FUNCTION_LINES}`);
}
if (problems.length > 0) fail(problems.join("\n"));
console.log(`sizes: ${files.length} web files within budget`);
