// WebCrypto in the few forms that the core needs: random bytes, SHA-256, AES-256-GCM, Ed25519.

import { CurbsideError } from "../errors";
import { encodeBase64url, decodeBase64url } from "../ids";
import { type Bytes, concat, fromHex, own } from "./bytes";
import { SecretBytes } from "./secret";

export const TAG_LENGTH = 16;
export const NONCE_LENGTH = 12;
const PKCS8_PREFIX = fromHex("302e020100300506032b657004220420");

export function randomBytes(length: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(length));
}

export async function sha256(data: Uint8Array): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", own(data)));
}

// --- AES-256-GCM -----------------------------------------------------------------------------------------------------

/** A key ready for use; the raw bytes are not needed any more. */
export async function importAesKey(key: SecretBytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", key.reveal(), "AES-GCM", false, ["encrypt", "decrypt"]);
}

/** Encrypts; the tag follows the ciphertext. A (key, nonce) pair must never be used twice. */
export async function sealAes(
  key: CryptoKey,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  aad: Uint8Array,
): Promise<Bytes> {
  const algorithm = { name: "AES-GCM", iv: own(nonce), additionalData: own(aad) };
  return new Uint8Array(await crypto.subtle.encrypt(algorithm, key, own(plaintext)));
}

/** Decrypts what `sealAes` made. Throws `decryption_failed`, without a reason. */
export async function openAes(key: CryptoKey, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Promise<Bytes> {
  const algorithm = { name: "AES-GCM", iv: own(nonce), additionalData: own(aad) };
  try {
    return new Uint8Array(await crypto.subtle.decrypt(algorithm, key, own(sealed)));
  } catch {
    throw new CurbsideError("decryption_failed");
  }
}

// --- Ed25519: WebCrypto, or @noble/curves on browsers whose WebCrypto lacks it ---------------------------------------

interface Ed25519 {
  publicKey(seed: SecretBytes): Promise<Bytes>;
  sign(seed: SecretBytes, message: Uint8Array): Promise<Bytes>;
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean>;
}

const native: Ed25519 = {
  async publicKey(seed) {
    const jwk = await crypto.subtle.exportKey("jwk", await importSeed(seed, true));
    return decodeBase64url(jwk.x ?? "");
  },
  async sign(seed, message) {
    return new Uint8Array(await crypto.subtle.sign("Ed25519", await importSeed(seed, false), own(message)));
  },
  async verify(publicKey, message, signature) {
    try {
      const key = await crypto.subtle.importKey("raw", own(publicKey), "Ed25519", false, ["verify"]);
      return await crypto.subtle.verify("Ed25519", key, own(signature), own(message));
    } catch {
      return false;
    }
  },
};

async function importSeed(seed: SecretBytes, extractable: boolean): Promise<CryptoKey> {
  const encoded = concat(PKCS8_PREFIX, seed.reveal());
  try {
    return await crypto.subtle.importKey("pkcs8", encoded, "Ed25519", extractable, ["sign"]);
  } finally {
    encoded.fill(0);
  }
}

/** The fallback; `zip215: false` refuses what WebCrypto and OpenSSL refuse. */
export async function loadFallback(): Promise<Ed25519> {
  const { ed25519 } = await import("@noble/curves/ed25519.js");
  return {
    publicKey: async (seed) => own(ed25519.getPublicKey(seed.reveal())),
    sign: async (seed, message) => own(ed25519.sign(message, seed.reveal())),
    async verify(publicKey, message, signature) {
      try {
        return ed25519.verify(signature, message, publicKey, { zip215: false });
      } catch {
        return false;
      }
    },
  };
}

let chosen: Promise<Ed25519> | undefined;

function load(): Promise<Ed25519> {
  chosen ??= crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]).then(() => native, loadFallback);
  return chosen;
}

/** A new private key: a seed of 32 bytes. */
export function generateSigningSeed(): SecretBytes {
  const seed = randomBytes(32);
  const secret = new SecretBytes(seed);
  seed.fill(0);
  return secret;
}

export async function publicKeyOf(seed: SecretBytes): Promise<Bytes> {
  if (seed.length !== 32) throw new CurbsideError("internal", "an Ed25519 seed has 32 bytes");
  return (await load()).publicKey(seed);
}

export async function sign(seed: SecretBytes, message: Uint8Array): Promise<Bytes> {
  if (seed.length !== 32) throw new CurbsideError("internal", "an Ed25519 seed has 32 bytes");
  return (await load()).sign(seed, message);
}

/** Throws `bad_signature`. */
export async function verifySignature(
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): Promise<void> {
  const good = publicKey.length === 32 && signature.length === 64;
  if (!good || !(await (await load()).verify(publicKey, message, signature))) throw new CurbsideError("bad_signature");
}

/** Base64url of SHA-256: thumbprints, token hashes. */
export async function hashText(data: Uint8Array): Promise<string> {
  return encodeBase64url(await sha256(data));
}
