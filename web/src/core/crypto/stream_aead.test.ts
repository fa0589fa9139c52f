import { describe, expect, test } from "vitest";
import { decodeBase64url, encodeBase64url } from "../ids";
import { readJson, seeded } from "../testing/vectors";
import { type Bytes, concat } from "./bytes";
import { SecretBytes } from "./secret";
import {
  Opener,
  SEALED_CHUNK_BYTES,
  Sealer,
  hashFile,
  makeKey,
  openBytes,
  padSize,
  sealBytes,
  sealedSize,
} from "./stream_aead";

type Edit = ["cut" | "drop" | "append" | "flip" | "size", number] | ["swap" | "copy", number, number] | ["key"];

interface Vectors {
  key: string;
  prefix: string;
  sizes: { size: number; padded: number; sealed: number }[];
  files: { size: number; length: number; sha256: string; begin: string }[];
  corrupt_size: number;
  corrupt: { reason: string; edit: Edit }[];
}

const vectors = readJson<Vectors>("trust/attachments.json");
const key = new SecretBytes(decodeBase64url(vectors.key));
const prefix = decodeBase64url(vectors.prefix);

const pattern = (size: number): Bytes =>
  Uint8Array.from({ length: size }, (_, i) => (7 * i + Math.floor(i / 256)) % 251);

async function seal(size: number): Promise<Bytes> {
  const sealer = await Sealer.create(key, size, prefix);
  return concat(await sealer.update(pattern(size)), await sealer.finish());
}

function corrupt(sealed: Bytes, edit: Edit): Bytes {
  const chunks = Array.from({ length: Math.ceil((sealed.length - 7) / SEALED_CHUNK_BYTES) }, (_, index) =>
    sealed.slice(7 + index * SEALED_CHUNK_BYTES, 7 + (index + 1) * SEALED_CHUNK_BYTES),
  );
  const chunk = (index: number): Bytes => chunks[index] ?? new Uint8Array();
  switch (edit[0]) {
    case "cut":
      return sealed.slice(0, edit[1]);
    case "drop":
      return sealed.slice(0, -edit[1]);
    case "append":
      return concat(sealed, new Uint8Array(edit[1]));
    case "flip":
      return Uint8Array.from(sealed, (octet, index) => (index === edit[1] ? octet ^ 1 : octet));
    case "swap":
      [chunks[edit[1]], chunks[edit[2]]] = [chunk(edit[2]), chunk(edit[1])];
      return concat(sealed.slice(0, 7), ...chunks);
    case "copy":
      chunks[edit[2]] = chunk(edit[1]);
      return concat(sealed.slice(0, 7), ...chunks);
    default:
      return sealed;
  }
}

describe("attachments", () => {
  test.each(vectors.sizes)("bucket of $size", ({ size, padded, sealed }) => {
    expect(padSize(size)).toBe(padded);
    expect(sealedSize(size)).toBe(sealed);
  });

  test.each([-1, 2 ** 40 + 1, 0.5, Number.NaN])("no size: %s", (size) => {
    expect(() => padSize(size)).toThrow(expect.objectContaining({ code: "too_large" }));
  });

  test.each(vectors.files)("file of $size", async ({ size, length, sha256, begin }) => {
    const sealed = await seal(size);
    expect(sealed).toHaveLength(length);
    expect(encodeBase64url(sealed.slice(0, 64))).toBe(begin);
    expect(encodeBase64url(await hashFile(sealed))).toBe(sha256);
    expect(await openBytes(key, size, sealed)).toEqual(pattern(size));
  });

  test.each(vectors.corrupt)("noticed: $reason", async ({ edit }) => {
    const size = vectors.corrupt_size;
    const sealed = await seal(size);
    expect(await openBytes(key, size, sealed)).toEqual(pattern(size));
    const used = edit[0] === "key" ? makeKey() : key;
    const claimed = edit[0] === "size" ? edit[1] : size;
    await expect(openBytes(used, claimed, corrupt(sealed, edit))).rejects.toMatchObject({ code: "blob_corrupt" });
  });

  test("pieces of any size give the same file", async () => {
    const next = seeded(3);
    for (let round = 0; round < 12; round++) {
      const size = next(200_000);
      const plaintext = pattern(size);
      const whole = await seal(size);
      const sealer = await Sealer.create(key, size, prefix);
      const sealed: Bytes[] = [];
      for (let at = 0, step = 0; at < size; at += step) {
        step = 1 + next(90_000);
        sealed.push(await sealer.update(plaintext.subarray(at, at + step)));
      }
      sealed.push(await sealer.finish());
      expect(concat(...sealed)).toEqual(whole);
      const opener = await Opener.create(key, size);
      const opened: Bytes[] = [];
      for (let at = 0, step = 0; at < whole.length; at += step) {
        step = 1 + next(90_000);
        opened.push(await opener.update(whole.subarray(at, at + step)));
      }
      opener.finish();
      expect(concat(...opened)).toEqual(plaintext);
    }
  });

  test("a caller's mistakes", async () => {
    const sealer = await Sealer.create(key, 2);
    await expect(sealer.update(new Uint8Array(3))).rejects.toMatchObject({ code: "internal" });
    await expect(sealer.finish()).rejects.toMatchObject({ code: "internal" });
    await sealer.update(new Uint8Array(2));
    await sealer.finish();
    await expect(sealer.finish()).rejects.toMatchObject({ code: "internal" });
    await expect(Opener.create(new SecretBytes(new Uint8Array(16)), 1)).rejects.toMatchObject({ code: "internal" });
  });

  test("a nonce prefix is never used twice", async () => {
    const [one, other] = [await sealBytes(key, prefix), await sealBytes(key, prefix)];
    expect(one.slice(0, 7)).not.toEqual(other.slice(0, 7));
  });
});
