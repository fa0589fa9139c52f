// The trust chain of docs/trust.md: device certificate ← user ← enrolment ← the pinned authority. Checks run in the
// order of the table there. Twin of src/curbside/policy/chain.py.

import { concat, isSame } from "./crypto/bytes";
import { hashText } from "./crypto/primitives";
import {
  type Certificate,
  DIGITAL_SIGNATURE,
  KEY_CERT_SIGN,
  type Kind,
  findLabel,
  parseCertificate,
  verifyCertificate,
} from "./crypto/x509";
import { CurbsideError, isCurbsideError } from "./errors";

export const ROLES = ["physician", "nurse", "clerk", "patient", "bot", "privacy_officer", "administrator"];
export const UNKNOWN_DEVICE = "unknown device";
const CACHED_CHAINS = 4096;
const CHAIN: readonly Kind[] = ["device", "user", "enrolment"];
const PERSON: readonly Kind[] = ["user", "enrolment"];
const AUTHORITY = "organisation authority";
/** CA flag, path length, key usage of each kind. */
const CONSTRAINTS: Readonly<Record<Kind, readonly [boolean, number, number]>> = {
  authority: [true, -1, KEY_CERT_SIGN],
  enrolment: [true, 1, KEY_CERT_SIGN],
  user: [true, 0, KEY_CERT_SIGN],
  device: [false, -1, DIGITAL_SIGNATURE],
};

/** A person whom the authority vouches for. userKey: Ed25519 root key, 32 bytes. */
export interface VerifiedUser {
  readonly userId: string;
  readonly name: string;
  readonly role: string;
  readonly userKey: Uint8Array;
}

/** A device whose chain verifies. signatureKey: of its leaf. Certificates: DER. */
export interface VerifiedDevice extends VerifiedUser {
  readonly deviceId: string;
  readonly deviceLabel: string;
  readonly signatureKey: Uint8Array;
  readonly userCertificate: Uint8Array;
  readonly enrolmentCertificate: Uint8Array;
}

/** Certificates for which all checks hold that time does not change. `device` is missing in a person's chain. */
interface Checked {
  readonly device: Certificate | undefined;
  readonly user: Certificate;
  readonly enrolment: Certificate;
}

/** Refuses a device (or person) by name. */
export function refuse(device: string, check: string): never {
  throw new CurbsideError("untrusted_device", `device ${device} refused: check ${check} failed`, { device, check });
}

/** The organisation's certificate: of our profile, of the right kind, signed by itself. Throws `untrusted_device`. */
export async function parseAuthority(raw: Uint8Array): Promise<Certificate> {
  const authority = await parse(raw, "authority", AUTHORITY);
  await verifyIssued(authority, authority, AUTHORITY);
  return authority;
}

/** Checks that an enrolment's role is a known one. Throws `untrusted_device`. */
export function verifyRole(enrolment: Certificate, device: string): void {
  if (!ROLES.includes(enrolment.subject.role)) refuse(device, "trust.role.known");
}

/** Checks that one certificate was issued by another: names, key identifiers, signature, constraints. */
export async function verifyIssued(certificate: Certificate, issuer: Certificate, device: string): Promise<void> {
  verifyIssuer(certificate, issuer, device);
  await verifySignedBy(certificate, issuer, device);
  verifyConstraints(certificate, device);
}

/** Checks that a leaf may take another's place: the same device of the same user. Throws `untrusted_device`. */
export function verifySuccessor(
  old: Pick<VerifiedDevice, "userId" | "deviceId">,
  next: Pick<VerifiedDevice, "userId" | "deviceId" | "deviceLabel">,
): void {
  if (old.userId !== next.userId || old.deviceId !== next.deviceId) refuse(next.deviceLabel, "trust.successor.user");
}

/** Verifies chains under one pinned authority; remembers the ones that held, but looks at the time on each use. */
export class ChainVerifier {
  readonly authority: Certificate;
  readonly #capacity: number;
  readonly #known = new Map<string, Checked>();

  private constructor(authority: Certificate, capacity: number) {
    this.authority = authority;
    this.#capacity = capacity;
  }

  /** Pins an authority (certificate, DER). Throws `untrusted_device` when it is none. */
  static async create(authority: Uint8Array, capacity = CACHED_CHAINS): Promise<ChainVerifier> {
    return new ChainVerifier(await parseAuthority(authority), capacity);
  }

  /** How many chains are remembered. */
  get remembered(): number {
    return this.#known.size;
  }

  /** Verifies a leaf's chain (device, user, enrolment; DER) for the leaf's signature key at `now`, Unix seconds. */
  async verifyDevice(
    certificates: readonly Uint8Array[],
    signatureKey: Uint8Array,
    now: number,
  ): Promise<VerifiedDevice> {
    const checked = await this.#check(certificates, CHAIN);
    const verified = describe(checked);
    verifyValidity(checked.user, now, verified.deviceLabel, "trust.user.validity");
    if (checked.device !== undefined)
      verifyValidity(checked.device, now, verified.deviceLabel, "trust.device.validity");
    if (!isSame(verified.signatureKey, signatureKey)) refuse(verified.deviceLabel, "trust.device.key");
    return verified;
  }

  /** Verifies a person's chain (user, enrolment; DER). `device` of the error is the person's name. */
  async verifyUser(certificates: readonly Uint8Array[], now: number): Promise<VerifiedUser> {
    const { user, enrolment } = await this.#check(certificates, PERSON);
    verifyValidity(user, now, user.subject.commonName, "trust.user.validity");
    const { userId, commonName } = user.subject;
    return { userId, name: commonName, role: enrolment.subject.role, userKey: user.publicKey };
  }

  /** Whose leaf a chain is, whatever the time and the leaf's key: for leaves that were verified before. */
  async identify(certificates: readonly Uint8Array[]): Promise<VerifiedDevice> {
    return describe(await this.#check(certificates, CHAIN));
  }

  async #check(certificates: readonly Uint8Array[], kinds: readonly Kind[]): Promise<Checked> {
    const key = await keyOf(certificates);
    const known = this.#known.get(key);
    if (known !== undefined && certificates.length === kinds.length) {
      this.#known.delete(key);
      this.#known.set(key, known);
      return known;
    }
    const checked = await checkChain(certificates, kinds, this.authority);
    this.#known.set(key, checked);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= this.#capacity) break;
      this.#known.delete(oldest);
    }
    return checked;
  }
}

/** SHA-256 over all certificates, each with its length before it. */
function keyOf(certificates: readonly Uint8Array[]): Promise<string> {
  const parts = certificates.flatMap((raw) => {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, raw.length);
    return [length, raw];
  });
  return hashText(concat(...parts));
}

/** All checks that time does not change, in the order of docs/trust.md. */
async function checkChain(
  certificates: readonly Uint8Array[],
  kinds: readonly Kind[],
  authority: Certificate,
): Promise<Checked> {
  const name = (await findLabel(certificates[0])) || UNKNOWN_DEVICE;
  if (certificates.length !== kinds.length) refuse(name, "trust.chain.length");
  const parsed: Certificate[] = [];
  for (const [index, kind] of kinds.entries())
    parsed.push(await parse(certificates[index] ?? new Uint8Array(), kind, name));
  const links = parsed.map((certificate, index) => ({ certificate, issuer: parsed[index + 1] ?? authority }));
  for (const { certificate, issuer } of links) verifyIssuer(certificate, issuer, name);
  for (const { certificate, issuer } of links) await verifySignedBy(certificate, issuer, name);
  for (const certificate of parsed) verifyConstraints(certificate, name);
  const [user, enrolment] = parsed.slice(-2);
  if (user === undefined || enrolment === undefined) refuse(name, "trust.chain.length");
  if (parsed.some((certificate) => certificate.subject.userId !== user.subject.userId))
    refuse(name, "trust.user.match");
  verifyRole(enrolment, name);
  verifyValidity(enrolment, user.notBefore, name, "trust.enrolment.window");
  return { device: parsed.length === CHAIN.length ? parsed[0] : undefined, user, enrolment };
}

async function parse(raw: Uint8Array, kind: Kind, device: string): Promise<Certificate> {
  let certificate: Certificate;
  try {
    certificate = await parseCertificate(raw);
  } catch (error) {
    if (isCurbsideError(error, "malformed")) refuse(device, "trust.chain.parse");
    throw error;
  }
  if (certificate.kind !== kind) refuse(device, "trust.chain.parse");
  return certificate;
}

function verifyIssuer(certificate: Certificate, issuer: Certificate, device: string): void {
  const keyId = certificate.authorityKeyId.length > 0 ? certificate.authorityKeyId : certificate.subjectKeyId;
  if (!isSame(certificate.issuerDer, issuer.subjectDer) || !isSame(keyId, issuer.subjectKeyId))
    refuse(device, "trust.chain.issuer");
}

async function verifySignedBy(certificate: Certificate, issuer: Certificate, device: string): Promise<void> {
  try {
    await verifyCertificate(certificate, issuer.publicKey);
  } catch (error) {
    if (isCurbsideError(error, "bad_signature")) refuse(device, "trust.chain.signature");
    throw error;
  }
}

function verifyConstraints(certificate: Certificate, device: string): void {
  const [ca, pathLength, keyUsage] = CONSTRAINTS[certificate.kind];
  if (certificate.ca !== ca || certificate.pathLength !== pathLength || certificate.keyUsage !== keyUsage)
    refuse(device, "trust.chain.constraints");
}

function verifyValidity(certificate: Certificate, at: number, device: string, check: string): void {
  if (!(certificate.notBefore <= at && at <= certificate.notAfter)) refuse(device, check);
}

function describe({ device, user, enrolment }: Checked): VerifiedDevice {
  if (device === undefined) refuse(UNKNOWN_DEVICE, "trust.chain.length");
  return {
    userId: device.subject.userId,
    deviceId: device.subject.deviceId,
    name: user.subject.commonName,
    role: enrolment.subject.role,
    deviceLabel: device.subject.commonName,
    userKey: user.publicKey,
    signatureKey: device.publicKey,
    userCertificate: user.raw,
    enrolmentCertificate: enrolment.raw,
  };
}
