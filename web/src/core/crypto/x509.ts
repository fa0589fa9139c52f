// The four certificates of docs/trust.md: authority, enrolment, user, device. Twin of src/curbside/crypto/x509.py.
//
// `parseCertificate` looks at one certificate alone; whether a chain of them holds is decided in core/chain.ts.

import { CurbsideError, isCurbsideError, malformed } from "../errors";
import { decodeId, encodeId } from "../ids";
import { fromHex, fromText, isSame, toHex, toText } from "./bytes";
import * as der from "./der";
import { publicKeyOf, randomBytes, sha256, sign, verifySignature } from "./primitives";
import type { SecretBytes } from "./secret";

export type Kind = "authority" | "enrolment" | "user" | "device";

const CERTIFICATE_BYTES = 2048;
const NAME_CHARS = 64;
export const KEY_CERT_SIGN = 0x04;
export const DIGITAL_SIGNATURE = 0x80;
const CLOCK_SLACK_SECONDS = 300;
const DAY = 86_400;
const USER_SECONDS = 10 * 365 * DAY;
const DEVICE_SECONDS = 2 * 365 * DAY;

const ED25519 = der.element(der.SEQUENCE, fromHex("06032b6570"));
const VERSION_3 = fromHex("a003020102");
const O = "060355040a";
const OU = "060355040b";
const CN = "0603550403";
const SERIAL_NUMBER = "0603550405";
const UID = "060a0992268993f22c640101";
const SUBJECTS: Readonly<Record<Kind, readonly string[]>> = {
  authority: [O, CN],
  enrolment: [O, OU, UID],
  user: [CN, UID],
  device: [CN, UID, SERIAL_NUMBER],
};
const SUBJECT_KEY_ID = "551d0e";
const KEY_USAGE = "551d0f";
const BASIC_CONSTRAINTS = "551d13";
const AUTHORITY_KEY_ID = "551d23";
const CRITICAL = new Set([KEY_USAGE, BASIC_CONSTRAINTS]);
const KNOWN = [BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_KEY_ID, AUTHORITY_KEY_ID];
/** Control, invisible and direction-changing characters; joiners stay, since names in some scripts need them. */
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;

/** Who a certificate is about. A field that its kind does not have is "". role: the OU of an enrolment. */
export interface Subject {
  readonly organization: string;
  readonly role: string;
  readonly commonName: string;
  readonly userId: string;
  readonly deviceId: string;
}

/**
 * A certificate of our profile that was parsed; nothing about its signature is known yet. Times are Unix seconds, both
 * inclusive. pathLength -1: none. keyUsage: first octet of the bit string. authorityKeyId: empty for the authority.
 */
export interface Certificate {
  readonly kind: Kind;
  readonly subject: Subject;
  readonly serial: Uint8Array;
  readonly subjectDer: Uint8Array;
  readonly issuerDer: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly ca: boolean;
  readonly pathLength: number;
  readonly keyUsage: number;
  readonly subjectKeyId: Uint8Array;
  readonly authorityKeyId: Uint8Array;
  readonly tbs: Uint8Array;
  readonly signature: Uint8Array;
  readonly raw: Uint8Array;
}

/** A certificate together with its private key, an Ed25519 seed. */
export interface Issuer {
  readonly certificate: Certificate;
  readonly key: SecretBytes;
}

/** What goes into a certificate besides its issuer. pathLength -1: none. */
export interface Draft {
  readonly kind: Kind;
  readonly subject: Subject;
  readonly publicKey: Uint8Array;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly ca: boolean;
  readonly pathLength: number;
  readonly keyUsage: number;
}

const NOBODY: Subject = { organization: "", role: "", commonName: "", userId: "", deviceId: "" };

// --- making ----------------------------------------------------------------------------------------------------------

/**
 * The certificate of a user's root key, for the user whom the enrolment names; 10 years from `now`. It begins a little
 * earlier, for clocks that differ, but not before the enrolment (trust.enrolment.window). Throws `malformed`.
 */
export function makeUserCertificate(
  enrolment: Issuer,
  publicKey: Uint8Array,
  name: string,
  now: number,
): Promise<Certificate> {
  const subject = { ...NOBODY, commonName: name, userId: enrolment.certificate.subject.userId };
  const draft: Draft = {
    kind: "user",
    subject,
    publicKey,
    notBefore: Math.max(now - CLOCK_SLACK_SECONDS, enrolment.certificate.notBefore),
    notAfter: now + USER_SECONDS,
    ca: true,
    pathLength: 0,
    keyUsage: KEY_CERT_SIGN,
  };
  return buildCertificate(draft, enrolment.key, enrolment.certificate);
}

/** The certificate of a device of this user; its key becomes the leaf's. Two years. Throws `malformed`. */
export function makeDeviceCertificate(
  user: Issuer,
  device: { readonly publicKey: Uint8Array; readonly label: string; readonly deviceId: string },
  now: number,
): Promise<Certificate> {
  const { userId } = user.certificate.subject;
  const draft: Draft = {
    kind: "device",
    subject: { ...NOBODY, commonName: device.label, userId, deviceId: device.deviceId },
    publicKey: device.publicKey,
    notBefore: now - CLOCK_SLACK_SECONDS,
    notAfter: now + DEVICE_SECONDS,
    ca: false,
    pathLength: -1,
    keyUsage: DIGITAL_SIGNATURE,
  };
  return buildCertificate(draft, user.key, user.certificate);
}

/**
 * Signs a draft with the issuer's key; no issuer: self-signed. serial: 16 bytes, random unless a test gives it.
 * Throws `malformed` for what has no form in our profile, such as a name that is too long.
 */
export async function buildCertificate(
  draft: Draft,
  key: SecretBytes,
  issuer: Certificate | undefined,
  serial: Uint8Array = randomSerial(),
): Promise<Certificate> {
  const name = writeName(draft.kind, draft.subject);
  const tbs = der.element(
    der.SEQUENCE,
    VERSION_3,
    der.element(der.INTEGER, serial),
    ED25519,
    issuer?.subjectDer ?? name,
    der.element(der.SEQUENCE, der.writeTime(draft.notBefore), der.writeTime(draft.notAfter)),
    name,
    der.element(der.SEQUENCE, ED25519, der.element(der.BIT_STRING, Uint8Array.of(0), draft.publicKey)),
    await writeExtensions(draft, issuer),
  );
  const signature = der.element(der.BIT_STRING, Uint8Array.of(0), await sign(key, tbs));
  return parseCertificate(der.element(der.SEQUENCE, tbs, ED25519, signature));
}

/** The subject key identifier of a key: the first 20 bytes of its SHA-256. */
export async function keyId(publicKey: Uint8Array): Promise<Uint8Array> {
  return (await sha256(publicKey)).subarray(0, 20);
}

/** A certificate with its private key. Throws `internal` when they do not belong together. */
export async function makeIssuer(certificate: Certificate, key: SecretBytes): Promise<Issuer> {
  if (!isSame(await publicKeyOf(key), certificate.publicKey))
    throw new CurbsideError("internal", "the key is not the certificate's");
  return { certificate, key };
}

function randomSerial(): Uint8Array {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40;
  return serial;
}

function writeName(kind: Kind, subject: Subject): Uint8Array {
  const values: Readonly<Record<string, string>> = {
    [O]: subject.organization,
    [OU]: subject.role,
    [CN]: subject.commonName,
    [UID]: subject.userId,
    [SERIAL_NUMBER]: kind === "device" ? toHex(decodeId(subject.deviceId)) : "",
  };
  return der.element(der.SEQUENCE, ...SUBJECTS[kind].map((oid) => writeAttribute(oid, values[oid] ?? "")));
}

function writeAttribute(oid: string, value: string): Uint8Array {
  if (!value.isWellFormed()) throw malformed("a name that has no UTF-8 form");
  const text = der.element(oid === SERIAL_NUMBER ? der.PRINTABLE_STRING : der.UTF8_STRING, fromText(value));
  return der.element(der.SET, der.element(der.SEQUENCE, fromHex(oid), text));
}

async function writeExtensions(draft: Draft, issuer: Certificate | undefined): Promise<Uint8Array> {
  const none = new Uint8Array();
  const depth = draft.pathLength >= 0 ? der.element(der.INTEGER, Uint8Array.of(draft.pathLength)) : none;
  const unused = 31 - Math.clz32(draft.keyUsage & -draft.keyUsage);
  const extensions = [
    writeExtension(BASIC_CONSTRAINTS, der.element(der.SEQUENCE, draft.ca ? der.TRUE : none, depth)),
    writeExtension(KEY_USAGE, der.element(der.BIT_STRING, Uint8Array.of(unused, draft.keyUsage))),
    writeExtension(SUBJECT_KEY_ID, der.element(der.OCTET_STRING, await keyId(draft.publicKey))),
  ];
  if (issuer !== undefined)
    extensions.push(
      writeExtension(AUTHORITY_KEY_ID, der.element(der.SEQUENCE, der.element(0x80, issuer.subjectKeyId))),
    );
  return der.element(0xa3, der.element(der.SEQUENCE, ...extensions));
}

function writeExtension(oid: string, value: Uint8Array): Uint8Array {
  const critical = CRITICAL.has(oid) ? der.TRUE : new Uint8Array();
  return der.element(
    der.SEQUENCE,
    der.element(der.OBJECT_ID, fromHex(oid)),
    critical,
    der.element(der.OCTET_STRING, value),
  );
}

// --- reading ---------------------------------------------------------------------------------------------------------

/** Verifies a certificate's signature under its issuer's key. Throws `bad_signature`. */
export function verifyCertificate(certificate: Certificate, publicKey: Uint8Array): Promise<void> {
  return verifySignature(publicKey, certificate.tbs, certificate.signature);
}

/** Reads one certificate of our profile, in its one spelling. Its signature is not looked at. Throws `malformed`. */
export async function parseCertificate(raw: Uint8Array): Promise<Certificate> {
  if (raw.length > CERTIFICATE_BYTES) throw malformed("a certificate is too long");
  const outer = new der.Reader(raw);
  const whole = outer.inner(der.SEQUENCE);
  outer.finish();
  const tbs = whole.takeWhole(der.SEQUENCE);
  expect(whole.takeIs(der.SEQUENCE, ED25519), "another signature algorithm than Ed25519");
  const signature = readBits(whole, 64);
  whole.finish();
  const certificate = { ...readFields(tbs), tbs, signature, raw };
  expect(isSame(certificate.subjectKeyId, await keyId(certificate.publicKey)), "a key identifier of another key");
  return certificate;
}

function expect(good: boolean, what: string): void {
  if (!good) throw malformed(`certificate: ${what}`);
}

function readFields(tbs: Uint8Array): Omit<Certificate, "tbs" | "signature" | "raw"> {
  const fields = new der.Reader(tbs).inner(der.SEQUENCE);
  expect(fields.takeIs(0xa0, VERSION_3), "not version 3");
  const serial = fields.take(der.INTEGER);
  const first = serial[0] ?? 0;
  expect(serial.length === 16 && first > 0 && first < 0x80, "a serial number that is not 16 bytes and positive");
  expect(fields.takeIs(der.SEQUENCE, ED25519), "another signature algorithm than Ed25519");
  const issuerDer = fields.takeWhole(der.SEQUENCE);
  readSubject(issuerDer);
  const validity = fields.inner(der.SEQUENCE);
  const notBefore = der.readTime(validity);
  const notAfter = der.readTime(validity);
  validity.finish();
  const subjectDer = fields.takeWhole(der.SEQUENCE);
  const { kind, subject } = readSubject(subjectDer);
  const key = fields.inner(der.SEQUENCE);
  expect(key.takeIs(der.SEQUENCE, ED25519), "another key than Ed25519");
  const publicKey = readBits(key, 32);
  key.finish();
  const extensions = readExtensions(fields, kind);
  fields.finish();
  return { kind, subject, serial, subjectDer, issuerDer, publicKey, notBefore, notAfter, ...extensions };
}

function readBits(reader: der.Reader, length: number): Uint8Array {
  const content = reader.take(der.BIT_STRING);
  expect(content.length === length + 1 && content[0] === 0, "a key or signature of another length");
  return content.subarray(1);
}

function readSubject(name: Uint8Array): { kind: Kind; subject: Subject } {
  const found = new Map<string, string>();
  const attributes = new der.Reader(name).inner(der.SEQUENCE);
  while (attributes.more) {
    const attributeSet = attributes.inner(der.SET);
    const attribute = attributeSet.inner(der.SEQUENCE);
    attributeSet.finish();
    const oid = toHex(attribute.takeWhole(der.OBJECT_ID));
    expect(!found.has(oid), "a subject with an attribute twice");
    found.set(oid, readText(attribute.take(oid === SERIAL_NUMBER ? der.PRINTABLE_STRING : der.UTF8_STRING)));
    attribute.finish();
  }
  const attributesFound = [...found.keys()].join();
  const kind = (Object.keys(SUBJECTS) as Kind[]).find((candidate) => SUBJECTS[candidate].join() === attributesFound);
  if (kind === undefined) throw malformed("certificate: a subject of no known kind");
  const value = (oid: string): string => found.get(oid) ?? "";
  if (found.has(UID)) decodeId(value(UID));
  expect(kind !== "authority" || value(O) === value(CN), "an authority with two names");
  const deviceId = kind === "device" ? readDeviceId(value(SERIAL_NUMBER)) : "";
  return {
    kind,
    subject: { organization: value(O), role: value(OU), commonName: value(CN), userId: value(UID), deviceId },
  };
}

function readText(raw: Uint8Array): string {
  const text = toText(raw);
  const length = [...text].length;
  expect(length >= 1 && length <= NAME_CHARS, "a name that is empty or too long");
  expect(!text.startsWith(" ") && !text.endsWith(" "), "a name that begins or ends with a space");
  expect(!HIDDEN.test(text), "a name with characters that cannot be seen");
  return text;
}

function readDeviceId(digits: string): string {
  expect(/^[0-9a-f]{32}$/.test(digits), "a serialNumber that is no device id");
  return encodeId(fromHex(digits));
}

type Extensions = Pick<Certificate, "ca" | "pathLength" | "keyUsage" | "subjectKeyId" | "authorityKeyId">;
type Found = { -readonly [Name in keyof Extensions]: Extensions[Name] };

function readExtensions(fields: der.Reader, kind: Kind): Extensions {
  const wrapper = fields.inner(0xa3);
  const listed = wrapper.inner(der.SEQUENCE);
  wrapper.finish();
  const none = new Uint8Array();
  const found: Found = { ca: false, pathLength: -1, keyUsage: 0, subjectKeyId: none, authorityKeyId: none };
  const seen = new Set<string>();
  while (listed.more) {
    const extension = listed.inner(der.SEQUENCE);
    const oid = toHex(extension.take(der.OBJECT_ID));
    const critical = extension.has(der.BOOLEAN);
    expect(!critical || extension.takeIs(der.BOOLEAN, der.TRUE), "a flag that is not true");
    const value = new der.Reader(extension.take(der.OCTET_STRING));
    extension.finish();
    expect(!seen.has(oid), "an extension twice");
    seen.add(oid);
    if (KNOWN.includes(oid)) {
      expect(critical === CRITICAL.has(oid), "an extension that is wrongly critical or not");
      readExtension(oid, value, found);
      value.finish();
    } else expect(!critical, "an unknown critical extension");
  }
  const right = KNOWN.every((oid) => seen.has(oid) === !(kind === "authority" && oid === AUTHORITY_KEY_ID));
  expect(right, "an extension is missing or out of place");
  return found;
}

function readExtension(oid: string, value: der.Reader, found: Found): void {
  if (oid === BASIC_CONSTRAINTS) {
    const constraints = value.inner(der.SEQUENCE);
    if (constraints.has(der.BOOLEAN)) {
      expect(constraints.takeIs(der.BOOLEAN, der.TRUE), "a CA flag that is not true");
      found.ca = true;
    }
    if (constraints.has(der.INTEGER)) {
      const [depth = 0xff, ...rest] = constraints.take(der.INTEGER);
      expect(found.ca && depth < 0x80 && rest.length === 0, "a path length that makes no sense");
      found.pathLength = depth;
    }
    constraints.finish();
  } else if (oid === KEY_USAGE) {
    const [unused = 0xff, bits = 0, ...rest] = value.take(der.BIT_STRING);
    const form = rest.length === 0 && bits > 0 && unused < 8 && (bits & -bits) === 1 << unused;
    expect(form, "a key usage of another form");
    found.keyUsage = bits;
  } else if (oid === SUBJECT_KEY_ID) found.subjectKeyId = value.take(der.OCTET_STRING);
  else {
    const identifier = value.inner(der.SEQUENCE);
    found.authorityKeyId = identifier.take(0x80);
    identifier.finish();
  }
}

/** The common name of what may be a certificate; undefined when it is none of ours. */
export async function findLabel(raw: Uint8Array | undefined): Promise<string | undefined> {
  try {
    return raw && (await parseCertificate(raw)).subject.commonName;
  } catch (error) {
    if (isCurbsideError(error, "malformed")) return undefined;
    throw error;
  }
}
