// Attachments (docs/protocol.md "Blobs"): AES-256-GCM in chunks, the STREAM construction of Hoang et al. 2015. Twin of
// src/curbside/crypto/stream_aead.py.
//
//   file  = nonce prefix (7) ‖ chunk 0 ‖ chunk 1 ‖ …
//   chunk = 64 KiB of plaintext (the last may be less), sealed, and its tag (16)
//   nonce = nonce prefix (7) ‖ chunk number (4, big-endian) ‖ 1 for the last chunk, else 0
//
// The plaintext is padded with zeros to a size bucket. Whoever opens knows the real size from the message, and so the
// length of the file: cut, joined, reordered or changed bytes are all `blob_corrupt`.

import { CurbsideError, isCurbsideError, tooLarge } from "../errors";
import { type Bytes, concat } from "./bytes";
import { TAG_LENGTH, importAesKey, openAes, randomBytes, sealAes, sha256 } from "./primitives";
import { SecretBytes } from "./secret";

export const CHUNK_BYTES = 64 * 1024;
export const SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_LENGTH;
export const PREFIX_BYTES = 7;
const KEY_BYTES = 32;
const MAX_BYTES = 2 ** 40;
/** 4 KiB · 2^(n/4), rounded up; the next four are these doubled, and so on. */
const BUCKETS = [4096, 4871, 5793, 6889];
const NO_AAD = new Uint8Array();

/** The size bucket of a plaintext of `size` bytes. Throws `too_large`. */
export function padSize(size: number): number {
  if (!(Number.isInteger(size) && size >= 0 && size <= MAX_BYTES))
    throw tooLarge("an attachment is over its size limit", MAX_BYTES);
  for (let scale = 1; ; scale *= 2) {
    const found = BUCKETS.find((bucket) => bucket * scale >= size);
    if (found !== undefined) return found * scale;
  }
}

/** How many chunks the file of a plaintext of `size` bytes has. */
export function countChunks(size: number): number {
  return Math.ceil(padSize(size) / CHUNK_BYTES);
}

/** The length of the file of a plaintext of `size` bytes. */
export function sealedSize(size: number): number {
  return PREFIX_BYTES + padSize(size) + countChunks(size) * TAG_LENGTH;
}

/** A new key, for one attachment only. */
export function makeKey(): SecretBytes {
  const key = randomBytes(KEY_BYTES);
  const secret = new SecretBytes(key);
  key.fill(0);
  return secret;
}

/** SHA-256 of a whole file, as the message carries it. */
export function hashFile(sealed: Uint8Array): Promise<Bytes> {
  return sha256(sealed);
}

/** The file of a plaintext. A key is used for one plaintext only. */
export async function sealBytes(key: SecretBytes, plaintext: Uint8Array): Promise<Bytes> {
  const sealer = await Sealer.create(key, plaintext.length);
  return concat(await sealer.update(plaintext), await sealer.finish());
}

/** The plaintext of `size` bytes. Throws `blob_corrupt`. */
export async function openBytes(key: SecretBytes, size: number, sealed: Uint8Array): Promise<Bytes> {
  const opener = await Opener.create(key, size);
  const opened = await opener.update(sealed);
  opener.finish();
  return opened;
}

async function load(key: SecretBytes): Promise<CryptoKey> {
  if (key.length !== KEY_BYTES) throw new CurbsideError("internal", "an attachment's key has 32 bytes");
  return importAesKey(key);
}

function nonceOf(prefix: Uint8Array, number: number, count: number): Bytes {
  const nonce = new Uint8Array(12);
  nonce.set(prefix);
  new DataView(nonce.buffer).setUint32(PREFIX_BYTES, number);
  nonce[11] = number === count - 1 ? 1 : 0;
  return nonce;
}

/** Seals a plaintext of known size piece by piece; what `update` and `finish` give, joined, is the file. */
export class Sealer {
  readonly #key: CryptoKey;
  readonly #prefix: Uint8Array;
  readonly #count: number;
  #left: number;
  #padding: number;
  #number = 0;
  #done = false;
  #buffer: Bytes = new Uint8Array();

  private constructor(key: CryptoKey, size: number, prefix: Uint8Array) {
    this.#key = key;
    this.#prefix = prefix;
    this.#left = size;
    this.#padding = padSize(size) - size;
    this.#count = countChunks(size);
  }

  /** prefix: 7 bytes, random unless given (by test vectors only). Throws `too_large`. */
  static async create(key: SecretBytes, size: number, prefix: Uint8Array = randomBytes(PREFIX_BYTES)): Promise<Sealer> {
    return new Sealer(await load(key), size, prefix);
  }

  /** Takes the next piece. Throws `internal` when it is more than the size that was named. */
  async update(plaintext: Uint8Array): Promise<Bytes> {
    if (plaintext.length > this.#left) throw new CurbsideError("internal", "more plaintext than was named");
    this.#left -= plaintext.length;
    return this.#add(plaintext);
  }

  /** The rest of the file. Throws `internal` when plaintext is missing. */
  async finish(): Promise<Bytes> {
    if (this.#left > 0 || this.#done)
      throw new CurbsideError("internal", "less plaintext than was named, or finished before");
    this.#done = true;
    const padded = await this.#add(new Uint8Array(this.#padding));
    if (this.#number === this.#count) return padded;
    const rest = this.#buffer;
    this.#buffer = new Uint8Array();
    return concat(padded, await this.#seal(rest));
  }

  async #add(piece: Uint8Array): Promise<Bytes> {
    const waiting = concat(this.#buffer, piece);
    const parts: Bytes[] = [];
    let at = 0;
    for (; waiting.length - at >= CHUNK_BYTES; at += CHUNK_BYTES)
      parts.push(await this.#seal(waiting.subarray(at, at + CHUNK_BYTES)));
    this.#buffer = waiting.slice(at);
    return concat(...parts);
  }

  async #seal(chunk: Uint8Array): Promise<Bytes> {
    const number = this.#number++;
    const sealed = await sealAes(this.#key, nonceOf(this.#prefix, number, this.#count), chunk, NO_AAD);
    return number === 0 ? concat(this.#prefix, sealed) : sealed;
  }
}

/** Opens a file piece by piece. Each byte it gives is authentic; that none is missing is known after `finish`. */
export class Opener {
  readonly #key: CryptoKey;
  readonly #size: number;
  readonly #count: number;
  #left: number;
  #number = 0;
  #prefix: Uint8Array | undefined;
  #buffer: Bytes = new Uint8Array();

  private constructor(key: CryptoKey, size: number) {
    this.#key = key;
    this.#size = size;
    this.#count = countChunks(size);
    this.#left = sealedSize(size);
  }

  /** size: of the plaintext, from the message. Throws `too_large`. */
  static async create(key: SecretBytes, size: number): Promise<Opener> {
    return new Opener(await load(key), size);
  }

  /** Takes the next piece of the file. Throws `blob_corrupt`. */
  async update(sealed: Uint8Array): Promise<Bytes> {
    if (sealed.length > this.#left) throw new CurbsideError("blob_corrupt");
    this.#left -= sealed.length;
    const waiting = concat(this.#buffer, sealed);
    let at = 0;
    if (this.#prefix === undefined && waiting.length >= PREFIX_BYTES) {
      this.#prefix = waiting.slice(0, PREFIX_BYTES);
      at = PREFIX_BYTES;
    }
    const parts: Bytes[] = [];
    const isChunk = (): boolean =>
      waiting.length - at >= SEALED_CHUNK_BYTES || (this.#left === 0 && waiting.length > at);
    while (this.#prefix !== undefined && isChunk()) {
      parts.push(await this.#open(this.#prefix, waiting.subarray(at, at + SEALED_CHUNK_BYTES)));
      at = Math.min(at + SEALED_CHUNK_BYTES, waiting.length);
    }
    this.#buffer = waiting.slice(at);
    return concat(...parts);
  }

  /** Checks that the file is whole. Throws `blob_corrupt`. */
  finish(): void {
    if (this.#left > 0 || this.#number !== this.#count) throw new CurbsideError("blob_corrupt");
  }

  async #open(prefix: Uint8Array, sealed: Uint8Array): Promise<Bytes> {
    const number = this.#number++;
    const start = number * CHUNK_BYTES;
    const padded = await openChunk(this.#key, nonceOf(prefix, number, this.#count), sealed);
    const expected = number < this.#count - 1 ? CHUNK_BYTES : padSize(this.#size) - start;
    const real = Math.min(Math.max(this.#size - start, 0), CHUNK_BYTES);
    if (padded.length !== expected || padded.subarray(real).some((octet) => octet !== 0))
      throw new CurbsideError("blob_corrupt");
    return padded.slice(0, real);
  }
}

async function openChunk(key: CryptoKey, nonce: Uint8Array, sealed: Uint8Array): Promise<Bytes> {
  try {
    return await openAes(key, nonce, sealed, NO_AAD);
  } catch (error) {
    if (isCurbsideError(error, "decryption_failed")) throw new CurbsideError("blob_corrupt");
    throw error;
  }
}
