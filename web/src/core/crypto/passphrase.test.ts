import { describe, expect, test } from "vitest";
import { decodeBase64url } from "../ids";
import { readJson, toHex } from "../testing/vectors";
import { MAXIMUM_CHARS, type WrapRecord, parseWrapRecord, preparePassphrase, unwrap, wrap } from "./passphrase";
import { WORDS, countUnits, ratePassphrase } from "./passphrase_rating";
import { SecretBytes } from "./secret";

interface Vectors {
  normal: { text: string; bytes: string }[];
  wraps: { passphrase: string; vault_id: string; vault_key: string; record: WrapRecord }[];
  wrong: { reason: string; passphrase: string; vault_id: string; record: unknown }[];
  refused: { reason: string; record: unknown }[];
  words: string[];
  person: { name: string; organization: string };
  ratings: { passphrase: string; score: number; hint: string; acceptable: boolean }[];
}

const vectors = readJson<Vectors>("trust/passphrases.json");

describe("passphrases", () => {
  test.each(vectors.normal)("normal form $bytes", ({ text, bytes }) => {
    expect(toHex(preparePassphrase(text).reveal())).toBe(bytes);
  });

  test.each(vectors.wraps)("unwraps and wraps as Python does: $passphrase", async (vector) => {
    const { record, passphrase, vault_id } = vector;
    const vaultKey = new SecretBytes(decodeBase64url(vector.vault_key));
    expect((await unwrap(record, passphrase, vault_id)).isSame(vaultKey)).toBe(true);
    const fixed = { salt: decodeBase64url(record.salt), nonce: decodeBase64url(record.nonce) };
    expect(await wrap(vaultKey, passphrase, vault_id, fixed)).toEqual(record);
  });

  test.each(vectors.wrong)("wrong: $reason", async ({ record, passphrase, vault_id }) => {
    await expect(unwrap(record, passphrase, vault_id)).rejects.toMatchObject({ code: "wrong_passphrase" });
  });

  test("an empty passphrase is a wrong one", async () => {
    await expect(unwrap(vectors.wraps[0]?.record, "", "vault-7")).rejects.toMatchObject({ code: "wrong_passphrase" });
  });

  test.each(vectors.refused)("another form: $reason", ({ record }) => {
    expect(() => parseWrapRecord(record)).toThrow(expect.objectContaining({ code: "malformed" }));
  });

  test("two wraps share neither salt nor nonce", async () => {
    const key = new SecretBytes(new Uint8Array(32));
    const [one, other] = [await wrap(key, "a", "v"), await wrap(key, "a", "v")];
    expect(one.salt).not.toBe(other.salt);
    expect(one.nonce).not.toBe(other.nonce);
    await expect(wrap(new SecretBytes(new Uint8Array(31)), "a", "v")).rejects.toMatchObject({ code: "internal" });
  });

  test.each(["x".repeat(MAXIMUM_CHARS + 1), "\ud800"])("no passphrase", (text) => {
    expect(() => preparePassphrase(text)).toThrow(expect.objectContaining({ code: "internal" }));
  });
});

describe("ratings", () => {
  test.each(vectors.ratings)("$passphrase", ({ passphrase, ...rating }) => {
    expect(ratePassphrase(passphrase, vectors.person.name, vectors.person.organization)).toEqual(rating);
  });

  test("the list of words is the shared one", () => expect(WORDS).toEqual(vectors.words));

  test("one's own name counts as one character", () => {
    expect(countUnits("wilhelmina", [])).toBe(10);
    expect(countUnits("wilhelmina", ["wilhelmina"])).toBe(1);
  });

  test("too long is not acceptable", () => {
    expect(ratePassphrase("x".repeat(MAXIMUM_CHARS + 1), "", "").acceptable).toBe(false);
  });
});
