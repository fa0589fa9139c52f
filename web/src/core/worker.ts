// The Worker: the only place where keys and plaintext are. It speaks bridge/protocol.ts with the page and nothing else.

import { type FromWorker, METHODS, type ToWorker } from "../bridge/protocol";
import type { Problem } from "../bridge/types";
import { App } from "./app";
import { problemOf } from "./problem";
import { opfsFiles } from "./vault/files";
import { loadModule } from "./vault/module";

/** What is used of a dedicated Worker's scope; the page's types and a Worker's both fit. */
interface Scope {
  readonly location: { readonly origin: string };
  readonly isSecureContext: boolean;
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
  addEventListener(type: "online", listener: () => void): void;
}

const scope = globalThis as unknown as Scope;

const app = new App(
  {
    files: opfsFiles(),
    load: loadModule,
    clock: { now: () => Date.now() },
    origin: scope.location.origin,
    label: deviceLabel(),
  },
  (event) => post({ kind: "event", event }),
);

const started = start();

scope.addEventListener("message", (event) => {
  if (event.data.kind === "poke") app.poke();
  else void answer(event.data);
});
scope.addEventListener("online", () => app.poke());

async function start(): Promise<void> {
  await app.start(findMissing());
}

async function answer(request: Extract<ToWorker, { kind: "request" }>): Promise<void> {
  const { id, method, args } = request;
  try {
    await started;
    if (!METHODS.includes(method)) throw new TypeError("no such method");
    const call = app[method] as (...args: readonly unknown[]) => Promise<unknown>;
    const result = await call.apply(app, [...args]);
    post({ kind: "answer", id, result }, transferable(result));
  } catch (error) {
    post({ kind: "refusal", id, problem: problemOf(error) });
  }
}

function post(message: FromWorker, transfer: Transferable[] = []): void {
  scope.postMessage(message, transfer);
}

/** A picture's bytes are handed over, not copied. */
function transferable(result: unknown): Transferable[] {
  const bytes = typeof result === "object" && result !== null && "bytes" in result ? result.bytes : undefined;
  return bytes instanceof ArrayBuffer ? [bytes] : [];
}

function findMissing(): Problem | undefined {
  const files = globalThis.FileSystemFileHandle as { prototype: object } | undefined;
  const has: Record<string, boolean> = {
    "a secure connection (https)": scope.isSecureContext,
    "private file storage": files !== undefined && "createSyncAccessHandle" in files.prototype,
    "drawing in the background": "OffscreenCanvas" in globalThis,
    WebAssembly: "WebAssembly" in globalThis,
  };
  const [missing] = Object.keys(has).filter((name) => has[name] !== true);
  if (missing === undefined) return undefined;
  return {
    code: "config",
    title: "This browser cannot keep messages safe.",
    detail: `It lacks ${missing}.`,
    nextStep: "Use a current version of Chrome, Edge, Firefox or Safari, and not a private window.",
  };
}

/** What others see as this device's name: the kind of machine, nothing that tells one phone from another. */
function deviceLabel(): string {
  const agent = navigator.userAgent;
  const kinds: [RegExp, string][] = [
    [/iPhone/, "iPhone"],
    [/iPad/, "iPad"],
    [/Android/, "Android phone"],
    [/Windows/, "Windows computer"],
    [/Mac OS/, "Mac"],
    [/Linux|CrOS/, "Linux computer"],
  ];
  return `Web browser on ${kinds.find(([pattern]) => pattern.test(agent))?.[1] ?? "a device"}`;
}
