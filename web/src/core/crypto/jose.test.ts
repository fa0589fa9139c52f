import { describe, expect, test } from "vitest";
import { decodeBase64url, encodeBase64url } from "../ids";
import { readJson } from "../testing/vectors";
import { computeThumbprint, makeProof, signApiKey } from "./jose";
import { verifySignature } from "./primitives";
import { SecretBytes } from "./secret";

interface Vectors {
  seed: string;
  public_key: string;
  thumbprint: string;
  api_key: { device_seed: string; device_id: string; signature: string };
  made: { method: string; uri: string; now: number; token: string; nonce: string; jti: string; proof: string }[];
}

const vectors = readJson<Vectors>("trust/proofs.json");
const seed = new SecretBytes(decodeBase64url(vectors.seed));

describe("DPoP", () => {
  test.each(vectors.made)("makes the proof that Python makes: $method", async ({ jti, proof, nonce, ...request }) => {
    expect(await makeProof(seed, { ...request, nonce: decodeBase64url(nonce) }, jti)).toBe(proof);
  });

  test("each proof has an id of its own and verifies", async () => {
    const request = { method: "GET", uri: "https://a.example/", now: 1 };
    const [one = "", other = ""] = [await makeProof(seed, request), await makeProof(seed, request)];
    expect(one).not.toBe(other);
    const [head, claims, signature = ""] = one.split(".");
    const signed = new TextEncoder().encode(`${head}.${claims}`);
    await verifySignature(decodeBase64url(vectors.public_key), signed, decodeBase64url(signature));
  });

  test("thumbprint", async () => {
    expect(await computeThumbprint(decodeBase64url(vectors.public_key))).toBe(vectors.thumbprint);
    const example = decodeBase64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    expect(await computeThumbprint(example)).toBe("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
  });

  test("the device vouches for its API key", async () => {
    const { device_seed, device_id, signature } = vectors.api_key;
    const deviceKey = new SecretBytes(decodeBase64url(device_seed));
    const made = await signApiKey(deviceKey, device_id, decodeBase64url(vectors.public_key));
    expect(encodeBase64url(made)).toBe(signature);
  });
});
