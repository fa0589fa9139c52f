// What the adapter gives and asks. Leaf indexes are those of the ratchet tree (RFC 9420 section 4).

/** Extension type of the conversation's policy in the GroupContext (docs/trust.md). */
export const POLICY_EXTENSION = 0xfa01;

/** Whose device a leaf is, as its certificate chain says. */
export interface LeafIdentity {
  readonly userId: string;
  readonly deviceId: string;
}

/** What a leaf says about itself: certificates device, user, enrolment (DER), and its signature key. */
export interface LeafClaim {
  readonly certificates: readonly Uint8Array[];
  readonly signatureKey: Uint8Array;
}

export interface Member<I extends LeafIdentity = LeafIdentity> {
  readonly leaf: number;
  readonly identity: I;
}

/** Who did it: a member, the delivery service (external sender 0), or a device that joins by external commit. */
export type Actor<I extends LeafIdentity> =
  | { readonly kind: "member"; readonly member: Member<I> }
  | { readonly kind: "delivery-service" }
  | { readonly kind: "joiner"; readonly member: Member<I> };

export interface RosterDiff<I extends LeafIdentity = LeafIdentity> {
  readonly added: readonly { readonly member: Member<I>; readonly by: Actor<I> }[];
  readonly removed: readonly { readonly member: Member<I>; readonly by: Actor<I> }[];
  /** Leaves whose keys were renewed. */
  readonly updated: readonly Member<I>[];
}

/** What the group rules look at. `policy` is the bytes of extension 0xFA01, undefined when it is not there. */
export interface GroupView<I extends LeafIdentity = LeafIdentity> {
  readonly epoch: number;
  readonly members: readonly Member<I>[];
  readonly policy: Uint8Array | undefined;
  /** Bytes of the external_senders extension. */
  readonly externalSenders: Uint8Array | undefined;
  /** Extension types in required_capabilities. */
  readonly requiredExtensions: readonly number[];
}

export interface Transition<I extends LeafIdentity = LeafIdentity> {
  readonly before: GroupView<I>;
  readonly after: GroupView<I>;
  readonly committer: Actor<I>;
  readonly diff: RosterDiff<I>;
  /** Who proposed new group context extensions, if anybody did. */
  readonly contextBy: Actor<I> | undefined;
}

/** The decisions that the adapter never makes itself. Each throws to refuse; the group then stays as it was. */
export interface GroupRules<I extends LeafIdentity = LeafIdentity> {
  /** Verifies a leaf's chain (docs/trust.md, trust.chain.*). Throws `untrusted_device`. */
  verifyLeaf(claim: LeafClaim): Promise<I>;
  /** Whose leaf it is, for one that was verified before: time may have passed since. Throws `untrusted_device`. */
  identifyLeaf(claim: LeafClaim): Promise<I>;
  /** Throws unless `next` may stand where `previous` stood (trust.successor.user). */
  verifySuccessor(previous: I, next: I): void;
  /** Group rules on a commit, our own included (docs/trust.md, group.*). Throws `rule_broken`. */
  verifyTransition(transition: Transition<I>): void;
  /** Group rules on a group that was joined or made. Throws `rule_broken`. */
  verifyGroup(view: GroupView<I>): void;
  /** TLS-encoded ExternalSender of the delivery service, pinned at sign-up; the only credential accepted that is no chain. */
  readonly externalSender: Uint8Array;
}

export type Received<I extends LeafIdentity = LeafIdentity> =
  | {
      readonly kind: "application";
      readonly data: Uint8Array;
      /** Authenticated data: the 16-byte message id. */
      readonly aad: Uint8Array;
      readonly sender: Member<I>;
      readonly epoch: number;
    }
  | {
      readonly kind: "commit";
      readonly diff: RosterDiff<I>;
      readonly committer: Actor<I>;
      readonly removedMe: boolean;
      readonly aad: Uint8Array;
      readonly epoch: number;
    }
  | { readonly kind: "proposal"; readonly proposal: "add" | "remove" | "update"; readonly by: Actor<I> };

/** What a commit is to change. Each list may be empty; an empty commit renews our own keys. */
export interface Change {
  /** KeyPackages, as MLSMessages. */
  readonly add?: readonly Uint8Array[];
  /** Leaf indexes. */
  readonly remove?: readonly number[];
  /** New bytes of extension 0xFA01. */
  readonly policy?: Uint8Array;
}

/** Keys of this device that its leaves carry. */
export interface DeviceKeys {
  /** Device, user, enrolment (DER). */
  readonly certificates: readonly Uint8Array[];
  /** Raw Ed25519: 32-byte seed and 32-byte public key. */
  readonly signatureSeed: Uint8Array;
  readonly signatureKey: Uint8Array;
}
