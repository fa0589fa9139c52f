import { describe, expect, test } from "vitest";
import { decodeBase64url } from "../ids";
import { fromHex, fromText } from "./bytes";
import {
  generateSigningSeed,
  importAesKey,
  loadFallback,
  openAes,
  publicKeyOf,
  randomBytes,
  sealAes,
  sign,
  verifySignature,
} from "./primitives";
import { SecretBytes } from "./secret";

// RFC 8032 section 7.1, test 2.
const SEED = new SecretBytes(fromHex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"));
const PUBLIC = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";
const SIGNATURE = fromHex(
  "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
);
const MESSAGE = Uint8Array.of(0x72);

describe("Ed25519", () => {
  test("WebCrypto and the fallback give what RFC 8032 says", async () => {
    const fallback = await loadFallback();
    expect(await publicKeyOf(SEED)).toEqual(decodeBase64url(PUBLIC));
    expect(await fallback.publicKey(SEED)).toEqual(decodeBase64url(PUBLIC));
    expect(await sign(SEED, MESSAGE)).toEqual(SIGNATURE);
    expect(await fallback.sign(SEED, MESSAGE)).toEqual(SIGNATURE);
    await verifySignature(decodeBase64url(PUBLIC), MESSAGE, SIGNATURE);
    expect(await fallback.verify(decodeBase64url(PUBLIC), MESSAGE, SIGNATURE)).toBe(true);
  });

  test("both refuse what is changed or no key", async () => {
    const fallback = await loadFallback();
    const flipped = Uint8Array.from(SIGNATURE, (octet, index) => (index === 40 ? octet ^ 1 : octet));
    // The same signature with the group's order added to its second half.
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const half = BigInt(`0x${Buffer.from(SIGNATURE.slice(32)).reverse().toString("hex")}`) + order;
    const high = Uint8Array.from(SIGNATURE);
    high.set(Buffer.from(half.toString(16).padStart(64, "0"), "hex").reverse(), 32);
    const key = decodeBase64url(PUBLIC);
    for (const [candidate, message, signature] of [
      [key, MESSAGE, flipped],
      [key, MESSAGE, high],
      [key, Uint8Array.of(0x73), SIGNATURE],
      [new Uint8Array(32).fill(0xff), MESSAGE, SIGNATURE],
    ] as const) {
      await expect(verifySignature(candidate, message, signature)).rejects.toMatchObject({ code: "bad_signature" });
      expect(await fallback.verify(candidate, message, signature)).toBe(false);
    }
    await expect(verifySignature(key.slice(1), MESSAGE, SIGNATURE)).rejects.toMatchObject({ code: "bad_signature" });
    await expect(verifySignature(key, MESSAGE, SIGNATURE.slice(1))).rejects.toMatchObject({ code: "bad_signature" });
  });

  test("seeds differ and have 32 bytes", async () => {
    expect(generateSigningSeed().isSame(generateSigningSeed())).toBe(false);
    expect(generateSigningSeed()).toHaveLength(32);
    await expect(sign(new SecretBytes(new Uint8Array(31)), MESSAGE)).rejects.toMatchObject({ code: "internal" });
  });
});

describe("AES-256-GCM", () => {
  test("opens what was sealed, and nothing else", async () => {
    const key = await importAesKey(new SecretBytes(randomBytes(32)));
    const nonce = randomBytes(12);
    const sealed = await sealAes(key, nonce, fromText("ward 7"), fromText("aad"));
    expect(await openAes(key, nonce, sealed, fromText("aad"))).toEqual(fromText("ward 7"));
    for (const [usedNonce, changed, aad] of [
      [nonce, sealed, "add"],
      [randomBytes(12), sealed, "aad"],
      [nonce, sealed.slice(1), "aad"],
      [nonce, new Uint8Array(3), "aad"],
    ] as const)
      await expect(openAes(key, usedNonce, changed, fromText(aad))).rejects.toMatchObject({
        code: "decryption_failed",
      });
  });
});

describe("SecretBytes", () => {
  test("is not shown by accident, and can be wiped", () => {
    const secret = new SecretBytes(fromText("purple"));
    expect(`${secret}`).toBe("<SecretBytes>");
    expect(() => JSON.stringify({ secret })).toThrow();
    expect(Object.keys(secret)).toEqual([]);
    secret.wipe();
    expect(secret.reveal()).toEqual(new Uint8Array(6));
  });

  test("copies what it is given", () => {
    const raw = fromText("purple");
    const secret = new SecretBytes(raw);
    raw.fill(0);
    expect(secret.isSame(new SecretBytes(fromText("purple")))).toBe(true);
    expect(secret.isSame(new SecretBytes(fromText("purple!")))).toBe(false);
  });
});
