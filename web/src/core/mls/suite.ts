import {
  type CiphersuiteImpl,
  type MLSMessage,
  decodeMlsMessage,
  defaultCryptoProvider,
  encodeMlsMessage,
  getCiphersuiteFromName,
  nobleCryptoProvider,
} from "ts-mls";
import { malformed } from "../errors";

/** Cipher suite 1 of RFC 9420 section 17.1: X25519, AES-128-GCM, SHA-256, Ed25519. */
export const SUITE_NAME = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";

let suite: Promise<CiphersuiteImpl> | undefined;

/** The suite's implementation: WebCrypto, or `@noble/curves` on browsers whose WebCrypto lacks the curves. */
export function loadSuite(): Promise<CiphersuiteImpl> {
  suite ??= hasCurves().then((native) =>
    (native ? defaultCryptoProvider : nobleCryptoProvider).getCiphersuiteImpl(getCiphersuiteFromName(SUITE_NAME)),
  );
  return suite;
}

async function hasCurves(): Promise<boolean> {
  try {
    await crypto.subtle.generateKey("Ed25519", false, ["sign"]);
    await crypto.subtle.generateKey("X25519", false, ["deriveBits"]);
    return true;
  } catch {
    return false;
  }
}

type Format = MLSMessage["wireformat"];

/**
 * One MLSMessage of the wanted wire format. Throws `malformed` on anything else, on bytes after it included.
 */
export function parseMessage<F extends Format>(bytes: Uint8Array, format: F): Extract<MLSMessage, { wireformat: F }> {
  const message = decodeAny(bytes);
  if (message.wireformat !== format) throw malformed("another kind of MLS message was expected");
  return message as Extract<MLSMessage, { wireformat: F }>;
}

/** Throws `malformed`. */
export function decodeAny(bytes: Uint8Array): MLSMessage {
  const decoded = tryDecode(bytes);
  if (decoded === undefined || decoded[1] !== bytes.length) throw malformed("not an MLS message");
  return decoded[0];
}

function tryDecode(bytes: Uint8Array): [MLSMessage, number] | undefined {
  try {
    return decodeMlsMessage(bytes, 0);
  } catch {
    return undefined;
  }
}

export { encodeMlsMessage as encodeMessage };
