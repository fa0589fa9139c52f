import {
  type ClientState,
  type GroupInfo,
  type PrivateMessage,
  type Proposal,
  type PublicMessage,
  createApplicationMessage,
  createCommit,
  decodeGroupState,
  emptyPskIndex,
  encodeGroupState,
  mlsExporter,
  processPrivateMessage,
  processPublicMessage,
} from "ts-mls";
import { createGroupInfoWithRatchetTree } from "ts-mls/createCommit.js";
import { decryptSenderData } from "ts-mls/privateMessage.js";
import { CurbsideError, malformed } from "../errors";
import { type OperationConfig, configFor } from "./config";
import { handshakeRefusal, messageRefusal } from "./refusals";
import { findLeaf, identify, verifyRoster } from "./roster";
import { joinFields, sameBytes, splitFields } from "./saved";
import { decodeAny, encodeMessage, loadSuite, parseMessage } from "./suite";
import { admitProposal, findExtension, viewOf, verifyTransition } from "./transition";
import type { Actor, Change, GroupRules, GroupView, LeafIdentity, Member, Received, RosterDiff } from "./types";

const SAVED_VERSION = 1;

/** An encrypted message and the group after it. Save `group` before `envelope` leaves the device. */
export interface Encrypted<I extends LeafIdentity> {
  readonly group: Group<I>;
  /** MLSMessage (PrivateMessage). */
  readonly envelope: Uint8Array;
}

/** A commit that waits for the delivery service. Save `group` before `commit` leaves the device. */
export interface Staged<I extends LeafIdentity> {
  readonly group: Group<I>;
  /** The epoch that the commit ends. */
  readonly epoch: number;
  /** MLSMessages. */
  readonly commit: Uint8Array;
  readonly welcome: Uint8Array | undefined;
  readonly diff: RosterDiff<I>;
}

/**
 * One group as a value: every method leaves this object as it is and gives the group after the step, so a refused input
 * changes nothing. Encrypting twice from one value would use a key twice, so the second time is refused: there is one
 * line of descent. Callers save the new value before anything leaves the device.
 */
export class Group<I extends LeafIdentity> {
  readonly #state: ClientState;
  readonly #rules: GroupRules<I>;
  readonly #members: readonly Member<I>[];
  readonly #staged: { readonly state: ClientState; readonly commit: Uint8Array } | undefined;
  #spent = false;

  private constructor(
    state: ClientState,
    rules: GroupRules<I>,
    members: readonly Member<I>[],
    staged?: { readonly state: ClientState; readonly commit: Uint8Array },
  ) {
    this.#state = state;
    this.#rules = rules;
    this.#members = members;
    this.#staged = staged;
  }

  /** A group fresh from ts-mls, when every leaf and the group rules hold. */
  static async admit<I extends LeafIdentity>(state: ClientState, rules: GroupRules<I>): Promise<Group<I>> {
    const members = await verifyRoster(state.ratchetTree, rules);
    rules.verifyGroup(viewOf(state, members));
    return new Group(state, rules, members);
  }

  /** Throws `malformed` for what `save` did not write. */
  static async load<I extends LeafIdentity>(saved: Uint8Array, rules: GroupRules<I>): Promise<Group<I>> {
    const [version, current, next, commit] = splitFields(saved, 4) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
    if (version[0] !== SAVED_VERSION) throw malformed("a saved group of another version");
    const state = openState(current, rules);
    const members = await verifyRoster(state.ratchetTree, rules, state.ratchetTree);
    const staged = next.length === 0 ? undefined : { state: openState(next, rules), commit };
    return new Group(state, rules, members, staged);
  }

  /** Everything, secrets included. */
  save(): Uint8Array {
    const staged = this.#staged;
    const none = new Uint8Array();
    return joinFields([
      Uint8Array.of(SAVED_VERSION),
      encodeGroupState(this.#state),
      staged === undefined ? none : encodeGroupState(staged.state),
      staged?.commit ?? none,
    ]);
  }

  get groupId(): Uint8Array {
    return this.#state.groupContext.groupId;
  }

  get epoch(): number {
    return Number(this.#state.groupContext.epoch);
  }

  get members(): readonly Member<I>[] {
    return this.#members;
  }

  get ownLeaf(): number {
    return this.#state.privatePath.leafIndex;
  }

  /** Bytes of extension 0xFA01. */
  get policy(): Uint8Array | undefined {
    return viewOf(this.#state, this.#members).policy;
  }

  get view(): GroupView<I> {
    return viewOf(this.#state, this.#members);
  }

  /** Whether a proposal waits: nothing may be encrypted before it is committed (RFC 9420 section 12.4). */
  get hasPendingProposals(): boolean {
    return Object.keys(this.#state.unappliedProposals).length > 0;
  }

  /** Whether a waiting proposal removes this device: somebody else has to commit it. */
  get isBeingRemoved(): boolean {
    return Object.values(this.#state.unappliedProposals).some(
      ({ proposal }) => proposal.proposalType === "remove" && proposal.remove.removed === this.ownLeaf,
    );
  }

  /** The commit that waits for the delivery service. */
  get stagedCommit(): Uint8Array | undefined {
    return this.#staged?.commit;
  }

  get isActive(): boolean {
    return this.#state.groupActiveState.kind === "active";
  }

  /** GroupInfo with the ratchet tree, for POST /v1/conversations. */
  async groupInfo(): Promise<Uint8Array> {
    const state = this.#state;
    const groupInfo: GroupInfo = await createGroupInfoWithRatchetTree(
      state.groupContext,
      state.confirmationTag,
      state,
      state.ratchetTree,
      [],
      await loadSuite(),
    );
    return encodeMessage({ version: "mls10", wireformat: "mls_group_info", groupInfo });
  }

  /** Throws `pending_proposals` while one waits. `aad` is seen by the delivery service. */
  async encrypt(data: Uint8Array, aad: Uint8Array): Promise<Encrypted<I>> {
    if (this.#spent) throw new CurbsideError("internal", "a group value was used to encrypt twice");
    if (this.hasPendingProposals) throw new CurbsideError("pending_proposals");
    if (!this.isActive) throw new CurbsideError("not_found", "this device is no longer in the conversation");
    this.#spent = true;
    const { client } = configFor(this.#rules, data.length);
    const made = await createApplicationMessage({ ...this.#state, clientConfig: client }, data, await loadSuite(), aad);
    const envelope = encodeMessage({
      version: "mls10",
      wireformat: "mls_private_message",
      privateMessage: made.privateMessage,
    });
    return { group: new Group(made.newState, this.#rules, this.#members, this.#staged), envelope };
  }

  /** A commit of all pending proposals and `change`, checked by the same rules as one received. Nothing is applied yet. */
  async stageCommit(change: Change, aad: Uint8Array): Promise<Staged<I>> {
    const { client, refused } = configFor(this.#rules);
    const state = { ...this.#state, clientConfig: client };
    try {
      const made = await createCommit(
        { state, pskIndex: emptyPskIndex, cipherSuite: await loadSuite() },
        {
          wireAsPublicMessage: true,
          extraProposals: this.#proposalsOf(change),
          ratchetTreeExtension: true,
          authenticatedData: aad,
        },
      );
      const commit = encodeMessage(made.commit);
      const proposals = commitProposals(parseMessage(commit, "mls_public_message").publicMessage);
      const committer: Actor<I> = { kind: "member", member: this.#memberAt(this.ownLeaf) };
      const { diff } = await verifyTransition(state, made.newState, { committer, proposals }, this.#members, this.#rules);
      const welcome =
        made.welcome && encodeMessage({ version: "mls10", wireformat: "mls_welcome", welcome: made.welcome });
      const group = new Group(this.#state, this.#rules, this.#members, { state: made.newState, commit });
      return { group, epoch: this.epoch, commit, welcome, diff };
    } catch (error) {
      throw refused.error ?? handshakeRefusal(error, "mls.commit.own");
    }
  }

  /** The delivery service took our commit. */
  async commitAccepted(): Promise<Group<I>> {
    const staged = this.#staged;
    if (staged === undefined) throw new CurbsideError("internal", "no commit is staged");
    const { ratchetTree } = staged.state;
    return new Group(staged.state, this.#rules, await verifyRoster(ratchetTree, this.#rules, ratchetTree));
  }

  /** Another commit won, or ours was refused. */
  commitRejected(): Group<I> {
    return new Group(this.#state, this.#rules, this.#members);
  }

  /**
   * A message out of the log. Throws `wrong_group`, `stale_epoch`, `future_epoch`, `replayed`, `bad_signature`,
   * `decryption_failed`, `untrusted_device`, `rule_broken` or `malformed`; the group is then as it was.
   */
  async receive(bytes: Uint8Array): Promise<{ group: Group<I>; received: Received<I> }> {
    const message = decodeAny(bytes);
    if (message.wireformat === "mls_private_message") return this.#receivePrivate(message.privateMessage);
    if (message.wireformat === "mls_public_message") return this.#receivePublic(message.publicMessage);
    throw malformed("not a message of a group");
  }

  async export(label: string, context: Uint8Array, length: number): Promise<Uint8Array> {
    return mlsExporter(this.#state.keySchedule.exporterSecret, label, context, length, await loadSuite());
  }

  /** The same bytes for all members of an epoch, and for nobody else (RFC 9420 section 8.7). */
  epochAuthenticator(): Uint8Array {
    return this.#state.keySchedule.epochAuthenticator.slice();
  }

  async #receivePrivate(message: PrivateMessage): Promise<{ group: Group<I>; received: Received<I> }> {
    this.#verifyPlace(message.groupId);
    if (message.contentType !== "application")
      throw new CurbsideError("rule_broken", "", { check: "mls.handshake.public" });
    const suite = await loadSuite();
    const current = this.#state.groupContext.epoch;
    if (message.epoch > current) throw new CurbsideError("future_epoch", "", { current_epoch: this.epoch });
    const past = this.#state.historicalReceiverData.get(message.epoch);
    if (message.epoch < current && past === undefined)
      throw new CurbsideError("stale_epoch", "", { current_epoch: this.epoch });
    const { senderDataSecret } = past ?? this.#state.keySchedule;
    const tree = (past ?? this.#state).ratchetTree;
    try {
      const sender = await decryptSenderData(message, senderDataSecret, suite);
      const leaf = sender === undefined ? undefined : findLeaf(tree, sender.leafIndex);
      if (sender === undefined || leaf === undefined) throw new CurbsideError("decryption_failed");
      const state = { ...this.#state, clientConfig: configFor(this.#rules).client };
      const opened = await processPrivateMessage(state, message, emptyPskIndex, suite);
      if (opened.kind !== "applicationMessage") throw new CurbsideError("decryption_failed");
      return {
        group: new Group(opened.newState, this.#rules, this.#members, this.#staged),
        received: {
          kind: "application",
          data: opened.message,
          aad: message.authenticatedData,
          sender: { leaf: sender.leafIndex, identity: await identify(leaf, this.#rules) },
          epoch: Number(message.epoch),
        },
      };
    } catch (error) {
      throw messageRefusal(error);
    }
  }

  async #receivePublic(message: PublicMessage): Promise<{ group: Group<I>; received: Received<I> }> {
    const { content } = message;
    this.#verifyPlace(content.groupId);
    const epoch = Number(content.epoch);
    if (epoch < this.epoch) throw new CurbsideError("stale_epoch", "", { current_epoch: this.epoch });
    if (epoch > this.epoch) throw new CurbsideError("future_epoch", "", { current_epoch: this.epoch });
    const config = configFor(this.#rules);
    try {
      if (content.contentType === "proposal") return await this.#receiveProposal(message, content.proposal, config);
      if (content.contentType === "commit") return await this.#receiveCommit(message, config);
    } catch (error) {
      throw config.refused.error ?? handshakeRefusal(error, `mls.${content.contentType}`);
    }
    throw new CurbsideError("rule_broken", "", { check: "mls.application.private" });
  }

  async #receiveProposal(
    message: PublicMessage,
    proposal: Proposal,
    config: OperationConfig,
  ): Promise<{ group: Group<I>; received: Received<I> }> {
    const by = this.#senderOf(message);
    const kind = admitProposal(proposal, by);
    const state = { ...this.#state, clientConfig: config.client };
    const done = await processPublicMessage(state, message, emptyPskIndex, await loadSuite());
    return {
      group: new Group(done.newState, this.#rules, this.#members, this.#staged),
      received: { kind: "proposal", proposal: kind, by },
    };
  }

  async #receiveCommit(
    message: PublicMessage,
    config: OperationConfig,
  ): Promise<{ group: Group<I>; received: Received<I> }> {
    const state = { ...this.#state, clientConfig: config.client };
    const done = await processPublicMessage(state, message, emptyPskIndex, await loadSuite());
    const committer =
      message.content.sender.senderType === "new_member_commit" ? "joiner" : this.#senderOf(message);
    const proposals = commitProposals(message);
    const verified = await verifyTransition(state, done.newState, { committer, proposals }, this.#members, this.#rules);
    const removedMe = done.newState.groupActiveState.kind === "removedFromGroup";
    return {
      group: new Group(done.newState, this.#rules, verified.members),
      received: {
        kind: "commit",
        diff: verified.diff,
        committer: verified.committer,
        removedMe,
        aad: message.content.authenticatedData,
        epoch: this.epoch + 1,
      },
    };
  }

  #verifyPlace(groupId: Uint8Array): void {
    if (!sameBytes(groupId, this.groupId)) throw new CurbsideError("wrong_group");
    if (!this.isActive) throw new CurbsideError("not_found", "this device is no longer in the conversation");
  }

  #senderOf(message: PublicMessage): Actor<I> {
    const { sender } = message.content;
    if (sender.senderType === "member") return { kind: "member", member: this.#memberAt(sender.leafIndex) };
    if (sender.senderType === "external" && sender.senderIndex === 0) return { kind: "delivery-service" };
    throw new CurbsideError("rule_broken", "", { check: "group.external.add" });
  }

  #memberAt(leaf: number): Member<I> {
    const found = this.#members.find((member) => member.leaf === leaf);
    if (found === undefined) throw new CurbsideError("rule_broken", "", { check: "mls.sender.leaf" });
    return found;
  }

  #proposalsOf(change: Change): Proposal[] {
    const waiting = new Set(
      Object.values(this.#state.unappliedProposals).flatMap(({ proposal }) =>
        proposal.proposalType === "remove" ? [proposal.remove.removed] : [],
      ),
    );
    const extensions = this.#state.groupContext.extensions;
    return [
      ...(change.remove ?? [])
        .filter((leaf) => !waiting.has(leaf))
        .map((removed): Proposal => ({ proposalType: "remove", remove: { removed } })),
      ...(change.add ?? []).map(
        (bytes): Proposal => ({
          proposalType: "add",
          add: { keyPackage: parseMessage(bytes, "mls_key_package").keyPackage },
        }),
      ),
      ...(change.policy === undefined ? [] : [policyProposal(extensions, change.policy)]),
    ];
  }
}

function policyProposal(extensions: ClientState["groupContext"]["extensions"], policy: Uint8Array): Proposal {
  const present = findExtension(extensions, "policy");
  const changed = extensions.map((extension) =>
    extension === present ? { ...extension, extensionData: policy } : extension,
  );
  return { proposalType: "group_context_extensions", groupContextExtensions: { extensions: changed } };
}

function commitProposals(message: PublicMessage): readonly (Proposal | Uint8Array)[] {
  if (message.content.contentType !== "commit") throw malformed("not a commit");
  return message.content.commit.proposals.map((entry) =>
    entry.proposalOrRefType === "proposal" ? entry.proposal : entry.reference,
  );
}

function openState<I extends LeafIdentity>(bytes: Uint8Array, rules: GroupRules<I>): ClientState {
  const decoded = decodeGroupState(bytes, 0);
  if (decoded === undefined || decoded[1] !== bytes.length) throw malformed("a saved group state");
  return { ...decoded[0], clientConfig: configFor(rules).client };
}
