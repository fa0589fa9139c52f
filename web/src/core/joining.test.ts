// Sign-up against the real server, over a network that loses answers.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Surroundings } from "./account";
import { App } from "./app";
import { diskFiles, loadFromDisk } from "./vault/testing/disk";

const ROOT = new URL("../../../", import.meta.url);
const VENV = fileURLToPath(new URL(".venv/bin/python", ROOT));
const PYTHON = process.env["CURBSIDE_PYTHON"] ?? (existsSync(VENV) ? VENV : "python3");
const PASSPHRASE = "violet kettle marching 47 otters";
const FINISH = "/v1/signup/finish";
const honest = globalThis.fetch;

let folder: string;
let origin: string;
let server: ChildProcess;
let around: Surroundings;
let vaults: string;

function curbside(...args: string[]): string {
  return execFileSync(PYTHON, ["-m", "curbside", ...args], { cwd: ROOT, encoding: "utf8" });
}

function isReady(): Promise<boolean> {
  return honest(`${origin}/v1/health/ready`).then((answer) => answer.ok, () => false);
}

beforeAll(async () => {
  folder = join(mkdtempSync(join(tmpdir(), "joining-")), "organization");
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  origin = `http://localhost:${port}`;
  curbside("init", "--folder", folder, "--name", "Sankt Elsewhere", "--url", origin, "--port", `${port}`, "--no-passphrase");
  server = spawn(PYTHON, ["-m", "curbside", "serve", "--folder", folder], { cwd: ROOT, stdio: "ignore" });
  while (!(await isReady())) if (server.exitCode !== null) throw new Error("the server did not start");
}, 60_000);

afterAll(() => {
  server.kill();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => {
  vaults = mkdtempSync(join(tmpdir(), "joining-vault-"));
  around = { files: diskFiles(vaults), load: loadFromDisk, clock: { now: Date.now }, origin, label: "phone" };
});

afterEach(() => {
  globalThis.fetch = honest;
  rmSync(vaults, { recursive: true, force: true });
});

/** The network goes away at the end of a sign-up. arrives: requests still do, and only the answers are lost. */
function loseEnd(arrives: boolean): void {
  globalThis.fetch = async (...call: Parameters<typeof fetch>): Promise<Response> => {
    if (!String(call[0]).endsWith(FINISH)) return honest(...call);
    if (arrives) await (await honest(...call)).arrayBuffer();
    globalThis.fetch = () => Promise.reject(new TypeError("no network"));
    throw new TypeError("no network");
  };
}

async function start(): Promise<App> {
  const app = new App(around, () => undefined);
  await app.start();
  return app;
}

it.each([true, false])("finishes a sign-up whose end nobody heard when it is unlocked (taken: %s)", async (arrives) => {
  const { link } = JSON.parse(curbside("invite", "--folder", folder, "--role", "nurse", "--json", "--no-qr")) as { link: string };
  const input = { link, name: "Alice Ang", passphrase: PASSPHRASE };
  const app = await start();
  loseEnd(arrives);
  await expect(app.join(input)).rejects.toMatchObject({ code: "peer_unavailable" });
  expect((await app.state()).phase).toBe("locked");
  await expect(app.unlock(PASSPHRASE)).rejects.toMatchObject({ code: "peer_unavailable" });
  globalThis.fetch = honest;
  const again = await start();
  expect((await again.state()).phase).toBe("locked");
  if (!arrives) {
    await expect(again.unlock(PASSPHRASE)).rejects.toMatchObject({ code: "not_found" });
    await again.join(input);
  } else await again.unlock(PASSPHRASE);
  expect(await again.state()).toMatchObject({ phase: "open", me: { name: "Alice Ang" } });
  await again.lock();
}, 60_000);
