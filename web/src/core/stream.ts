// The stream: one WebSocket, one MessagePack array per frame (src/curbside/wire/frames.py says in which order).

import { decode, encode } from "@msgpack/msgpack";
import { CurbsideError, malformed } from "./errors";
import { errorOfFrame } from "./problem";
import type { Transport } from "./transport";
import { type ClientFrame, type Frame, PROTOCOL, type ServerFrame, decodeFrame, encodeFrame } from "./wire/frames.generated";

const CONNECT_MS = 10_000;
const NORMAL_CLOSURE = 1000;

/** An authenticated stream: frames in, frames out. */
export class Stream {
  readonly #socket: WebSocket;
  readonly #arrived: ServerFrame[] = [];
  #waiting: { resolve: (frame: ServerFrame) => void; reject: (error: CurbsideError) => void } | undefined;
  #ended: CurbsideError | undefined;
  /** Milliseconds of the machine's clock when something was last received. */
  lastReceived = performance.now();

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", (event: MessageEvent<unknown>) => this.#receiveBytes(event.data));
    socket.addEventListener("close", () => this.#end(new CurbsideError("peer_unavailable")));
    socket.addEventListener("error", () => this.#end(new CurbsideError("peer_unavailable")));
  }

  /** Connects and proves who we are. Throws `peer_unavailable`, `not_authenticated`, `device_revoked`. */
  static async open(transport: Transport): Promise<Stream> {
    const stream = new Stream(new WebSocket(`${transport.server.replace(/^http/, "ws")}/v1/stream`));
    const tooLate = setTimeout(() => stream.close(), CONNECT_MS);
    try {
      const challenge = await stream.receive();
      if (challenge.type !== "challenge") throw refusalOf(challenge);
      const { token, proof } = await transport.streamProof(challenge.nonce, challenge.serverTime);
      stream.send({ type: "auth", token, proof, protocol: PROTOCOL });
      const ready = await stream.receive();
      if (ready.type !== "ready") throw refusalOf(ready);
      return stream;
    } catch (error) {
      stream.close();
      throw error;
    } finally {
      clearTimeout(tooLate);
    }
  }

  /** Lost when the stream is gone: whoever sends finds out by what it receives. */
  send(frame: ClientFrame): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(encode(encodeFrame(frame as Frame)));
  }

  /** The next frame, in order. Throws `peer_unavailable` when the stream ended. */
  receive(): Promise<ServerFrame> {
    const next = this.#arrived.shift();
    if (next !== undefined) return Promise.resolve(next);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  close(): void {
    this.#end(new CurbsideError("peer_unavailable"));
    this.#socket.close(NORMAL_CLOSURE);
  }

  #receiveBytes(data: unknown): void {
    this.lastReceived = performance.now();
    try {
      if (!(data instanceof ArrayBuffer)) throw malformed("the stream carries binary frames only");
      const frame = decodeFrame(decode(new Uint8Array(data))) as ServerFrame;
      if (this.#waiting === undefined) this.#arrived.push(frame);
      else this.#waiting.resolve(frame);
      this.#waiting = undefined;
    } catch (error) {
      this.#end(error instanceof CurbsideError ? error : malformed("a frame could not be read"));
      this.#socket.close();
    }
  }

  #end(error: CurbsideError): void {
    this.#ended ??= error;
    this.#waiting?.reject(this.#ended);
    this.#waiting = undefined;
  }
}

/** Why the server ended a stream; "draining" means: connect again. */
export function refusalOf(frame: ServerFrame): CurbsideError {
  if (frame.type !== "closing") return malformed("the server sent a frame that has no place here");
  return errorOfFrame(frame.code, frame.detail, { retry_after: frame.retryAfter });
}
