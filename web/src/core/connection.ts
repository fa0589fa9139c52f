// Connection: keeps a device signed in and connected, and carries out the engine's effects. The only loop of the client.
// Twin of src/curbside/client/connection.py.

import type { Effect } from "./effects";
import type { Engine } from "./engine";
import { CurbsideError, isCurbsideError } from "./errors";
import { encodeBase64url } from "./ids";
import { Stream, refusalOf } from "./stream";
import type { Transport } from "./transport";
import type { Uploads } from "./uploads";
import type { Appended, KeyPackageCount, KeyPackages, NewCommit } from "./wire/bodies.generated";

const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 20_000;
const KEY_PACKAGES_KEPT = 30;
const KEY_PACKAGES_REFILL_BELOW = 20;
/** A stream that says nothing for so long is asked; one that does not answer is given up. */
const PROBE_MS = 45_000;
const PROBE_ANSWER_MS = 10_000;

export type Status = "offline" | "connecting" | "online";

export interface ConnectionEvents {
  /** Effects that were released; the page is told what changed. */
  released(effects: readonly Effect[]): void;
  status(status: Status, problem?: CurbsideError): void;
}

/** How to get a session: by the passphrase if it is still known. Throws `not_authenticated` when the person must be asked. */
export type SignIn = () => Promise<void>;

export interface ConnectionParts {
  readonly engine: Engine;
  readonly transport: Transport;
  readonly signIn: SignIn;
  readonly uploads: Uploads;
  readonly events: ConnectionEvents;
}

/** Runs until stopped; loses nothing when the server goes away, because everything waits in the vault. */
export class Connection {
  readonly #parts: ConnectionParts;
  readonly #posting = new Set<string>();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #stream: Stream | undefined;
  #wake: (() => void) | undefined;
  #stopped = false;
  #refilling = false;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
  }

  start(): void {
    void this.#run();
    this.#probeLater();
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#stream?.close();
    this.#wake?.();
  }

  get isOnline(): boolean {
    return this.#stream !== undefined;
  }

  /** Something says that the network is back, or that somebody looks: try at once, and doubt a silent stream. */
  poke(): void {
    this.#wake?.();
    this.#probe(0);
  }

  /** Asks for the entries of a conversation that this device has just made. */
  follow(conversation: string): void {
    this.#stream?.send(this.#parts.engine.syncFrame(conversation));
  }

  // --- the loop ---

  async #run(): Promise<void> {
    let wait = FIRST_WAIT_MS;
    while (!this.#stopped) {
      try {
        this.#parts.events.status("connecting");
        if (this.#parts.transport.session === undefined) await this.#parts.signIn();
        this.#stream = await Stream.open(this.#parts.transport);
        if (this.#stopped) return this.#stream.close();
        wait = FIRST_WAIT_MS;
        await this.#pump(this.#stream);
      } catch (error) {
        const known = error instanceof CurbsideError ? error : new CurbsideError("internal");
        this.#disconnected(known);
        if (!(await this.#mayGoOn(known))) return;
      }
      await this.#sleep(wait * (0.5 + Math.random()));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  #disconnected(error: CurbsideError): void {
    this.#stream?.close();
    this.#stream = undefined;
    if (this.#stopped) return;
    this.#parts.engine.disconnected();
    this.#parts.events.status("offline", error.code === "peer_unavailable" ? undefined : error);
  }

  /** Whether to connect again by itself. A session that ended is renewed if we can; else the person is asked. */
  async #mayGoOn(error: CurbsideError): Promise<boolean> {
    if (this.#stopped || error.code === "device_revoked") return false;
    if (error.code === "too_many") await this.#sleep(Number(error.members["retry_after"] ?? 1) * 1000);
    if (error.code !== "not_authenticated" && error.code !== "wrong_passphrase") return true;
    const { transport } = this.#parts;
    if (transport.session !== undefined) {
      transport.session = undefined;
      return true;
    }
    // Nothing more can be done without the passphrase: `poke` after it was given.
    await this.#sleep(Number.POSITIVE_INFINITY);
    return !this.#stopped;
  }

  async #pump(stream: Stream): Promise<void> {
    const { engine, transport } = this.#parts;
    await this.carryOut(engine.connected());
    for (;;) {
      const frame = await stream.receive();
      if (frame.type === "closing") throw refusalOf(frame);
      await this.carryOut(await engine.received(frame, transport.now()));
    }
  }

  // --- effects ---

  /** Does what the engine asks, in its order; what cannot be sent now is made again at the next Sync. */
  async carryOut(effects: readonly Effect[]): Promise<void> {
    for (const effect of effects) {
      if (effect.kind === "send") this.#stream?.send(effect.frame);
      else if (effect.kind === "post-commit") void this.#postCommit(effect.conversation, effect.request);
      else if (effect.kind === "retry") this.#releaseLater(effect.conversation, effect.seconds);
      else if (effect.kind === "caught-up") this.#caughtUp();
      else if (effect.kind === "joined") void this.#refillKeyPackages();
    }
    this.#parts.events.released(effects);
  }

  #caughtUp(): void {
    this.#parts.events.status("online");
    this.#parts.uploads.start();
    void this.#refillKeyPackages();
  }

  async #postCommit(conversation: string, request: NewCommit): Promise<void> {
    if (this.#posting.has(conversation)) return;
    this.#posting.add(conversation);
    let refused: CurbsideError | undefined;
    try {
      await this.#parts.transport.call<Appended>("POST", `/v1/conversations/${conversation}/commits`, request);
    } catch (error) {
      refused = error instanceof CurbsideError ? error : new CurbsideError("internal");
    } finally {
      this.#posting.delete(conversation);
    }
    await this.#attempt(async () => this.carryOut(await this.#parts.engine.commitAnswered(conversation, refused)));
  }

  #releaseLater(conversation: string, seconds: number): void {
    this.#later(seconds * 1000, () =>
      this.#attempt(async () => this.carryOut(await this.#parts.engine.release(conversation))),
    );
  }

  async #refillKeyPackages(): Promise<void> {
    if (this.#refilling) return;
    this.#refilling = true;
    const { engine, transport } = this.#parts;
    await this.#attempt(async () => {
      const { available } = await transport.call<KeyPackageCount>("GET", "/v1/key-packages");
      const wanted = available < KEY_PACKAGES_REFILL_BELOW ? KEY_PACKAGES_KEPT - available : 0;
      const lastResort = await engine.renewLastResort(transport.now());
      if (wanted === 0 && lastResort === undefined) return;
      const made = await engine.makeKeyPackages(wanted, transport.now());
      const body: KeyPackages = {
        key_packages: made.map(encodeBase64url),
        last_resort_key_package: lastResort === undefined ? null : encodeBase64url(lastResort),
      };
      await transport.call("POST", "/v1/key-packages", body);
    });
    this.#refilling = false;
  }

  /** Work beside the loop: what fails because the server is away comes again by itself, the rest is told. */
  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (this.#stopped) return;
      if (isCurbsideError(error) && (error.retry === "later" || error.code === "not_authenticated")) return;
      const known = error instanceof CurbsideError ? error : new CurbsideError("internal");
      this.#parts.events.released([{ kind: "notice", error: known }]);
    }
  }

  // --- time ---

  #probeLater(): void {
    this.#later(PROBE_MS, async () => {
      this.#probe(PROBE_MS);
      this.#probeLater();
    });
  }

  #probe(silentMs: number): void {
    const stream = this.#stream;
    if (stream === undefined || performance.now() - stream.lastReceived < silentMs) return;
    const asked = performance.now();
    stream.send({ type: "sync", cursors: {}, queue: this.#parts.engine.vault.rows.queuePosition() });
    this.#later(PROBE_ANSWER_MS, async () => {
      if (stream.lastReceived < asked) stream.close();
    });
  }

  #later(milliseconds: number, work: () => Promise<void>): void {
    if (this.#stopped) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (!this.#stopped) void work();
    }, milliseconds);
    this.#timers.add(timer);
  }

  /** Until the time is over or `poke` is called. */
  #sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = Number.isFinite(milliseconds) ? setTimeout(resolve, milliseconds) : undefined;
      this.#wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
