// Attachments down: fetched in pieces that are asked for again, from the server or by a link; checked by their hash.
// Twin of src/curbside/client/attachments.py.

import { CurbsideError } from "./errors";
import { decodeId } from "./ids";
import { sameBytes } from "./mls/saved";
import type { Transport } from "./transport";
import type { Vault } from "./vault/vault";
import type { BlobLocation } from "./wire/bodies.generated";
import { BLOB_SCHEME, type ExternalPart } from "./wire/content";
import { BLOB_BYTES, BLOB_CHUNK_BYTES } from "./wire/limits.generated";

const TRIES = 6;
const FIRST_WAIT_MS = 200;
/** How often a link that has ended is asked for anew. */
const LINKS = 3;
const NEAR = ["localhost", "127.0.0.1", "[::1]"];

/** The fence's functions, see crypto/stream_aead.ts. */
export interface AttachmentCrypto {
  openBytes(key: Uint8Array, size: number, sealed: Uint8Array): Promise<Uint8Array>;
  hashFile(sealed: Uint8Array): Promise<Uint8Array>;
}

/** The plaintext of an attachment. Throws `not_found`, `blob_corrupt`, `peer_unavailable`, `store_unavailable`. */
export async function openAttachment(
  part: ExternalPart,
  vault: Vault,
  transport: Transport,
  crypto: AttachmentCrypto,
): Promise<Uint8Array> {
  if (!part.url.startsWith(BLOB_SCHEME)) throw new CurbsideError("not_found");
  const blobId = part.url.slice(BLOB_SCHEME.length);
  decodeId(blobId); // it becomes part of a path
  const fits = async (ciphertext: Uint8Array) => sameBytes(await crypto.hashFile(ciphertext), part.contentHash);
  let ciphertext = vault.rows.findAttachment(blobId);
  // What is kept may be of another message that named the same blob.
  if (ciphertext === undefined || !(await fits(ciphertext))) {
    const fetched = await downloadAttachment(blobId, transport, fits);
    await vault.transaction((rows) => rows.saveAttachment(blobId, fetched, transport.now()));
    ciphertext = fetched;
  }
  return crypto.openBytes(part.key, part.size, ciphertext);
}

/** The ciphertext that fits. What a link led to is never trusted: if it does not, the server's own copy decides. */
export async function downloadAttachment(
  blobId: string,
  transport: Transport,
  fits: (ciphertext: Uint8Array) => Promise<boolean>,
): Promise<Uint8Array> {
  for (const links of [LINKS, 0]) {
    const download = new Download(blobId, transport, links);
    const ciphertext = await download.run();
    if (await fits(ciphertext)) return ciphertext;
    if (!download.hasUsedLink) break;
  }
  throw new CurbsideError("blob_corrupt", "The file is not the one that was sent.");
}

/** Whether a link may be followed: TLS, or this machine; no name or password in it. */
export function isSafeLink(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, hostname, username, password } = new URL(url);
  if (username !== "" || password !== "") return false;
  return protocol === "https:" || (protocol === "http:" && NEAR.includes(hostname));
}

class Download {
  hasUsedLink = false;
  readonly #path: string;
  readonly #transport: Transport;
  /** How many links to ask for at most. */
  #links: number;
  #url = "";
  #pieces: Uint8Array[] = [];
  #held = 0;
  #total = Number.POSITIVE_INFINITY;

  constructor(blobId: string, transport: Transport, links: number) {
    this.#path = `/v1/blobs/${blobId}`;
    this.#transport = transport;
    this.#links = links;
  }

  async run(): Promise<Uint8Array> {
    for (let failures = 0; this.#held < this.#total; ) {
      try {
        await (this.#url === "" ? this.#fetch() : this.#fetchByLink());
      } catch (error) {
        const broke = error instanceof TypeError || (error instanceof CurbsideError && error.retry === "later");
        if (!broke) throw error;
        if (this.#url !== "") {
          this.#url = ""; // the server knows better
          continue;
        }
        if (++failures > TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_MS * 2 ** failures));
      }
    }
    return join(this.#pieces, this.#held);
  }

  async #fetch(): Promise<void> {
    const range = `bytes=${this.#held}-${this.#held + BLOB_CHUNK_BYTES - 1}`;
    const response = await this.#transport.request("GET", this.#path, { headers: { range } });
    const piece = new Uint8Array(await response.arrayBuffer());
    if (response.status === 200) [this.#pieces, this.#held] = [[], 0]; // everything, whatever was asked for
    const total = totalOf(response, piece.length);
    if (piece.length === 0 || total > BLOB_BYTES || this.#held + piece.length > total)
      throw new CurbsideError("blob_corrupt", "The server's answer does not fit the file.");
    this.#total = total;
    this.#take(piece);
    if (this.#held < total && this.#links > 0 && response.headers.has("curbside-location")) {
      this.#links -= 1;
      const { url } = await this.#transport.call<BlobLocation>("GET", `${this.#path}/location`);
      if (isSafeLink(url)) this.#url = url;
    }
  }

  async #fetchByLink(): Promise<void> {
    this.hasUsedLink = true;
    const last = Math.min(this.#held + BLOB_CHUNK_BYTES, this.#total) - 1;
    this.#take(await this.#transport.fetch(this.#url, this.#held, last));
  }

  #take(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#held += piece.length;
  }
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
