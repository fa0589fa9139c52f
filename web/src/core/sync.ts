// Sync: applies the log of each conversation, in order and once, whatever is lost, repeated or out of order. Twin of
// src/curbside/client/sync.py.
//
// Every entry is applied together with the cursor that passes it. An application message that cannot be opened is noted
// and passed; a handshake that is refused stops the conversation with an alarm, because going on would mean to follow a
// group that nobody vouches for.

import { type Effect, changed, sendFrame } from "./effects";
import { CurbsideError } from "./errors";
import { type DeviceIdentity, type Groups, changedUsers } from "./groups";
import { encodeId } from "./ids";
import type { Member, Received } from "./mls/types";
import { sameBytes } from "./mls/saved";
import type { Outbox, Self } from "./outbox";
import { problemJson } from "./problem";
import type { Vault } from "./vault/vault";
import * as content from "./wire/content";
import {
  type Acknowledge,
  type Entry,
  KIND_APPLICATION,
  KIND_COMMIT,
  KIND_PROPOSAL,
  QUEUE_WELCOME,
  type QueueItem,
  type Sync as SyncFrame,
} from "./wire/frames.generated";

/** In larger conversations devices do not report delivery, only reading. */
const REPORTING_PEOPLE = 16;
const TITLE_CHARS = 128;
/** Space, control, invisible and direction-changing characters, as in the names of certificates. */
const HIDDEN = /[ \u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]+/g;
/** What the bytes of a peer can be refused for; everything else is our own trouble and takes the step back. */
const PEERS_FAULT: ReadonlySet<string> = new Set([
  "malformed",
  "rule_broken",
  "bad_signature",
  "wrong_group",
  "stale_epoch",
  "future_epoch",
  "replayed",
  "decryption_failed",
  "untrusted_device",
  "too_large",
  "not_found",
  "pending_proposals",
]);

type Application = Extract<Received<DeviceIdentity>, { kind: "application" }>;

export class Sync {
  readonly #vault: Vault;
  readonly #groups: Groups;
  readonly #outbox: Outbox;
  readonly #me: Self;
  /** Own messages that are in the log beyond the cursor. */
  readonly #ahead = new Map<string, Set<number>>();

  constructor(vault: Vault, groups: Groups, outbox: Outbox, me: Self) {
    this.#vault = vault;
    this.#groups = groups;
    this.#outbox = outbox;
    this.#me = me;
  }

  /** Where this device stands, in one conversation or in all. */
  frame(conversation?: string): SyncFrame {
    const cursors = this.#vault.rows.cursors();
    const chosen = conversation === undefined ? cursors : { [conversation]: cursors[conversation] ?? 0 };
    return { type: "sync", cursors: chosen, queue: this.#vault.rows.queuePosition() };
  }

  /** A new connection, or a step that failed: what was ahead comes again. */
  connected(): void {
    this.#ahead.clear();
  }

  /** What is durably processed. */
  acknowledgement(): Acknowledge {
    return { type: "ack", cursors: this.#vault.rows.cursors(), queue: this.#vault.rows.queuePosition() };
  }

  // --- own sends ---

  /** An own message is in the log at `sequence`; it needs no entry of its own. */
  passed(conversation: string, sequence: number): void {
    const { cursor } = this.#vault.rows.getConversation(conversation);
    if (sequence <= cursor) return;
    const ahead = this.#ahead.get(conversation) ?? new Set<number>();
    this.#ahead.set(conversation, ahead.add(sequence));
    this.#advance(conversation, cursor);
  }

  #advance(conversation: string, from: number): number {
    const ahead = this.#ahead.get(conversation);
    let cursor = from;
    while (ahead?.delete(cursor + 1) === true) cursor++;
    this.#vault.rows.saveCursor(conversation, cursor);
    return cursor;
  }

  // --- entries ---

  /** Applies entries; a gap asks for a Sync, once per conversation. */
  async entries(items: readonly Entry[], nowMs: number): Promise<Effect[]> {
    const effects: Effect[] = [];
    const delivered = new Map<string, Uint8Array[]>();
    const stopped = new Set<string>();
    for (const entry of items) {
      const { conversation } = entry;
      const row = this.#vault.rows.findConversation(conversation);
      if (row === undefined || row.alarm !== "" || stopped.has(conversation)) continue;
      const cursor = this.#advance(conversation, row.cursor);
      if (entry.sequence <= cursor) {
        effects.push(...this.#compare(entry));
        continue;
      }
      if (entry.sequence > cursor + 1) {
        stopped.add(conversation);
        effects.push(sendFrame(this.frame(conversation)));
        continue;
      }
      effects.push(...(await this.#applyOrRefuse(entry, nowMs, delivered)));
      if (this.#vault.rows.findConversation(conversation)?.alarm !== "") continue;
      this.#vault.rows.saveCursor(conversation, entry.sequence);
      this.#advance(conversation, entry.sequence);
    }
    for (const [conversation, ids] of delivered)
      if ((await this.#groups.people(conversation)).size <= REPORTING_PEOPLE)
        this.#outbox.writeReport(conversation, ids.map((id) => [id, content.Status.DELIVERED] as const), nowMs);
    return effects;
  }

  /**
   * The server, restored from a backup, says that its log ended before what this device has: the conversation stops, and
   * says why. Going on would be silent loss: what others write now gets numbers that were passed here already.
   */
  rolledBack(error: CurbsideError): Effect[] {
    const { conversation, last_sequence: last } = error.members;
    const row = typeof conversation === "string" ? this.#vault.rows.findConversation(conversation) : undefined;
    if (row === undefined || row.alarm !== "" || typeof last !== "number" || row.cursor <= last)
      return [{ kind: "notice", error }];
    this.#vault.rows.saveAlarm(row.id, problemJson(error));
    return [{ kind: "notice", conversation: row.id, error }, changed(row.id)];
  }

  /** A number that was passed comes again: harmless, unless the server gave it to an own message first. */
  #compare(entry: Entry): Effect[] {
    const { conversation } = entry;
    const own = this.#vault.rows.findOwnAt(conversation, entry.sequence, this.#me.userId);
    if (own === undefined || own === this.#rowId(entry)) return [];
    const error = ruleBroken("client.log.changed");
    this.#vault.rows.saveAlarm(conversation, problemJson(error));
    return [{ kind: "notice", conversation, error }, changed(conversation)];
  }

  /**
   * Under which id the vault keeps an entry's message. Message ids are chosen by senders: one that is taken by another
   * conversation must not hide this message. No sender can choose an id with a dot in it.
   */
  #rowId(entry: Entry): string {
    const id = encodeId(entry.messageId);
    const taken = this.#vault.rows.findMessage(id);
    return taken === undefined || taken.conversation === entry.conversation ? id : `${entry.conversation}.${id}`;
  }

  async #applyOrRefuse(entry: Entry, nowMs: number, delivered: Map<string, Uint8Array[]>): Promise<Effect[]> {
    try {
      return await this.#apply(entry, nowMs, delivered);
    } catch (error) {
      if (!(error instanceof CurbsideError) || !PEERS_FAULT.has(error.code)) throw error;
      return this.#refuse(entry, error);
    }
  }

  async #apply(entry: Entry, nowMs: number, delivered: Map<string, Uint8Array[]>): Promise<Effect[]> {
    const { conversation } = entry;
    const id = encodeId(entry.messageId);
    if (entry.kind === KIND_APPLICATION && this.#vault.rows.findOutbox(id)?.conversation === conversation) {
      this.#outbox.settle(id, entry.sequence, entry.receivedAt);
      return [changed(conversation, id)];
    }
    if (entry.kind === KIND_COMMIT) return this.#commit(entry);
    if (entry.kind === KIND_APPLICATION && this.#vault.rows.findMessage(this.#rowId(entry)) !== undefined) return [];
    const { group, received } = await (await this.#groups.get(conversation)).receive(entry.envelope);
    if (entry.kind === KIND_PROPOSAL) {
      if (received.kind !== "proposal") throw ruleBroken("client.entry.kind");
      this.#groups.save(conversation, group);
      return [changed(conversation)];
    }
    if (received.kind !== "application") throw ruleBroken("client.entry.kind");
    // The key is used up even if what was inside is refused below.
    this.#groups.save(conversation, group);
    if (!sameBytes(received.aad, entry.messageId)) throw ruleBroken("client.entry.message_id");
    return this.#message(entry, received, nowMs, delivered);
  }

  async #commit(entry: Entry): Promise<Effect[]> {
    const { conversation } = entry;
    if (this.#groups.isOwnCommit(conversation, entry.messageId, entry.envelope)) {
      const { before, group } = await this.#groups.accept(conversation);
      this.#note(entry, this.#me.userId, changedUsers(before, group.members));
      return [{ kind: "commit-settled", conversation }, changed(conversation)];
    }
    const old = await this.#groups.get(conversation);
    const { group, received } = await old.receive(entry.envelope);
    if (received.kind !== "commit") throw ruleBroken("client.entry.kind");
    const effects: Effect[] = [];
    if (this.#groups.pending(conversation) !== undefined) {
      this.#vault.rows.deletePendingCommit(conversation);
      const error = new CurbsideError("epoch_conflict", "", { current_epoch: group.epoch });
      effects.push({ kind: "commit-settled", conversation, error });
    }
    this.#groups.save(conversation, group);
    if (received.removedMe) this.#vault.rows.saveAlarm(conversation, problemJson(removedMe()));
    this.#savePeople(group.members);
    const { committer } = received;
    const by = committer.kind === "delivery-service" ? "" : committer.member.identity.userId;
    this.#note(entry, by, changedUsers(old.members, group.members));
    return [...effects, changed(conversation)];
  }

  /** A line about who came and went, written by this device for itself. */
  #note(entry: Entry, by: string, users: { added: DeviceIdentity[]; removed: DeviceIdentity[] }): void {
    const names = (people: readonly DeviceIdentity[]): string => people.map((person) => person.name).join(", ");
    const lines = [
      ...(users.added.length > 0 ? [`added ${names(users.added)}`] : []),
      ...(users.removed.length > 0 ? [`removed ${names(users.removed)}`] : []),
    ];
    if (lines.length === 0 || this.#vault.rows.getConversation(entry.conversation).kind === "direct") return;
    const id = this.#rowId(entry);
    if (this.#vault.rows.findMessage(id) !== undefined) return;
    this.#vault.rows.addMessage({
      id,
      mimi_id: new Uint8Array(),
      conversation: entry.conversation,
      sequence: entry.sequence,
      sender: by,
      sender_device: "",
      at: entry.receivedAt,
      delivery: "",
      content: content.encode(content.text(lines.join(" and "))),
      problem: "",
    });
  }

  #savePeople(members: readonly Member<DeviceIdentity>[]): void {
    for (const { identity } of members)
      this.#vault.rows.savePerson({
        user_id: identity.userId,
        name: identity.name,
        role: identity.role,
        certificate: identity.userCertificate,
      });
  }

  async #message(
    entry: Entry,
    received: Application,
    nowMs: number,
    delivered: Map<string, Uint8Array[]>,
  ): Promise<Effect[]> {
    const { conversation } = entry;
    const { identity } = received.sender;
    const message = content.decode(received.data);
    const uris = [content.userUri(identity.userId), content.conversationUri(conversation)] as const;
    const mimiId = await content.messageId(received.data, ...uris);
    const kind = content.kind(message);
    if (kind === "status") return this.#report(conversation, identity.userId, message, nowMs);
    if (kind === "title" && !this.takeTitle(conversation, message)) return [];
    this.#savePeople([received.sender]);
    const id = this.#rowId(entry);
    this.#vault.rows.addMessage({
      id,
      mimi_id: mimiId,
      conversation,
      sequence: entry.sequence,
      sender: identity.userId,
      sender_device: identity.deviceId,
      at: entry.receivedAt,
      delivery: "",
      content: received.data,
      problem: "",
    });
    if (identity.userId !== this.#me.userId)
      delivered.set(conversation, [...(delivered.get(conversation) ?? []), mimiId]);
    return [{ kind: "arrived", conversation, message: id }];
  }

  /**
   * Takes over what a conversation is called; whether it is news (a title is told again for those who came later). A
   * direct conversation has none: it is called by the other person's name, or a title could pass it off as somebody else's.
   */
  takeTitle(conversation: string, message: content.Message): boolean {
    const title = titleOf(message);
    const row = this.#vault.rows.getConversation(conversation);
    if (row.kind === "direct" || title === row.title) return false;
    this.#vault.rows.saveTitle(conversation, title);
    return true;
  }

  async #report(conversation: string, user: string, message: content.Message, nowMs: number): Promise<Effect[]> {
    const effects: Effect[] = [];
    for (const [mimiId, status] of content.report(message)) {
      const row = this.#vault.rows.findMessageByMimi(conversation, mimiId);
      const name = statusName(status);
      if (row === undefined || name === undefined || row.sender !== this.#me.userId || user === this.#me.userId)
        continue;
      this.#vault.rows.addReceipt(mimiId, user, name, nowMs);
      const others = [...(await this.#groups.people(conversation)).keys()].filter((id) => id !== this.#me.userId);
      const receipts = this.#vault.rows.receipts(mimiId);
      if (row.sequence === 0 || !others.every((id) => receipts.has(id))) continue;
      const everyone = others.every((id) => receipts.get(id) === "read");
      this.#vault.rows.saveDelivery(row.id, everyone ? "read" : "delivered");
      effects.push(changed(conversation, row.id));
    }
    return effects;
  }

  #refuse(entry: Entry, error: CurbsideError): Effect[] {
    const { conversation } = entry;
    if (entry.kind !== KIND_APPLICATION) {
      this.#vault.rows.saveAlarm(conversation, problemJson(error));
      return [{ kind: "notice", conversation, error }, changed(conversation)];
    }
    const id = this.#rowId(entry);
    if (this.#vault.rows.findMessage(id) === undefined)
      this.#vault.rows.addMessage({
        id,
        mimi_id: new Uint8Array(),
        conversation,
        sequence: entry.sequence,
        sender: "",
        sender_device: "",
        at: entry.receivedAt,
        delivery: "",
        content: new Uint8Array(),
        problem: problemJson(error),
      });
    return [
      { kind: "notice", conversation, error },
      { kind: "arrived", conversation, message: id },
    ];
  }

  // --- queue ---

  /** Welcomes: join, or refuse and say why; either way the queue goes on. */
  async queueItems(items: readonly QueueItem[], nowMs: number): Promise<Effect[]> {
    const effects: Effect[] = [];
    for (const item of items) {
      if (item.position <= this.#vault.rows.queuePosition()) continue;
      if (item.kind === QUEUE_WELCOME && this.#mayJoin(item.conversation)) effects.push(...(await this.#join(item, nowMs)));
      this.#vault.rows.saveQueuePosition(item.position);
    }
    return effects;
  }

  /** A conversation that we are in is not entered a second time; one that we were removed from may be. */
  #mayJoin(conversation: string): boolean {
    const row = this.#vault.rows.findConversation(conversation);
    return row === undefined || row.alarm === problemJson(removedMe());
  }

  async #join(item: QueueItem, nowMs: number): Promise<Effect[]> {
    const { conversation } = item;
    try {
      const group = await this.#groups.join(conversation, item.payload, item.sequence, nowMs);
      this.#savePeople(group.members);
      return [{ kind: "joined", conversation }, sendFrame(this.frame(conversation))];
    } catch (error) {
      if (!(error instanceof CurbsideError) || !PEERS_FAULT.has(error.code)) throw error;
      return [{ kind: "notice", error }];
    }
  }
}

function statusName(status: number): "delivered" | "read" | undefined {
  if (status === content.Status.DELIVERED) return "delivered";
  return status === content.Status.READ ? "read" : undefined;
}

/** The title that a title message sets, in one line without signs that cannot be seen; "" when it has none. */
function titleOf(message: content.Message): string {
  const title = content.findExtension(message, "title")?.title ?? "";
  return [...title].slice(0, TITLE_CHARS).join("").replace(HIDDEN, " ").trim();
}

function ruleBroken(check: string): CurbsideError {
  return new CurbsideError("rule_broken", "", { check });
}

function removedMe(): CurbsideError {
  return new CurbsideError("gone", "This device is no longer in the conversation.");
}
