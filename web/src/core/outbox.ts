// The outbox: what a person wrote waits here, in the vault, until the server has it in the log. Twin of
// src/curbside/client/outbox.py.
//
// [Note: save, then send] An envelope is saved together with the group state that made it before it leaves. A retry in
// the same epoch repeats the same bytes; in a newer epoch the content is encrypted again under the same message id. That
// is done only after a Sync, so that an envelope which the server did store is found in the log instead of sent twice.

import { type Effect, changed, sendFrame } from "./effects";
import type { CurbsideError, ErrorCode } from "./errors";
import type { Groups } from "./groups";
import { decodeId, makeMessageId } from "./ids";
import { problemJson } from "./problem";
import type { Vault } from "./vault/vault";
import { type Message, type Report, conversationUri, encode, messageId, statusReport, userUri } from "./wire/content";
import type { Refused, Send, StoredItem } from "./wire/frames.generated";

export const HEALED_BY_SYNC: ReadonlySet<string> = new Set<ErrorCode>([
  "stale_epoch",
  "future_epoch",
  "pending_proposals",
  "epoch_conflict",
  "duplicate_request",
]);
const TRIED_LATER: ReadonlySet<string> = new Set<ErrorCode>([
  "too_many",
  "store_unavailable",
  "storage_full",
  "not_authenticated",
  "internal",
  "peer_unavailable",
]);
const RETRY_SECONDS = 5;

export interface Self {
  readonly userId: string;
  readonly deviceId: string;
}

export class Outbox {
  readonly #vault: Vault;
  readonly #groups: Groups;
  readonly #me: Self;
  readonly #requests = new Map<number, { conversation: string; id: string }>();
  readonly #inFlight = new Set<string>();
  #nextRequest = 1;

  constructor(vault: Vault, groups: Groups, me: Self) {
    this.#vault = vault;
    this.#groups = groups;
    this.#me = me;
  }

  /** A new connection: nothing is in flight on it. */
  connected(): void {
    this.#requests.clear();
    this.#inFlight.clear();
  }

  // --- writing ---

  /** Puts a message that a person wrote into the vault; its id. Throws `too_large`, `not_found`. */
  async write(conversation: string, message: Message, nowMs: number): Promise<string> {
    this.#vault.rows.getConversation(conversation);
    const content = encode(message);
    const id = makeMessageId(nowMs);
    this.#vault.rows.addMessage({
      id,
      mimi_id: await this.#mimiId(conversation, content),
      conversation,
      sequence: 0,
      sender: this.#me.userId,
      sender_device: this.#me.deviceId,
      at: nowMs,
      delivery: "sending",
      content,
      problem: "",
    });
    this.#vault.rows.addOutbox(id, conversation, content, false);
    return id;
  }

  /** A delivery or read report. */
  writeReport(conversation: string, statuses: Report, nowMs: number): void {
    this.writeQuietly(conversation, statusReport(statuses), nowMs);
  }

  /** Something that nobody wrote; it has no row of its own among the messages. */
  writeQuietly(conversation: string, message: Message, nowMs: number): void {
    this.#vault.rows.addOutbox(makeMessageId(nowMs), conversation, encode(message), true);
  }

  /** Replaces the content of a message that was not encrypted yet (its attachment has a place now). */
  async rewrite(id: string, conversation: string, message: Message): Promise<void> {
    const content = encode(message);
    this.#vault.rows.saveContent(id, await this.#mimiId(conversation, content), content);
    this.#vault.rows.deleteOutbox(id);
    this.#vault.rows.addOutbox(id, conversation, content, false);
  }

  /** Puts a failed message back. */
  retry(id: string): void {
    const row = this.#vault.rows.findMessage(id);
    if (row?.delivery !== "failed") return;
    this.#vault.rows.addOutbox(id, row.conversation, row.content, false);
    this.#vault.rows.saveDelivery(id, "sending");
  }

  async #mimiId(conversation: string, content: Uint8Array): Promise<Uint8Array> {
    return messageId(content, userUri(this.#me.userId), conversationUri(conversation));
  }

  // --- releasing ---

  /** Encrypts and sends what waits, if nothing stands before it: an alarm, a commit of ours, a proposal. */
  async release(conversation: string): Promise<Effect[]> {
    const row = this.#vault.rows.findConversation(conversation);
    if (row === undefined || row.alarm !== "") return [];
    const pending = this.#groups.pending(conversation);
    if (pending !== undefined) return [{ kind: "post-commit", conversation, request: pending }];
    const waiting = this.#vault.rows.outbox(conversation);
    if (waiting.length === 0) return [];
    let group = await this.#groups.get(conversation);
    if (group.isBeingRemoved) return [];
    if (group.hasPendingProposals)
      return [{ kind: "post-commit", conversation, request: await this.#groups.stage(conversation, {}) }];
    const uploading = new Set(this.#vault.rows.uploadIds());
    const effects: Effect[] = [];
    for (const item of waiting) {
      if (this.#inFlight.has(item.id)) {
        // It may be refused and sent again: what was written later must not pass it.
        if (item.epoch !== group.epoch) break;
        continue;
      }
      if (uploading.has(item.id)) continue;
      let { envelope } = item;
      if (item.epoch !== group.epoch) {
        const sealed = await group.encrypt(item.content, decodeId(item.id));
        ({ group, envelope } = sealed);
        this.#vault.rows.saveEnvelope(item.id, group.epoch, envelope);
        this.#groups.save(conversation, group);
      }
      effects.push(sendFrame(this.#sendFrame(conversation, item.id, group.epoch, envelope)));
    }
    return effects;
  }

  #sendFrame(conversation: string, id: string, epoch: number, envelope: Uint8Array): Send {
    const request = this.#nextRequest++;
    this.#requests.set(request, { conversation, id });
    this.#inFlight.add(id);
    return { type: "send", request, conversation, messageId: decodeId(id), epoch, envelope };
  }

  // --- settling ---

  /** The server has it; undefined when the answer is of an earlier connection. */
  stored(item: StoredItem): { conversation: string; id: string } | undefined {
    const found = this.#requests.get(item.request);
    if (found === undefined) return undefined;
    this.#requests.delete(item.request);
    this.settle(found.id, item.sequence, item.receivedAt);
    return found;
  }

  /** This message is in the log at `sequence`. */
  settle(id: string, sequence: number, at: number): void {
    this.#inFlight.delete(id);
    this.#vault.rows.saveStored(id, sequence, at);
    this.#vault.rows.deleteOutbox(id);
  }

  /** The server refused a send: heal by catching up, try later, or tell the person. */
  refused(frame: Refused, error: CurbsideError): Effect[] {
    const found = this.#requests.get(frame.request);
    if (found === undefined) return [];
    this.#requests.delete(frame.request);
    this.#inFlight.delete(found.id);
    const { conversation, id } = found;
    if (HEALED_BY_SYNC.has(frame.code)) {
      const { cursor } = this.#vault.rows.getConversation(conversation);
      const queue = this.#vault.rows.queuePosition();
      return [sendFrame({ type: "sync", cursors: { [conversation]: cursor }, queue })];
    }
    if (TRIED_LATER.has(frame.code)) {
      const wait = error.members["retry_after"];
      return [{ kind: "retry", conversation, seconds: typeof wait === "number" ? wait : RETRY_SECONDS }];
    }
    this.fail(id, error);
    return [changed(conversation, id)];
  }

  /** Gives up on a message until the person tries again. */
  fail(id: string, error: CurbsideError): void {
    this.#vault.rows.deleteOutbox(id);
    this.#vault.rows.saveDelivery(id, "failed", problemJson(error));
  }
}
