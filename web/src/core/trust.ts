// Where trust begins on a device: the invite that pins the organisation, the rules that the MLS adapter asks, and the
// number that people can compare. Twin of src/curbside/client/trust.py and src/curbside/policy/validator.py.

import {
  ChainVerifier,
  type VerifiedDevice,
  parseAuthority,
  refuse,
  verifyIssued,
  verifyRole,
  verifySuccessor,
} from "./chain";
import { compareBytes, concat, fromText, isSame, toHex } from "./crypto/bytes";
import { publicKeyOf, sha256 } from "./crypto/primitives";
import { type Certificate, type Issuer, parseCertificate } from "./crypto/x509";
import { CurbsideError, isCurbsideError } from "./errors";
import { type ContextFacts, DELIVERY_SERVICE, type RuleActor, checkCommit, checkGroup } from "./group_rules";
import { decodeBase64url, decodeId } from "./ids";
import type { Actor, GroupRules, GroupView, LeafClaim, Transition } from "./mls/types";
import type { Invite } from "./wire/bodies.generated";
import type { InviteLink } from "./wire/invite_link";

const INVITE = "invite";
const SAFETY_LABEL = fromText("curbside safety number v1\0");

/** An invite of the organisation in the link. enrolment: with the seed out of the link. Pin `authority`. */
export interface VerifiedInvite {
  readonly organization: string;
  readonly authority: Certificate;
  readonly enrolment: Issuer;
  readonly userId: string;
  readonly role: string;
  readonly expiresAt: number;
}

/**
 * Verifies what the server says about an invite against the link, which came another way. Only the certificates are
 * believed; the invite's other fields are the server's word. now: Unix seconds. Throws `untrusted_device`
 * (trust.invite.authority, trust.invite.key, trust.role.known) and `invite_expired`.
 */
export async function verifyInvite(link: InviteLink, invite: Invite, now: number): Promise<VerifiedInvite> {
  const { authority, enrolment } = await parseInvite(link, invite);
  const key = link.enrolmentSeed;
  if (invite.invite_id !== link.inviteId || !isSame(await publicKeyOf(key), enrolment.publicKey))
    refuse(INVITE, "trust.invite.key");
  verifyRole(enrolment, INVITE);
  if (now < enrolment.notBefore || now > enrolment.notAfter) throw new CurbsideError("invite_expired");
  const { userId, role } = enrolment.subject;
  return {
    organization: authority.subject.organization,
    authority,
    enrolment: { certificate: enrolment, key },
    userId,
    role,
    expiresAt: enrolment.notAfter,
  };
}

async function parseInvite(
  link: InviteLink,
  invite: Invite,
): Promise<{ authority: Certificate; enrolment: Certificate }> {
  try {
    const authority = await parseAuthority(decodeBase64url(invite.authority_certificate));
    if (!isSame(authority.publicKey, link.authorityKey)) refuse(INVITE, "trust.invite.authority");
    const enrolment = await parseCertificate(decodeBase64url(invite.enrolment_certificate));
    await verifyIssued(enrolment, authority, INVITE);
    if (enrolment.kind !== "enrolment") refuse(INVITE, "trust.invite.authority");
    return { authority, enrolment };
  } catch (error) {
    if (isCurbsideError(error, "malformed") || isCurbsideError(error, "untrusted_device"))
      refuse(INVITE, "trust.invite.authority");
    throw error;
  }
}

/**
 * 60 digits in twelve groups of five, the same on every device, over the users' root keys, in any order:
 * SHA-256(label ‖ (user id (16) ‖ key (32)), sorted), big-endian, modulo 10^60. One who stands twice counts once.
 */
export async function computeSafetyNumber(
  users: readonly { readonly userId: string; readonly userKey: Uint8Array }[],
): Promise<string> {
  const entries = users.map(({ userId, userKey }) => concat(decodeId(userId), userKey)).sort(compareBytes);
  if (entries.some((entry) => entry.length !== 48)) throw new CurbsideError("internal", "a root key has 32 bytes");
  const once = entries.filter((entry, index) => index === 0 || compareBytes(entries[index - 1] ?? entry, entry) !== 0);
  const digest = await sha256(concat(SAFETY_LABEL, ...once));
  const digits = (BigInt(`0x${toHex(digest)}`) % 10n ** 60n).toString().padStart(60, "0");
  return (digits.match(/.{5}/g) ?? []).join(" ");
}

/** The trust chain and the conversation's rules as the MLS adapter asks for them, for one organisation. */
export class OrganizationRules implements GroupRules<VerifiedDevice> {
  readonly chains: ChainVerifier;
  /** TLS-encoded ExternalSender of the delivery service, pinned at sign-up. */
  readonly externalSender: Uint8Array;
  readonly #pinnedSenders: Uint8Array;
  #now: () => number;

  private constructor(chains: ChainVerifier, externalSender: Uint8Array, now: () => number) {
    this.chains = chains;
    this.externalSender = externalSender;
    this.#pinnedSenders = concat(writeLength(externalSender.length), externalSender);
    this.#now = now;
  }

  /** Pins an authority (certificate, DER) and the delivery service. now: Unix seconds. Throws `untrusted_device`. */
  static async create(pinned: {
    readonly authority: Uint8Array;
    readonly externalSender: Uint8Array;
    readonly now: () => number;
  }): Promise<OrganizationRules> {
    return new OrganizationRules(await ChainVerifier.create(pinned.authority), pinned.externalSender, pinned.now);
  }

  /** Judge by this clock from now on (Unix seconds). */
  setClock(now: () => number): void {
    this.#now = now;
  }

  verifyLeaf(claim: LeafClaim): Promise<VerifiedDevice> {
    return this.chains.verifyDevice(claim.certificates, claim.signatureKey, this.#now());
  }

  identifyLeaf(claim: LeafClaim): Promise<VerifiedDevice> {
    return this.chains.identify(claim.certificates);
  }

  verifySuccessor(previous: VerifiedDevice, next: VerifiedDevice): void {
    verifySuccessor(previous, next);
  }

  verifyTransition(transition: Transition<VerifiedDevice>): void {
    const { before, after, committer, diff, contextBy } = transition;
    // A device that joins by external commit is in `added` by its own doing; group.external.commit speaks of that.
    const added = diff.added.filter(({ by }) => by.kind !== "joiner");
    const change = ({ member, by }: (typeof diff.added)[number]) => ({
      userId: member.identity.userId,
      by: actorOf(by),
    });
    checkCommit(
      {
        epoch: before.epoch,
        before: contextOf(before),
        after: contextOf(after),
        committer: actorOf(committer),
        adds: added.map(change),
        removes: diff.removed.map(change),
        users: usersOf(before),
        contextBy: contextBy && actorOf(contextBy),
        reinit: false, // the adapter takes no ReInit at all
      },
      this.#pinnedSenders,
    );
  }

  verifyGroup(view: GroupView<VerifiedDevice>): void {
    // The adapter knows one cipher suite only, so that a group of another one is never joined.
    checkGroup(contextOf(view), this.#pinnedSenders, usersOf(view), true);
  }
}

function usersOf(view: GroupView<VerifiedDevice>): ReadonlySet<string> {
  return new Set(view.members.map((member) => member.identity.userId));
}

function contextOf(view: GroupView<VerifiedDevice>): ContextFacts {
  return { policy: view.policy, externalSenders: view.externalSenders, requiredExtensions: view.requiredExtensions };
}

function actorOf(actor: Actor<VerifiedDevice>): RuleActor {
  if (actor.kind === "delivery-service") return { kind: "external_sender", index: DELIVERY_SERVICE };
  return { kind: actor.kind === "joiner" ? "newcomer" : "member", userId: actor.member.identity.userId };
}

/** The length header of a vector (RFC 9420 section 2.1.2), in its shortest form. */
function writeLength(length: number): Uint8Array {
  if (length < 0x40) return Uint8Array.of(length);
  if (length < 0x4000) return Uint8Array.of(0x40 | (length >> 8), length & 0xff);
  throw new CurbsideError("internal", "an external sender is too long");
}
