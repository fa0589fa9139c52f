import { describe, expect, test } from "vitest";
import { isCurbsideError } from "../errors";
import { decodeBase64url, encodeBase64url } from "../ids";
import { readJson, seeded } from "../testing/vectors";
import * as der from "./der";
import { generateSigningSeed, publicKeyOf } from "./primitives";
import { SecretBytes } from "./secret";
import {
  type Draft,
  type Kind,
  type Subject,
  buildCertificate,
  makeDeviceCertificate,
  makeIssuer,
  makeUserCertificate,
  parseCertificate,
  verifyCertificate,
} from "./x509";

interface WireSubject {
  organization: string;
  role: string;
  common_name: string;
  user_id: string;
  device_id: string;
}
interface WireDraft {
  kind: Kind;
  subject: WireSubject;
  public_key: string;
  not_before: number;
  not_after: number;
  ca: boolean;
  path_length: number;
  key_usage: number;
}
interface Vectors {
  good: {
    der: string;
    fields: WireDraft & { serial: string; subject_key_id: string; authority_key_id: string };
    signing_seed: string;
    issuer: string | null;
    serial: string;
    draft: WireDraft;
  }[];
  unknown_extension_ignored: string;
  refused: { reason: string; der: string }[];
}

const vectors = readJson<Vectors>("trust/certificates.json");

const subjectOf = (subject: WireSubject): Subject => ({
  organization: subject.organization,
  role: subject.role,
  commonName: subject.common_name,
  userId: subject.user_id,
  deviceId: subject.device_id,
});

const draftOf = (draft: WireDraft): Draft => ({
  kind: draft.kind,
  subject: subjectOf(draft.subject),
  publicKey: decodeBase64url(draft.public_key),
  notBefore: draft.not_before,
  notAfter: draft.not_after,
  ca: draft.ca,
  pathLength: draft.path_length,
  keyUsage: draft.key_usage,
});

describe("certificates", () => {
  test.each(vectors.good)("reads a certificate: $fields.kind", async ({ der: raw, fields }) => {
    const certificate = await parseCertificate(decodeBase64url(raw));
    expect(certificate).toMatchObject(draftOf(fields));
    expect(encodeBase64url(certificate.serial)).toBe(fields.serial);
    expect(encodeBase64url(certificate.subjectKeyId)).toBe(fields.subject_key_id);
    expect(encodeBase64url(certificate.authorityKeyId)).toBe(fields.authority_key_id);
  });

  test.each(vectors.good)("writes the same bytes: $fields.kind", async (vector) => {
    const seed = new SecretBytes(decodeBase64url(vector.signing_seed));
    const issuer = vector.issuer === null ? undefined : await parseCertificate(decodeBase64url(vector.issuer));
    const made = await buildCertificate(draftOf(vector.draft), seed, issuer, decodeBase64url(vector.serial));
    expect(encodeBase64url(made.raw)).toBe(vector.der);
  });

  test.each(vectors.refused)("refuses: $reason", async ({ der: raw }) => {
    await expect(parseCertificate(decodeBase64url(raw))).rejects.toMatchObject({ code: "malformed" });
  });

  test("ignores an unknown extension that is not critical", async () => {
    const certificate = await parseCertificate(decodeBase64url(vectors.unknown_extension_ignored));
    expect(certificate).toMatchObject({ kind: "device", keyUsage: 0x80 });
  });

  test("a changed byte is refused, or read without another error", async () => {
    const next = seeded(7);
    let refused = 0;
    for (let round = 0; round < 400; round++) {
      const changed = decodeBase64url(vectors.good[next(vectors.good.length)]?.der ?? "");
      changed[next(changed.length)] = next(256);
      try {
        await parseCertificate(changed);
      } catch (error) {
        if (!isCurbsideError(error, "malformed")) throw error;
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(100);
  });

  test("makes a user's and a device's certificate", async () => {
    const enrolmentVector = vectors.good.find(({ fields }) => fields.kind === "enrolment");
    const certificate = await parseCertificate(decodeBase64url(enrolmentVector?.der ?? ""));
    const key = generateSigningSeed();
    await expect(makeIssuer(certificate, key)).rejects.toMatchObject({ code: "internal" });
    const now = 1_780_000_000;
    const user = await makeUserCertificate({ certificate, key }, await publicKeyOf(key), "Åsa", now);
    await verifyCertificate(user, await publicKeyOf(key));
    expect(user).toMatchObject({ kind: "user", ca: true, pathLength: 0, notAfter: now + 10 * 365 * 86_400 });
    expect(user.notBefore).toBe(now - 300);
    const early = await makeUserCertificate({ certificate, key }, user.publicKey, "Åsa", certificate.notBefore + 9);
    expect(early.notBefore).toBe(certificate.notBefore);
    const publicKey = await publicKeyOf(generateSigningSeed());
    const device = { publicKey, label: "Phone", deviceId: `${"A".repeat(21)}w` };
    const made = await makeDeviceCertificate(await makeIssuer(user, key), device, now);
    await verifyCertificate(made, user.publicKey);
    expect(made).toMatchObject({ kind: "device", ca: false, notBefore: now - 300, notAfter: now + 2 * 365 * 86_400 });
    expect(made.subject).toMatchObject({ userId: certificate.subject.userId, deviceId: device.deviceId });
    for (const label of ["", " x", "a\nb", "a\u202eb", "x".repeat(65), "\ud800"])
      await expect(makeDeviceCertificate({ certificate: user, key }, { ...device, label }, now)).rejects.toMatchObject({
        code: "malformed",
      });
  });

  test("times survive", () => {
    for (const seconds of [-631_152_000, 0, 951_782_400, 2_524_607_999, 2_524_608_000, 253_402_300_799])
      expect(der.readTime(new der.Reader(der.writeTime(seconds)))).toBe(seconds);
    for (const seconds of [-631_152_001, 253_402_300_800]) expect(() => der.writeTime(seconds)).toThrow();
  });

  test.each(["", "04", "0401", "048100", "04817f", "0482007f", "04820001", "0480", "0483000001"])(
    "bad length %s",
    (hex) => {
      const raw = new Uint8Array(Buffer.from(hex, "hex"));
      expect(() => new der.Reader(raw).take(der.OCTET_STRING)).toThrow();
    },
  );

  test("lengths survive", () => {
    for (const length of [0, 1, 127, 128, 255, 256, 65_535]) {
      const written = der.element(der.OCTET_STRING, new Uint8Array(length));
      expect(new der.Reader(written).take(der.OCTET_STRING)).toHaveLength(length);
    }
    expect(() => der.element(der.OCTET_STRING, new Uint8Array(65_536))).toThrow();
  });
});
