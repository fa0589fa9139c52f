// Attachments down: fetched in pieces that are asked for again, checked against the message's hash, opened.

import { CurbsideError } from "./errors";
import { decodeId } from "./ids";
import { sameBytes } from "./mls/saved";
import type { Transport } from "./transport";
import type { Vault } from "./vault/vault";
import { BLOB_SCHEME, type ExternalPart } from "./wire/content";
import { BLOB_BYTES, BLOB_CHUNK_BYTES } from "./wire/limits.generated";

const TRIES = 6;
const FIRST_WAIT_MS = 200;

/** The fence's functions, see crypto/stream_aead.ts. */
export interface AttachmentCrypto {
  openBytes(key: Uint8Array, size: number, sealed: Uint8Array): Promise<Uint8Array>;
  hashFile(sealed: Uint8Array): Promise<Uint8Array>;
}

/** The plaintext of an attachment. Throws `not_found`, `blob_corrupt`, `peer_unavailable`. */
export async function openAttachment(
  part: ExternalPart,
  vault: Vault,
  transport: Transport,
  crypto: AttachmentCrypto,
): Promise<Uint8Array> {
  if (!part.url.startsWith(BLOB_SCHEME)) throw new CurbsideError("not_found");
  const blobId = part.url.slice(BLOB_SCHEME.length);
  decodeId(blobId); // it becomes part of a path
  let ciphertext = vault.rows.findAttachment(blobId);
  if (ciphertext === undefined) {
    ciphertext = await download(blobId, transport);
    if (!sameBytes(await crypto.hashFile(ciphertext), part.contentHash))
      throw new CurbsideError("blob_corrupt", "The file is not the one that was sent.");
    const fetched = ciphertext;
    await vault.transaction((rows) => rows.saveAttachment(blobId, fetched, transport.now()));
  }
  return crypto.openBytes(part.key, part.size, ciphertext);
}

async function download(blobId: string, transport: Transport): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let held = 0;
  let total = Number.POSITIVE_INFINITY;
  for (let failures = 0; held < total; ) {
    try {
      const range = `bytes=${held}-${held + BLOB_CHUNK_BYTES - 1}`;
      const response = await transport.request("GET", `/v1/blobs/${blobId}`, { headers: { range } });
      const piece = new Uint8Array(await response.arrayBuffer());
      total = totalOf(response, piece.length);
      if (piece.length === 0 || total > BLOB_BYTES)
        throw new CurbsideError("blob_corrupt", "The server's answer does not fit the file.");
      pieces.push(piece);
      held += piece.length;
    } catch (error) {
      const broke = error instanceof TypeError || (error instanceof CurbsideError && error.retry === "later");
      if (!broke || ++failures > TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_MS * 2 ** failures));
    }
  }
  return join(pieces, held);
}

function totalOf(response: Response, length: number): number {
  const declared = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
  return declared === undefined ? length : Number(declared);
}

function join(pieces: readonly Uint8Array[], size: number): Uint8Array {
  const joined = new Uint8Array(size);
  let offset = 0;
  for (const piece of pieces) {
    joined.set(piece, offset);
    offset += piece.length;
  }
  return joined;
}
