// The page's end of the bridge: starts the Worker, asks it, and hears its events.
//
// One tab at a time owns the vault. The Web Lock is held by the page, not by the Worker, so that locking can end the
// Worker: nothing that it held in memory stays, whatever the garbage collector does.

import workerUrl from "../core/worker.ts?worker&url";
import { type FromWorker, METHODS, type Method, type ToWorker } from "./protocol";
import type { AppState, Core, CoreEvent, Problem } from "./types";

const VAULT_LOCK = "curbside vault";
const OTHER_TAB: AppState = { phase: "other-tab", connection: "offline", waiting: 0 };
const BUSY: Problem = {
  code: "vault_busy",
  title: "Curbside is open elsewhere on this device.",
  detail: "Curbside is open in another tab or window.",
  nextStep: "Use the other window, or close it and try again.",
};
const LOST: Problem = {
  code: "vault_locked",
  title: "Curbside is locked.",
  detail: "Curbside was locked before it could answer.",
  nextStep: "Unlock it with your passphrase.",
};

export type Listener = (event: CoreEvent) => void;

export interface CoreClient {
  readonly core: Core;
  /** Returns what ends the subscription. */
  subscribe(listener: Listener): () => void;
}

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (problem: Problem) => void;
}

/** Starts the core, or waits kindly until another tab gives it free. Call it once. */
export function connectCore(): CoreClient {
  const client = new WorkerClient();
  void client.start();
  return { core: client.core, subscribe: (listener) => client.subscribe(listener) };
}

class WorkerClient {
  readonly core: Core;
  readonly #listeners = new Set<Listener>();
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #isOtherTab = false;
  #nextId = 1;
  #started: Promise<void>;
  #markStarted: () => void = () => undefined;

  constructor() {
    this.#started = new Promise((resolve) => (this.#markStarted = resolve));
    const call = (method: Method) => (...args: unknown[]) => this.#call(method, args);
    const methods = Object.fromEntries(METHODS.map((method) => [method, call(method)])) as unknown as Core;
    this.core = { ...methods, lock: () => this.#lock() };
  }

  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async start(): Promise<void> {
    // Without Web Locks (an old browser, or no https) the Worker says what is missing.
    if (!("locks" in navigator)) return this.#own();
    const forever = new Promise<never>(() => undefined);
    await navigator.locks.request(VAULT_LOCK, { ifAvailable: true }, async (lock) => {
      if (lock === null) return;
      this.#own();
      await forever;
    });
    this.#isOtherTab = true;
    this.#markStarted();
    this.#tell({ kind: "state", state: OTHER_TAB });
    await navigator.locks.request(VAULT_LOCK, async () => {
      this.#own();
      await forever;
    });
  }

  #own(): void {
    this.#isOtherTab = false;
    this.#startWorker();
    // Asked early: a vault that the browser may throw away is no place for messages. The answer changes nothing here.
    void navigator.storage?.persist().catch(() => false);
    const poke = (): void => this.#post({ kind: "poke" });
    addEventListener("online", poke);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && poke());
    this.#markStarted();
  }

  #startWorker(): void {
    const worker = new Worker(trustedUrl(workerUrl), { type: "module", name: "curbside core" });
    worker.addEventListener("message", (event: MessageEvent<FromWorker>) => {
      if (worker === this.#worker) this.#hear(event.data);
    });
    this.#worker = worker;
  }

  #hear(message: FromWorker): void {
    if (message.kind === "event") return this.#tell(message.event);
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.kind === "answer") waiting?.resolve(message.result);
    else waiting?.reject(message.problem);
  }

  #tell(event: CoreEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  async #call(method: Method, args: readonly unknown[]): Promise<unknown> {
    await this.#started;
    if (this.#isOtherTab && method === "state") return OTHER_TAB;
    if (this.#worker === undefined) throw BUSY;
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ kind: "request", id, method, args });
    });
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  /** The Worker closes the vault and wipes its keys; then it is ended, and a fresh one begins, locked. */
  async #lock(): Promise<void> {
    await this.#call("lock", []);
    this.#worker?.terminate();
    for (const waiting of this.#waiting.values()) waiting.reject(LOST);
    this.#waiting.clear();
    this.#startWorker();
    this.#tell({ kind: "state", state: await this.core.state() });
  }
}

interface ScriptPolicy {
  createScriptURL(url: string): unknown;
}

let policy: ScriptPolicy | undefined;

/** Trusted Types (W3C): the one address from which this app starts a Worker. A policy can be made only once. */
function trustedUrl(url: string): URL {
  policy ??= (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy("curbside", {
    createScriptURL: (wanted) => {
      if (wanted !== workerUrl) throw new TypeError("not a script of ours");
      return wanted;
    },
  });
  return (policy?.createScriptURL(url) ?? url) as URL;
}

/** TypeScript's page library does not know Trusted Types yet. */
interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): ScriptPolicy;
}
