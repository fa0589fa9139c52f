// A real server for tests of the core: its own organisation in its own folder, on a free port.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const START_MS = 30_000;
const ASK_MS = 50;

export class TestServer {
  readonly origin: string;
  readonly #folder: string;
  #process: ChildProcess | undefined;

  private constructor(folder: string, origin: string) {
    this.#folder = folder;
    this.origin = origin;
  }

  static async start(): Promise<TestServer> {
    const folder = mkdtempSync(join(tmpdir(), "curbside-server-"));
    const port = await findFreePort();
    const server = new TestServer(folder, `http://localhost:${port}`);
    const where = ["--url", server.origin, "--port", String(port), "--no-passphrase"];
    run("init", "--folder", join(folder, "organization"), "--name", "Sankt Elsewhere", ...where);
    await server.resume();
    return server;
  }

  /** One invite link. */
  invite(role: string): string {
    const printed = run("invite", "--folder", join(this.#folder, "organization"), "--role", role, "--json", "--no-qr");
    return (JSON.parse(printed) as { link: string }).link;
  }

  async resume(): Promise<void> {
    const args = ["-m", "curbside", "serve", "--folder", join(this.#folder, "organization")];
    const child = spawn(python(), args, { cwd: ROOT, stdio: ["ignore", "ignore", "ignore"] });
    this.#process = child;
    const deadline = Date.now() + START_MS;
    while (!(await this.#isReady())) {
      if (Date.now() > deadline || child.exitCode !== null) throw new Error("the server did not start");
      await new Promise((resolve) => setTimeout(resolve, ASK_MS));
    }
  }

  /** Ends the process as a crash would. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #isReady(): Promise<boolean> {
    try {
      return (await fetch(`${this.origin}/v1/health/ready`)).ok;
    } catch {
      return false;
    }
  }
}

function python(): string {
  const found = [".venv/bin/python", ".venv/Scripts/python.exe"].map((path) => join(ROOT, path)).find(existsSync);
  if (found === undefined) throw new Error("there is no .venv: run make setup");
  return found;
}

function run(...args: string[]): string {
  return execFileSync(python(), ["-m", "curbside", ...args], { cwd: ROOT, encoding: "utf8" });
}

/** Below the ports that clients' own connections take. */
async function findFreePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const free = await new Promise<boolean>((resolve) => {
      const probe = createServer();
      probe.once("error", () => resolve(false));
      probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

/** A device of the Python client, driven through the command line. */
export class PythonDevice {
  readonly #vault: string;
  readonly #passphraseFile: string;

  private constructor(folder: string) {
    this.#vault = join(folder, "device.vault");
    this.#passphraseFile = join(folder, "passphrase");
  }

  static join(folder: string, link: string, name: string): PythonDevice {
    const device = new PythonDevice(folder);
    writeFileSync(device.#passphraseFile, "nine loud otters under the pier");
    device.#run("join", link, "--name", name);
    return device;
  }

  send(conversation: string, text: string): void {
    this.#run("send", conversation, text);
  }

  sendPhoto(conversation: string, file: string, caption: string): void {
    this.#run("send", conversation, "--photo", file, caption);
  }

  /** Enters the conversations that it was added to; the next command then finds them by title. */
  catchUp(): void {
    this.#run("conversations");
  }

  /** Catches up, and gives what is there, one object a message. */
  receive(conversation: string): { text: string; sender_name: string }[] {
    return parseLines(this.#run("receive", conversation, "--last", "200"));
  }

  start(userId: string, title: string): void {
    this.#run("conversations", "--start", userId, "--title", title);
  }

  /** Removes this device from its account, as its owner would after losing it. */
  revokeItself(): void {
    const program = `
import asyncio, sys
from pathlib import Path
from curbside.client import Device

async def main():
    async with await Device.open(Path(sys.argv[1]), Path(sys.argv[2]).read_text()) as device:
        await device.connection.wait_caught_up()
        await device.transport.call("DELETE", f"/v1/devices/{device.device_id}", type(None))

asyncio.run(main())`;
    execFileSync(python(), ["-c", program, this.#vault, this.#passphraseFile], { cwd: ROOT });
  }

  #run(...args: string[]): string {
    return run(...args, "--vault", this.#vault, "--passphrase-file", this.#passphraseFile, "--json");
  }
}

function parseLines<T>(printed: string): T[] {
  const lines = printed.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line) as T);
}
