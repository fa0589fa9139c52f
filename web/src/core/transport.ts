// Transport: HTTPS requests with proofs of the device's key (RFC 9449). No state beyond the session and the server's clock.
// Twin of src/curbside/client/transport.py; the stream is in stream.ts.

import { CurbsideError, fromProblem } from "./errors";
import type { Session } from "./wire/bodies.generated";

const REQUEST_MS = 20_000;
/** A proof is accepted within two minutes of the server's clock; beyond one we take over the server's. */
const SKEW_SECONDS = 60;
/** How far a device's clock may be behind the server's without harm. */
const SLOW_SECONDS = 24 * 3600;

/** uri: scheme, host and path. now: Unix seconds. */
export interface ProofRequest {
  readonly method: string;
  readonly uri: string;
  readonly now: number;
  readonly token?: string;
  /** Of the stream's challenge. */
  readonly nonce?: Uint8Array;
}

export type Prove = (request: ProofRequest) => Promise<string>;

export interface Clock {
  /** Unix milliseconds. */
  now(): number;
}

export interface RequestOptions {
  readonly body?: BodyInit;
  readonly headers?: Readonly<Record<string, string>>;
  /** What the server must know of us; a request that needs the session waits for a sign-in that is under way. */
  readonly needs?: "nothing" | "key" | "session";
  readonly signal?: AbortSignal;
}

export class Transport {
  readonly server: string;
  session: Session | undefined;
  /** A sign-in that is under way: the vault opens sooner than the server answers. */
  signingIn: Promise<unknown> | undefined;
  readonly #prove: Prove;
  readonly #clock: Clock;
  #skew = 0;

  constructor(server: string, prove: Prove, clock: Clock) {
    this.server = server;
    this.#prove = prove;
    this.#clock = clock;
  }

  /** Unix milliseconds by the server's clock, as far as it is known to differ. */
  now(): number {
    return this.#clock.now() + this.#skew * 1000;
  }

  /**
   * The time by which certificates are judged: this device's clock, put right when the server's is ahead, by a day at
   * most. A slow clock would refuse people who have just signed up; beyond a day the server's word is not taken.
   */
  trustedNow(): number {
    return this.#clock.now() + Math.min(Math.max(this.#skew, 0), SLOW_SECONDS) * 1000;
  }

  /** One JSON request. Throws `peer_unavailable`, or what the server's problem names. */
  async call<T>(method: string, path: string, body?: object, options: RequestOptions = {}): Promise<T> {
    const sent: RequestOptions =
      body === undefined
        ? options
        : { ...options, body: JSON.stringify(body), headers: { "content-type": "application/json" } };
    const response = await this.request(method, path, sent);
    if (response.status === 204) return undefined as T;
    try {
      return (await response.json()) as T;
    } catch {
      throw new CurbsideError("peer_unavailable", "the server's answer could not be read");
    }
  }

  /** One request with any body; the answer's status is below 400. Throws as `call`. */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const needs = options.needs ?? "session";
    if (needs === "session" && this.session === undefined) await this.signingIn?.catch(() => undefined);
    const first = await this.#fetch(method, path, options);
    const again = first.status === 401 && needs !== "nothing" && this.#correctClock(first);
    const response = again ? await this.#fetch(method, path, options) : first;
    if (response.status >= 400) throw await readProblem(response);
    return response;
  }

  /**
   * Bytes first to last (included) from another place than the server, which is told nothing of us.
   * Throws `peer_unavailable`, also when the answer is not these bytes.
   */
  async fetch(url: string, first: number, last: number): Promise<Uint8Array> {
    try {
      const response = await fetch(url, {
        headers: { range: `bytes=${first}-${last}` },
        signal: AbortSignal.timeout(REQUEST_MS),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
      const size = last - first + 1;
      if (response.status !== 206 || Number(response.headers.get("content-length")) !== size) throw new TypeError();
      const piece = new Uint8Array(await response.arrayBuffer());
      if (piece.length !== size) throw new TypeError();
      return piece;
    } catch {
      throw new CurbsideError("peer_unavailable");
    }
  }

  /** A proof for the stream, by the clock that its challenge told. */
  async streamProof(nonce: Uint8Array, serverTimeMs: number): Promise<{ token: string; proof: string }> {
    const token = this.session?.token;
    if (token === undefined) throw new CurbsideError("not_authenticated");
    const uri = `${this.server}/v1/stream`;
    return { token, proof: await this.#prove({ method: "GET", uri, now: Math.floor(serverTimeMs / 1000), token, nonce }) };
  }

  async #fetch(method: string, path: string, options: RequestOptions): Promise<Response> {
    const headers = { ...options.headers, ...(options.needs === "nothing" ? {} : await this.#proofHeaders(method, path)) };
    const timeout = AbortSignal.timeout(REQUEST_MS);
    try {
      return await fetch(this.server + path, {
        method,
        headers,
        ...(options.body === undefined ? {} : { body: options.body }),
        signal: options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
    } catch {
      throw new CurbsideError("peer_unavailable");
    }
  }

  async #proofHeaders(method: string, path: string): Promise<Record<string, string>> {
    const token = this.session?.token;
    const uri = this.server + path.replace(/[?#].*$/, "");
    const request: ProofRequest = { method, uri, now: Math.floor(this.now() / 1000) };
    const proof = await this.#prove(token === undefined ? request : { ...request, token });
    return token === undefined ? { dpop: proof } : { dpop: proof, authorization: `DPoP ${token}` };
  }

  /** Takes over the server's clock when ours is off by more than a proof allows; whether it was. */
  #correctClock(response: Response): boolean {
    const serverNow = Date.parse(response.headers.get("date") ?? "");
    if (Number.isNaN(serverNow)) return false;
    const skew = Math.round((serverNow - this.#clock.now()) / 1000);
    if (Math.abs(skew - this.#skew) <= SKEW_SECONDS) return false;
    this.#skew = skew;
    return true;
  }
}

async function readProblem(response: Response): Promise<CurbsideError> {
  try {
    const error = fromProblem(await response.json());
    const wait = Number(response.headers.get("retry-after"));
    if (error.code !== "too_many" || !(wait > 0) || "retry_after" in error.members) return error;
    return new CurbsideError(error.code, error.message, { ...error.members, retry_after: wait });
  } catch {
    return new CurbsideError("peer_unavailable", `the server answered ${response.status}`);
  }
}
