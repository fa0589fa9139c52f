// The core as a page would use it, outside a browser: the real App on real files, the real SQLite, the real server.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppState, CoreEvent, Message } from "../src/bridge/types";
import { App } from "../src/core/app";
import { diskFiles, loadFromDisk } from "../src/core/vault/testing/disk";

const WAIT_MS = 20_000;
export const PASSPHRASE = "seven quiet herons over the estuary";

export class TestBrowser {
  readonly events: CoreEvent[] = [];
  app: App;
  readonly folder = mkdtempSync(join(tmpdir(), "curbside-browser-"));
  readonly #origin: string;
  readonly #listeners = new Set<() => void>();

  private constructor(origin: string) {
    this.#origin = origin;
    this.app = this.#makeApp();
  }

  static async open(origin: string): Promise<TestBrowser> {
    const browser = new TestBrowser(origin);
    await browser.app.start();
    return browser;
  }

  /** A page whose owner has joined. */
  static async join(origin: string, link: string, name: string): Promise<TestBrowser> {
    const browser = await TestBrowser.open(origin);
    await browser.app.join({ link, name, passphrase: PASSPHRASE });
    await browser.until((state) => state.connection === "online");
    return browser;
  }

  /** As if the tab was closed without a word and opened again. */
  async reload(): Promise<void> {
    await this.app.lock();
    this.app = this.#makeApp();
    await this.app.start();
  }

  async until(holds: (state: AppState) => boolean): Promise<void> {
    await this.eventually(async () => holds(await this.app.state()));
  }

  /** Waits for events until `holds`; never by time alone. */
  async eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = Date.now() + WAIT_MS;
    while (!(await holds())) {
      const left = deadline - Date.now();
      if (left <= 0) throw new Error("it did not happen in time");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, Math.min(left, 250));
        const listeners = this.#listeners;
        function done(): void {
          clearTimeout(timer);
          listeners.delete(done);
          resolve();
        }
        listeners.add(done);
      });
    }
  }

  async messages(conversation: string): Promise<Message[]> {
    return (await this.app.messages(conversation, { limit: 200 })).messages;
  }

  async texts(conversation: string): Promise<string[]> {
    return (await this.messages(conversation)).map((message) => message.text);
  }

  async findPerson(name: string): Promise<string> {
    const found = (await this.app.people(name)).find((person) => person.name === name);
    if (found === undefined) throw new Error(`${name} is not in the directory`);
    return found.userId;
  }

  async close(): Promise<void> {
    await this.app.lock();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #makeApp(): App {
    const around = {
      files: diskFiles(this.folder),
      load: loadFromDisk,
      clock: { now: () => Date.now() },
      origin: this.#origin,
      label: "Test browser",
    };
    return new App(around, (event) => {
      this.events.push(event);
      for (const listener of [...this.#listeners]) listener();
    });
  }
}
