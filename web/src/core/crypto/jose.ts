// DPoP proofs (RFC 9449) with Ed25519 (RFC 8037), the thumbprint of a key (RFC 7638), and the device's word for its API
// key. Makes the same bytes as src/curbside/crypto/jose.py, which also verifies them.

import { decodeId, encodeBase64url, makeId } from "../ids";
import { type Bytes, concat, fromText } from "./bytes";
import { hashText, publicKeyOf, sign } from "./primitives";
import type { SecretBytes } from "./secret";

const API_KEY_LABEL = fromText("curbside device api key v1\0");

/** What a proof is for. uri: scheme, host and path, no query. nonce: of the stream's challenge. now: Unix seconds. */
export interface ProofRequest {
  readonly method: string;
  readonly uri: string;
  readonly now: number;
  readonly token?: string;
  readonly nonce?: Uint8Array;
}

/** A proof by a device's API key. jti: random unless given. */
export async function makeProof(key: SecretBytes, request: ProofRequest, jti: string = makeId()): Promise<string> {
  const header = { typ: "dpop+jwt", alg: "EdDSA", jwk: jwkOf(await publicKeyOf(key)) };
  const claims = {
    jti,
    htm: request.method,
    htu: request.uri,
    iat: request.now,
    ...(request.token ? { ath: await hashToken(request.token) } : {}),
    ...(request.nonce?.length ? { nonce: encodeBase64url(request.nonce) } : {}),
  };
  const signed = `${writePart(header)}.${writePart(claims)}`;
  return `${signed}.${encodeBase64url(await sign(key, fromText(signed)))}`;
}

/** The `ath` claim of a token: base64url of its SHA-256. */
export function hashToken(token: string): Promise<string> {
  return hashText(fromText(token));
}

/** The JWK thumbprint of an Ed25519 key (RFC 7638, RFC 8037 appendix A.3). */
export function computeThumbprint(publicKey: Uint8Array): Promise<string> {
  const { crv, kty, x } = jwkOf(publicKey);
  return hashText(fromText(JSON.stringify({ crv, kty, x })));
}

/** The device key's signature over the device's API public key (docs/trust.md). */
export function signApiKey(deviceKey: SecretBytes, deviceId: string, apiKey: Uint8Array): Promise<Bytes> {
  return sign(deviceKey, concat(API_KEY_LABEL, decodeId(deviceId), apiKey));
}

function jwkOf(publicKey: Uint8Array): { kty: string; crv: string; x: string } {
  return { kty: "OKP", crv: "Ed25519", x: encodeBase64url(publicKey) };
}

function writePart(part: unknown): string {
  return encodeBase64url(fromText(JSON.stringify(part)));
}
