// Passphrases: one spelling of them, and the vault key wrapped under one. Twin of src/curbside/crypto/passphrase.py.
//
// A passphrase is normalised to NFKC (NIST SP 800-63B-4 section 3.1.1.2) and encoded as UTF-8, so that the same keys
// give the same bytes on every keyboard and in both clients; nothing is trimmed or folded.

import { CurbsideError, isCurbsideError, malformed } from "../errors";
import { decodeBase64url, encodeBase64url } from "../ids";
import { type Bytes, concat, fromText } from "./bytes";
import { NONCE_LENGTH, TAG_LENGTH, importAesKey, openAes, randomBytes, sealAes } from "./primitives";
import { SecretBytes } from "./secret";

/** Code points, after normalisation (NIST SP 800-63B-4: 15 where it is the only factor). */
export const MINIMUM_CHARS = 15;
export const MAXIMUM_CHARS = 1024;
const MEMORY_KIB = 65_536;
const PASSES = 3;
const LANES = 1;
const SALT_BYTES = 16;
const VAULT_KEY_BYTES = 32;
const LABEL = fromText("curbside vault wrap v1\0");
const MEMBERS = ["kind", "kdf", "memory_kib", "passes", "lanes", "salt", "nonce", "ciphertext"];
/** What a record may ask for: never less work than today, never more than a phone can do. */
const BOUNDS = { memory_kib: [MEMORY_KIB, 4 * MEMORY_KIB], passes: [PASSES, 10], lanes: [1, 4] } as const;
const LENGTHS = { salt: SALT_BYTES, nonce: NONCE_LENGTH, ciphertext: VAULT_KEY_BYTES + TAG_LENGTH } as const;

/** A vault key wrapped under a passphrase; plain JSON. salt, nonce, ciphertext: base64url. */
export interface WrapRecord {
  readonly kind: "passphrase";
  readonly kdf: "argon2id";
  readonly memory_kib: number;
  readonly passes: number;
  readonly lanes: number;
  readonly salt: string;
  readonly nonce: string;
  readonly ciphertext: string;
}

/** The one spelling of a passphrase: NFKC. Throws `internal` when it is no Unicode text or over MAXIMUM_CHARS. */
export function normalizePassphrase(passphrase: string): string {
  if (!passphrase.isWellFormed() || [...passphrase].length > MAXIMUM_CHARS)
    throw new CurbsideError("internal", "a passphrase is too long or not Unicode text");
  return passphrase.normalize("NFKC");
}

/** The bytes that stand for a passphrase everywhere: UTF-8 of its normal form. */
export function preparePassphrase(passphrase: string): SecretBytes {
  const bytes = fromText(normalizePassphrase(passphrase));
  const secret = new SecretBytes(bytes);
  bytes.fill(0);
  return secret;
}

/** Wraps a vault key (32 bytes) for the vault of this id. `fixed` is for test vectors only. */
export async function wrap(
  vaultKey: SecretBytes,
  passphrase: string,
  vaultId: string,
  fixed: { readonly salt?: Uint8Array; readonly nonce?: Uint8Array } = {},
): Promise<WrapRecord> {
  if (vaultKey.length !== VAULT_KEY_BYTES) throw new CurbsideError("internal", "a vault key has 32 bytes");
  const salt = fixed.salt ?? randomBytes(SALT_BYTES);
  const nonce = fixed.nonce ?? randomBytes(NONCE_LENGTH);
  const work = { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
  const key = await derive(passphrase, salt, work);
  const ciphertext = await sealAes(key, nonce, vaultKey.reveal(), aadOf(vaultId));
  return {
    kind: "passphrase",
    kdf: "argon2id",
    ...work,
    salt: encodeBase64url(salt),
    nonce: encodeBase64url(nonce),
    ciphertext: encodeBase64url(ciphertext),
  };
}

/** The vault key out of a record (parsed JSON). Throws `wrong_passphrase`; `malformed` when it is no record of ours. */
export async function unwrap(record: unknown, passphrase: string, vaultId: string): Promise<SecretBytes> {
  const wrapped = parseWrapRecord(record);
  if (passphrase === "") throw new CurbsideError("wrong_passphrase");
  const key = await derive(passphrase, decodeBase64url(wrapped.salt), wrapped);
  try {
    const nonce = decodeBase64url(wrapped.nonce);
    const opened = await openAes(key, nonce, decodeBase64url(wrapped.ciphertext), aadOf(vaultId));
    const vaultKey = new SecretBytes(opened);
    opened.fill(0);
    return vaultKey;
  } catch (error) {
    if (isCurbsideError(error, "decryption_failed")) throw new CurbsideError("wrong_passphrase");
    throw error;
  }
}

/** Checks the form of a record. Throws `malformed`. */
export function parseWrapRecord(record: unknown): WrapRecord {
  if (typeof record !== "object" || record === null) throw malformed("vault wrap: not an object");
  const members = record as Readonly<Record<string, unknown>>;
  const names = Object.keys(members);
  if (names.length !== MEMBERS.length || !MEMBERS.every((name) => names.includes(name)))
    throw malformed("vault wrap: other members were expected");
  if (members["kind"] !== "passphrase" || members["kdf"] !== "argon2id")
    throw malformed("vault wrap: of an unknown kind");
  for (const [name, [least, most]] of Object.entries(BOUNDS)) {
    const value = members[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
      throw malformed(`vault wrap: ${name} is out of its range`);
  }
  for (const [name, length] of Object.entries(LENGTHS)) {
    const value = members[name];
    if (typeof value !== "string" || decodeBase64url(value).length !== length)
      throw malformed(`vault wrap: ${name} has another length`);
  }
  return record as WrapRecord;
}

function aadOf(vaultId: string): Bytes {
  return concat(LABEL, fromText(vaultId));
}

async function derive(
  passphrase: string,
  salt: Uint8Array,
  work: { readonly memory_kib: number; readonly passes: number; readonly lanes: number },
): Promise<CryptoKey> {
  const { argon2id } = await import("hash-wasm");
  const password = preparePassphrase(passphrase);
  const hash = await argon2id({
    password: password.reveal(),
    salt,
    memorySize: work.memory_kib,
    iterations: work.passes,
    parallelism: work.lanes,
    hashLength: 32,
    outputType: "binary",
  });
  password.wipe();
  const key = new SecretBytes(hash);
  hash.fill(0);
  try {
    return await importAesKey(key);
  } finally {
    key.wipe();
  }
}
