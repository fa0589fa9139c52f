// The MLS groups of one device: loaded from the vault, changed as values, saved in the transaction that changed them.
// Twin of src/curbside/client/groups.py. When a transaction fails, memory may be ahead of the vault; `forget()` then
// drops what is loaded.

import type { VerifiedDevice } from "./chain";
import { CurbsideError } from "./errors";
import { encodeBase64url, encodeId } from "./ids";
import { Device } from "./mls/device";
import { Group } from "./mls/group";
import { sameBytes } from "./mls/saved";
import type { Change, DeviceKeys, GroupRules, Member } from "./mls/types";
import type { Vault } from "./vault/vault";
import type { NewCommit, NewConversation } from "./wire/bodies.generated";
import { decodeGroupPolicy } from "./wire/group_policy";

/** Whose device a leaf is, with what its verified certificates say. */
export type DeviceIdentity = VerifiedDevice;
export type ConversationGroup = Group<DeviceIdentity>;

export interface NewGroup {
  readonly kind: "direct" | "group";
  /** Bytes of extension 0xFA01. */
  readonly policy: Uint8Array;
  readonly title: string;
}

/** All methods that change anything belong in a transaction. */
export class Groups {
  readonly #vault: Vault;
  readonly #rules: GroupRules<DeviceIdentity>;
  readonly #device: Device<DeviceIdentity>;
  readonly #loaded = new Map<string, ConversationGroup>();

  constructor(vault: Vault, keys: DeviceKeys, rules: GroupRules<DeviceIdentity>) {
    this.#vault = vault;
    this.#rules = rules;
    this.#device = new Device(keys, rules);
  }

  /** Throws `not_found`. */
  async get(conversation: string): Promise<ConversationGroup> {
    const known = this.#loaded.get(conversation);
    if (known !== undefined) return known;
    const group = await Group.load(this.#vault.rows.getConversation(conversation).mls, this.#rules);
    // Two readers may load at once; both must get the same value, or the second could encrypt from an old one.
    const now = this.#loaded.get(conversation) ?? group;
    this.#loaded.set(conversation, now);
    return now;
  }

  save(conversation: string, group: ConversationGroup): void {
    this.#loaded.set(conversation, group);
    this.#vault.rows.saveGroup(conversation, group.save());
  }

  forget(): void {
    this.#loaded.clear();
  }

  // --- key packages ---

  /** New key packages, their private halves saved; as MLSMessages. */
  async makeKeyPackages(count: number, nowMs: number, lastResort = false): Promise<Uint8Array[]> {
    const made: Uint8Array[] = [];
    for (let index = 0; index < count; index++) {
      const { reference, secrets, keyPackage } = await this.#device.keyPackage(Math.floor(nowMs / 1000));
      this.#vault.rows.addKeyPackage(reference, secrets, lastResort, nowMs);
      made.push(keyPackage);
    }
    return made;
  }

  // --- create, join ---

  /** A new conversation with only this device in it; the request that tells the server. */
  async create(wanted: NewGroup, nowMs: number): Promise<NewConversation> {
    const raw = crypto.getRandomValues(new Uint8Array(16));
    const group = await this.#device.createGroup(raw, wanted.policy, Math.floor(nowMs / 1000));
    const id = encodeId(raw);
    this.#add(id, group, { kind: wanted.kind, title: wanted.title, cursor: 0, nowMs });
    return { conversation_id: id, group_info: encodeBase64url(await group.groupInfo()) };
  }

  /** Enters a conversation by a Welcome; the key package that it used is forgotten. Throws what `Device.join` throws. */
  async join(conversation: string, welcome: Uint8Array, sequence: number, nowMs: number): Promise<ConversationGroup> {
    const rows = this.#vault.rows;
    const ours = Device.welcomeReferences(welcome).flatMap((reference) => {
      const secrets = rows.findKeyPackage(reference);
      return secrets === undefined ? [] : [{ reference, secrets }];
    });
    const [own] = ours;
    if (own === undefined) throw new CurbsideError("not_found", "the Welcome is for no key package of this device");
    const group = await this.#device.join(welcome, own.secrets);
    if (encodeId(group.groupId) !== conversation)
      throw new CurbsideError("wrong_group", "the Welcome is for another conversation");
    await this.#verifyRejoin(conversation, group);
    const { kind } = decodeGroupPolicy(group.policy ?? new Uint8Array());
    this.#add(conversation, group, { kind, title: rows.findConversation(conversation)?.title ?? "", cursor: sequence, nowMs });
    rows.deleteKeyPackage(own.reference);
    return group;
  }

  /**
   * A conversation that we come back to is the one that we left, later: else another group could take its place under
   * its title and its messages. Throws `rule_broken`.
   */
  async #verifyRejoin(conversation: string, group: ConversationGroup): Promise<void> {
    const row = this.#vault.rows.findConversation(conversation);
    if (row === undefined) return;
    const left = await Group.load(row.mls, this.#rules);
    const [was, is] = [left.policy ?? new Uint8Array(), group.policy ?? new Uint8Array()];
    const [old, now] = [decodeGroupPolicy(was), decodeGroupPolicy(is)];
    const follows = group.epoch > left.epoch && now.kind === old.kind && now.version >= old.version;
    if (!follows || (now.kind === "direct" && !sameBytes(was, is)))
      throw new CurbsideError("rule_broken", "", { check: "client.rejoin" });
  }

  #add(
    id: string,
    group: ConversationGroup,
    of: { kind: string; title: string; cursor: number; nowMs: number },
  ): void {
    this.#loaded.set(id, group);
    this.#vault.rows.addConversation({
      id,
      mls: group.save(),
      kind: of.kind,
      title: of.title,
      cursor: of.cursor,
      created_at: of.nowMs,
      draft: "",
      read_upto: 0,
      alarm: "",
    });
  }

  // --- commits ---

  /** Stages a commit and keeps the request, so that a retry repeats the same bytes. */
  async stage(conversation: string, change: Change): Promise<NewCommit> {
    const messageId = crypto.getRandomValues(new Uint8Array(16));
    const staged = await (await this.get(conversation)).stageCommit(change, messageId);
    const request: NewCommit = {
      message_id: encodeBase64url(messageId),
      epoch: staged.epoch,
      commit: encodeBase64url(staged.commit),
      welcome: staged.welcome === undefined ? null : encodeBase64url(staged.welcome),
    };
    this.save(conversation, staged.group);
    this.#vault.rows.savePendingCommit(conversation, messageId, new TextEncoder().encode(JSON.stringify(request)));
    return request;
  }

  /** The request of the staged commit, if there is one. */
  pending(conversation: string): NewCommit | undefined {
    const found = this.#vault.rows.findPendingCommit(conversation);
    return found && (JSON.parse(new TextDecoder().decode(found.request)) as NewCommit);
  }

  /** Whether an entry is our staged commit: its id and its bytes. */
  isOwnCommit(conversation: string, messageId: Uint8Array, envelope: Uint8Array): boolean {
    const request = this.pending(conversation);
    if (request === undefined) return false;
    return request.message_id === encodeBase64url(messageId) && request.commit === encodeBase64url(envelope);
  }

  /** Our staged commit is in the log: enter its epoch. What changed, for a note. */
  async accept(conversation: string): Promise<{ before: readonly Member<DeviceIdentity>[]; group: ConversationGroup }> {
    const group = await this.get(conversation);
    const next = await group.commitAccepted();
    this.#vault.rows.deletePendingCommit(conversation);
    this.save(conversation, next);
    return { before: group.members, group: next };
  }

  /** Our staged commit lost, or was refused. */
  async giveUp(conversation: string): Promise<void> {
    this.#vault.rows.deletePendingCommit(conversation);
    this.save(conversation, (await this.get(conversation)).commitRejected());
  }

  // --- who is in it ---

  /** One device by user id for everybody in the conversation, in leaf order. */
  async people(conversation: string): Promise<Map<string, DeviceIdentity>> {
    const people = new Map<string, DeviceIdentity>();
    for (const { identity } of (await this.get(conversation)).members)
      if (!people.has(identity.userId)) people.set(identity.userId, identity);
    return people;
  }
}

/** Users that came and went, out of device changes: a second device of somebody who is there already is no news. */
export function changedUsers(
  before: readonly Member<DeviceIdentity>[],
  after: readonly Member<DeviceIdentity>[],
): { added: DeviceIdentity[]; removed: DeviceIdentity[] } {
  const users = (members: readonly Member<DeviceIdentity>[]): Map<string, DeviceIdentity> =>
    new Map(members.map(({ identity }) => [identity.userId, identity]));
  const [old, now] = [users(before), users(after)];
  return {
    added: [...now.values()].filter((identity) => !old.has(identity.userId)),
    removed: [...old.values()].filter((identity) => !now.has(identity.userId)),
  };
}
