// Attachments on their way up: resumed from the vault, one after the other, beside the stream.

import type { Effect } from "./effects";
import type { Engine } from "./engine";
import { CurbsideError, isCurbsideError } from "./errors";
import { encodeBase64url } from "./ids";
import type { Transport } from "./transport";
import type { UploadRow } from "./vault/rows";
import type { BlobUpload, NewBlob } from "./wire/bodies.generated";
import { BLOB_SCHEME, type Message, type Part, decode } from "./wire/content";
import { BLOB_CHUNK_BYTES } from "./wire/limits.generated";

const OFFSET_TRIES = 6;
const RETRY_MS = 5_000;

export interface UploadParts {
  readonly engine: Engine;
  readonly transport: Transport;
  readonly hash: (data: Uint8Array) => Promise<Uint8Array>;
  /** Carries effects out, or tells the page that a message's progress changed. */
  readonly carryOut: (effects: readonly Effect[]) => Promise<void>;
}

export class Uploads {
  readonly #parts: UploadParts;
  #running = false;
  #again = false;
  #stopped = false;

  constructor(parts: UploadParts) {
    this.#parts = parts;
  }

  /** Uploads what waits; harmless when an upload is under way. */
  start(): void {
    this.#again = true;
    if (!this.#running) void this.#run();
  }

  stop(): void {
    this.#stopped = true;
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#again && !this.#stopped) {
      this.#again = false;
      for (const id of this.#parts.engine.vault.rows.uploadIds()) if (!(await this.#attempt(id))) break;
    }
    this.#running = false;
  }

  /** Whether to go on with the next one. */
  async #attempt(id: string): Promise<boolean> {
    const { engine } = this.#parts;
    const upload = engine.vault.rows.findUpload(id);
    if (upload === undefined || engine.vault.rows.findMessage(id)?.delivery === "failed") return true;
    try {
      await this.#upload(upload);
      return true;
    } catch (error) {
      if (this.#stopped) return false;
      const known = error instanceof CurbsideError ? error : new CurbsideError("internal");
      if (known.retry === "later" || known.code === "not_authenticated") {
        setTimeout(() => this.start(), RETRY_MS);
        return false;
      }
      await this.#parts.carryOut(await engine.fail(upload.conversation, id, known));
      return true;
    }
  }

  async #upload(upload: UploadRow): Promise<void> {
    const { engine, carryOut, transport } = this.#parts;
    const { id, ciphertext } = upload;
    let place = { blobId: upload.blob_id, offset: upload.offset };
    let healed = false;
    for (let tries = 1; place.blobId === "" || place.offset < ciphertext.length; ) {
      try {
        if (place.blobId === "") place = await this.#begin(upload);
        place.offset = await this.#sendPart(place.blobId, place.offset, ciphertext);
      } catch (error) {
        // Damaged on its way or in the storage, or ended there after a long time away: what we keep is whole.
        const gone = isCurbsideError(error, "not_found") && upload.blob_id !== "";
        if (!healed && (gone || isCurbsideError(error, "blob_corrupt"))) {
          healed = true;
          place = { blobId: gone ? "" : place.blobId, offset: 0 };
        } else {
          if (!isCurbsideError(error, "offset_conflict") || tries++ === OFFSET_TRIES) throw error;
          place.offset = Number(error.members["offset"]);
        }
      }
      if (place.blobId !== "") await engine.uploadMoved(id, place.blobId, place.offset);
      await carryOut([{ kind: "changed", conversation: upload.conversation, message: id }]);
    }
    await carryOut(await engine.uploadDone(id, transport.now()));
  }

  /** The offset after the part that begins here. */
  async #sendPart(blobId: string, offset: number, ciphertext: Uint8Array): Promise<number> {
    const chunk = ciphertext.subarray(offset, offset + BLOB_CHUNK_BYTES);
    const response = await this.#parts.transport.request("PATCH", `/v1/blobs/${blobId}`, {
      body: Uint8Array.from(chunk),
      headers: { "upload-offset": String(offset), "content-type": "application/offset+octet-stream" },
    });
    return ((await response.json()) as BlobUpload).offset;
  }

  async #begin(upload: UploadRow): Promise<{ blobId: string; offset: number }> {
    const { engine, transport, hash } = this.#parts;
    const { id, conversation, ciphertext } = upload;
    const sha256 = encodeBase64url(await hash(ciphertext));
    const wanted: NewBlob = { conversation_id: conversation, size: ciphertext.length, sha256 };
    const began = await transport.call<BlobUpload>("POST", "/v1/blobs", wanted);
    const row = engine.vault.rows.findMessage(id);
    if (row === undefined) throw new CurbsideError("not_found");
    await engine.uploadBegan(conversation, id, placeBlob(decode(row.content), began.blob_id), began.blob_id);
    return { blobId: began.blob_id, offset: began.offset };
  }
}

/** The message with its attachment's url set, now that the server has given it a place. */
export function placeBlob(message: Message, blobId: string): Message {
  const placed = (part: Part): Part => {
    if (part.type === "external") return { ...part, url: BLOB_SCHEME + blobId };
    return part.type === "multi" ? { ...part, parts: part.parts.map(placed) } : part;
  };
  return { ...message, body: placed(message.body) };
}
