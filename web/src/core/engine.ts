// The engine of a device: frames and wishes in, effects out. No network, no clock, no tasks. Twin of
// src/curbside/client/engine.py.
//
// Every method is one vault transaction; the effects it gives may be carried out only because it has ended
// ([Note: save, then send] in outbox.ts). When it fails, nothing has changed and loaded groups are read again.

import { type Effect, changed, sendFrame } from "./effects";
import { CurbsideError, malformed } from "./errors";
import type { Groups, NewGroup } from "./groups";
import type { Change } from "./mls/types";
import { HEALED_BY_SYNC, Outbox, type Self } from "./outbox";
import { errorOfFrame } from "./problem";
import { Sync } from "./sync";
import type { Vault } from "./vault/vault";
import type { NewConversation } from "./wire/bodies.generated";
import * as content from "./wire/content";
import type { Refused, ServerFrame, Stored, Sync as SyncFrame } from "./wire/frames.generated";

const COMMIT_RETRY_SECONDS = 2;
const HEALINGS = 5;
const DAY_MS = 86_400_000;
const LAST_RESORT_RENEWED_MS = 30 * DAY_MS;
/** Beyond their life (mls/config.ts) and the time that a Welcome may be on its way. */
const KEY_PACKAGES_FORGOTTEN_MS = 120 * DAY_MS;
const REPORTED_AT_ONCE = 500;
/** Entries applied in one transaction: few enough that a text being sent does not wait for a long catch-up. */
const ENTRIES_PER_STEP = 32;

/** Keeps one device's conversations in step with the server's logs. */
export class Engine {
  readonly vault: Vault;
  readonly groups: Groups;
  readonly me: Self;
  readonly #outbox: Outbox;
  readonly #sync: Sync;
  readonly #healed = new Map<string, { id: string; times: number }>();
  #isCaughtUp = false;

  constructor(vault: Vault, groups: Groups, me: Self) {
    this.vault = vault;
    this.groups = groups;
    this.me = me;
    this.#outbox = new Outbox(vault, groups, me);
    this.#sync = new Sync(vault, groups, this.#outbox, me);
  }

  async #step<T>(work: () => T | Promise<T>): Promise<T> {
    return this.vault.transaction(async () => {
      try {
        return await work();
      } catch (error) {
        // What was made in memory is gone with the step: groups, and frames that will now not be sent.
        this.groups.forget();
        this.#outbox.connected();
        this.#sync.connected();
        throw error;
      }
    });
  }

  // --- the connection ---

  /** The stream is ready: say where this device stands. */
  connected(): Effect[] {
    this.#isCaughtUp = false;
    this.#outbox.connected();
    this.#sync.connected();
    return [sendFrame(this.#sync.frame())];
  }

  /** The stream is gone; what is written waits. */
  disconnected(): void {
    this.#isCaughtUp = false;
  }

  /** The frame that asks for a conversation's entries. */
  syncFrame(conversation: string): SyncFrame {
    return this.#sync.frame(conversation);
  }

  /** Applies one frame of the server. Throws `malformed`, `storage_full`, `integrity`; nothing has changed then. */
  async received(frame: ServerFrame, nowMs: number): Promise<Effect[]> {
    if (frame.type !== "entries") return this.#step(() => this.#apply(frame, nowMs));
    const effects: Effect[] = [];
    for (let start = 0; start < frame.items.length; start += ENTRIES_PER_STEP) {
      const items = frame.items.slice(start, start + ENTRIES_PER_STEP);
      effects.push(...(await this.#step(() => this.#apply({ type: "entries", items }, nowMs))));
    }
    return effects;
  }

  async #apply(frame: ServerFrame, nowMs: number): Promise<Effect[]> {
    switch (frame.type) {
      case "entries": {
        const effects = await this.#sync.entries(frame.items, nowMs);
        const touched = new Set(frame.items.map((entry) => entry.conversation));
        return [...effects, ...(await this.#release(touched)), ...this.#acknowledge()];
      }
      case "queue":
        return [...(await this.#sync.queueItems(frame.items, nowMs)), ...this.#acknowledge()];
      case "stored":
        return [...(await this.#stored(frame)), ...this.#acknowledge()];
      case "refused":
        return this.#refused(frame);
      case "signals": // who types and who is there: not shown
        return [];
      case "caught_up":
        this.#isCaughtUp = true;
        return [
          { kind: "caught-up" },
          ...(await this.#release(this.vault.rows.conversations().map((row) => row.id))),
          ...this.#acknowledge(),
        ];
      default:
        throw malformed("the server sent a frame that has no place here");
    }
  }

  #acknowledge(): Effect[] {
    return this.#isCaughtUp ? [sendFrame(this.#sync.acknowledgement())] : [];
  }

  async #stored(frame: Stored): Promise<Effect[]> {
    const touched = new Set<string>();
    const effects = frame.items.flatMap((item) => {
      const found = this.#outbox.stored(item);
      if (found === undefined) return [];
      this.#sync.passed(found.conversation, item.sequence);
      touched.add(found.conversation);
      return [changed(found.conversation, found.id)];
    });
    return [...effects, ...(await this.#release(touched))];
  }

  #refused(frame: Refused): Effect[] {
    const error = errorOfFrame(frame.code, frame.detail, frame.members);
    if (frame.request !== 0) return this.#outbox.refused(frame, error);
    return error.code === "log_rolled_back" ? this.#sync.rolledBack(error) : [{ kind: "notice", error }];
  }

  async #release(conversations: Iterable<string>): Promise<Effect[]> {
    if (!this.#isCaughtUp) return [];
    const effects: Effect[] = [];
    for (const conversation of conversations) effects.push(...(await this.#releaseOne(conversation)));
    return effects;
  }

  /** A group that cannot be read or committed to stops that conversation, not the others. */
  async #releaseOne(conversation: string): Promise<Effect[]> {
    try {
      return await this.#outbox.release(conversation);
    } catch (error) {
      if (!(error instanceof CurbsideError) || !["untrusted_device", "rule_broken"].includes(error.code)) throw error;
      return [{ kind: "notice", conversation, error }];
    }
  }

  /** Sends what waits in a conversation, when the time for another try has come. */
  release(conversation: string): Promise<Effect[]> {
    return this.#step(() => this.#release([conversation]));
  }

  /** More key packages, their private halves saved before they are handed out. */
  makeKeyPackages(count: number, nowMs: number): Promise<Uint8Array[]> {
    return this.#step(() => this.groups.makeKeyPackages(count, nowMs));
  }

  /** A fresh key package of last resort when the present one gets old; those too old for anybody to use are forgotten. */
  renewLastResort(nowMs: number): Promise<Uint8Array | undefined> {
    return this.#step(async () => {
      this.vault.rows.deleteKeyPackagesBefore(nowMs - KEY_PACKAGES_FORGOTTEN_MS);
      if (this.vault.rows.newestLastResort() > nowMs - LAST_RESORT_RENEWED_MS) return undefined;
      return (await this.groups.makeKeyPackages(1, nowMs, true))[0];
    });
  }

  // --- wishes ---

  /** Sends a message: its id, and what to do now. It goes out later if it cannot go now. Throws `not_found`, `too_large`. */
  write(conversation: string, message: content.Message, nowMs: number): Promise<{ id: string; effects: Effect[] }> {
    return this.#step(async () => {
      const id = await this.#outbox.write(conversation, message, nowMs);
      if (content.kind(message) === "title") this.#sync.takeTitle(conversation, message);
      return { id, effects: [changed(conversation, id), ...(await this.#release([conversation]))] };
    });
  }

  /** Keeps a message whose attachment must be uploaded before it can go; its id. */
  writeWithUpload(
    conversation: string,
    message: content.Message,
    ciphertext: Uint8Array,
    nowMs: number,
  ): Promise<string> {
    return this.#step(async () => {
      const id = await this.#outbox.write(conversation, message, nowMs);
      this.vault.rows.addUpload(id, conversation, ciphertext);
      return id;
    });
  }

  /** The server gave the attachment a place; the message now says where. */
  uploadBegan(conversation: string, id: string, message: content.Message, blobId: string): Promise<void> {
    return this.#step(async () => {
      this.vault.rows.saveUpload(id, blobId, 0);
      await this.#outbox.rewrite(id, conversation, message);
    });
  }

  /** The server holds the first `offset` bytes of the attachment. */
  uploadMoved(id: string, blobId: string, offset: number): Promise<void> {
    return this.#step(() => this.vault.rows.saveUpload(id, blobId, offset));
  }

  /** The attachment is up; its message may go. The ciphertext stays, so that the sender need not fetch it. */
  uploadDone(id: string, nowMs: number): Promise<Effect[]> {
    return this.#step(async () => {
      const upload = this.vault.rows.findUpload(id);
      if (upload === undefined) return [];
      this.vault.rows.saveAttachment(upload.blob_id, upload.ciphertext, nowMs);
      this.vault.rows.deleteUpload(id);
      return [changed(upload.conversation, id), ...(await this.#release([upload.conversation]))];
    });
  }

  /** Gives up on a message until the person tries again; its attachment stays ready to be uploaded. */
  fail(conversation: string, id: string, error: CurbsideError): Promise<Effect[]> {
    return this.#step(() => {
      this.#outbox.fail(id, error);
      return [changed(conversation, id)];
    });
  }

  /** Tries a failed message again. */
  retry(id: string): Promise<Effect[]> {
    return this.#step(async () => {
      this.#outbox.retry(id);
      const row = this.vault.rows.findMessage(id);
      return row === undefined ? [] : [changed(row.conversation, id), ...(await this.#release([row.conversation]))];
    });
  }

  /** Deletes an own message that was not sent; its conversation. Throws `not_found` when there is no such message. */
  discard(id: string): Promise<string> {
    return this.#step(() => {
      const row = this.vault.rows.findMessage(id);
      if (row === undefined || row.sequence !== 0) throw new CurbsideError("not_found");
      this.vault.rows.deleteUpload(id);
      this.vault.rows.deleteOutbox(id);
      this.vault.rows.deleteMessage(id);
      return row.conversation;
    });
  }

  /** The person has seen everything that is there; others are told. */
  markRead(conversation: string, nowMs: number): Promise<Effect[]> {
    return this.#step(async () => {
      const unread = this.vault.rows.unread(conversation, this.me.userId);
      const last = unread.at(-1);
      if (last === undefined) return [];
      this.vault.rows.saveReadUpto(conversation, last.sequence);
      const statuses = unread.map((row) => [row.mimi_id, content.Status.READ] as const);
      this.#outbox.writeReport(conversation, statuses.slice(-REPORTED_AT_ONCE), nowMs);
      return [changed(conversation), ...(await this.#release([conversation]))];
    });
  }

  /** Tells those who came later what the conversation is called; a title is content, so no server can. */
  repeatTitle(conversation: string, nowMs: number): Promise<Effect[]> {
    return this.#step(async () => {
      const { title } = this.vault.rows.getConversation(conversation);
      if (title === "") return [];
      this.#outbox.writeQuietly(conversation, content.conversationTitle(title), nowMs);
      return this.#release([conversation]);
    });
  }

  saveDraft(conversation: string, draft: string): Promise<void> {
    return this.#step(() => this.vault.rows.saveDraft(conversation, draft));
  }

  /** A new conversation with only this device in it; the request that tells the server. */
  create(wanted: NewGroup, nowMs: number): Promise<NewConversation> {
    return this.#step(() => this.groups.create(wanted, nowMs));
  }

  /** Takes back a conversation that never reached the server. */
  discardConversation(conversation: string): Promise<void> {
    return this.#step(() => {
      this.vault.rows.deleteConversation(conversation);
      this.groups.forget();
    });
  }

  /** Stages a commit and posts it; nothing of it counts until its entry is in the log. */
  commit(conversation: string, change: Change): Promise<Effect[]> {
    return this.#step(async () => {
      const pending = this.groups.pending(conversation);
      if (pending !== undefined) throw new CurbsideError("epoch_conflict", "another change is on its way");
      return [{ kind: "post-commit", conversation, request: await this.groups.stage(conversation, change) }];
    });
  }

  /** Catching up brings the commit that won. A server that refuses but has none to show is not asked for ever. */
  #mayHeal(conversation: string): boolean {
    const id = this.groups.pending(conversation)?.message_id ?? "";
    const last = this.#healed.get(conversation);
    const times = last?.id === id ? last.times + 1 : 1;
    this.#healed.set(conversation, { id, times });
    return times <= HEALINGS;
  }

  /** What the server said to a commit: its entry comes through the log; a refusal is healed or told. */
  commitAnswered(conversation: string, error?: CurbsideError): Promise<Effect[]> {
    return this.#step(async () => {
      if (error === undefined) return [sendFrame(this.#sync.frame(conversation))];
      if (HEALED_BY_SYNC.has(error.code) && this.#mayHeal(conversation))
        return [sendFrame(this.#sync.frame(conversation))];
      if (error.retry === "later" || error.code === "not_authenticated")
        return [{ kind: "retry", conversation, seconds: COMMIT_RETRY_SECONDS }];
      await this.groups.giveUp(conversation);
      return [{ kind: "commit-settled", conversation, error }];
    });
  }
}
