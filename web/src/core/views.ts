// Rows of the vault as the page sees them (bridge/types.ts). Reads only.

import type { Attachment, ConversationRow, Delivery, Message, MessagePage, Person } from "../bridge/types";
import type { DeviceIdentity, Groups } from "./groups";
import type { Self } from "./outbox";
import { storedProblem } from "./problem";
import { sniffPicture } from "./sniff";
import type { ConversationRow as VaultConversation, MessageRow } from "./vault/rows";
import type { Vault } from "./vault/vault";
import * as content from "./wire/content";

const DELIVERY_SERVICE: Person = { userId: "", name: "Your organisation", role: "" };
const QUOTED_CHARS = 140;
const LISTED_CHARS = 200;
/** Longest side of a preview that is shown; ours have 96. */
const THUMBNAIL_PIXELS = 256;

export interface Owner extends Self {
  readonly name: string;
  readonly role: string;
}

export class Views {
  readonly #vault: Vault;
  readonly #groups: Groups;
  readonly #me: Owner;

  constructor(vault: Vault, groups: Groups, me: Owner) {
    this.#vault = vault;
    this.#groups = groups;
    this.#me = me;
  }

  me(): Person {
    return { userId: this.#me.userId, name: this.#me.name, role: this.#me.role, isMe: true };
  }

  personOf(identity: { userId: string; name: string; role: string }): Person {
    const { userId, name, role } = identity;
    return {
      userId,
      name,
      role,
      ...(userId === this.#me.userId ? { isMe: true } : {}),
      ...(role === "bot" ? { isBot: true } : {}),
    };
  }

  /** Newest first; those in which nothing was said yet by the time they began. */
  async conversations(): Promise<ConversationRow[]> {
    const rows = await Promise.all(this.#vault.rows.conversations().map(async (row) => this.#row(row)));
    return rows.sort((a, b) => b.order - a.order).map(({ row }) => row);
  }

  /** Throws `not_found`. */
  async conversation(id: string): Promise<ConversationRow> {
    return (await this.#row(this.#vault.rows.getConversation(id))).row;
  }

  async #row(stored: VaultConversation): Promise<{ row: ConversationRow; order: number }> {
    const people = [...(await this.#groups.people(stored.id)).values()];
    const last = this.#vault.rows.lastMessage(stored.id);
    const shown = last && this.#message(last);
    const alarm = storedProblem(stored.alarm);
    const row: ConversationRow = {
      id: stored.id,
      kind: stored.kind === "direct" ? "direct" : "group",
      title: stored.title || this.#titleOf(people),
      members: people.map((person) => this.personOf(person)),
      lastText: shown === undefined ? "" : lineOf(shown).slice(0, LISTED_CHARS),
      lastAt: shown?.at ?? 0,
      lastIsMine: shown?.isMine ?? false,
      ...(shown?.delivery === undefined ? {} : { lastDelivery: shown.delivery }),
      unread: this.#vault.rows.unread(stored.id, this.#me.userId).length,
      draft: stored.draft,
      ...(alarm === undefined ? {} : { alarm }),
    };
    return { row, order: shown?.at ?? stored.created_at };
  }

  #titleOf(people: readonly DeviceIdentity[]): string {
    const others = people.filter((person) => person.userId !== this.#me.userId).map((person) => person.name);
    return others.join(", ") || this.#me.name;
  }

  page(conversation: string, limit: number, before?: string): MessagePage {
    const rows = this.#vault.rows;
    const stored = rows.getConversation(conversation);
    const anchor = before === undefined ? undefined : rows.findMessage(before);
    const found = rows.messages(conversation, limit + 1, anchor);
    const messages = found.slice(-limit).map((row) => this.#message(row));
    const unread = rows.unread(stored.id, this.#me.userId)[0];
    return {
      messages,
      hasOlder: found.length > limit,
      ...(unread === undefined ? {} : { firstUnread: unread.id }),
    };
  }

  /** Undefined when there is no such message any more. */
  findMessage(id: string): Message | undefined {
    const row = this.#vault.rows.findMessage(id);
    return row && this.#message(row);
  }

  #message(row: MessageRow): Message {
    const isMine = row.sender === this.#me.userId && row.delivery !== "";
    const problem = storedProblem(row.problem);
    const progress = isMine ? this.#vault.rows.uploadProgress(row.id) : undefined;
    return {
      id: row.id,
      conversationId: row.conversation,
      sequence: row.sequence,
      sender: this.#sender(row.sender),
      isMine: row.sender === this.#me.userId,
      ...this.#shown(row),
      at: row.at,
      ...(isMine ? { delivery: row.delivery as Delivery } : {}),
      ...(progress === undefined ? {} : { progress }),
      ...(problem === undefined ? {} : { problem }),
    };
  }

  #sender(userId: string): Person {
    if (userId === this.#me.userId) return this.me();
    const known = userId === "" ? undefined : this.#vault.rows.findPerson(userId);
    return known === undefined ? { ...DELIVERY_SERVICE, userId } : this.personOf({ userId, name: known.name, role: known.role });
  }

  #shown(row: MessageRow): Pick<Message, "kind" | "text" | "attachments" | "inReplyTo"> {
    if (row.content.length === 0) return { kind: "unknown", text: "", attachments: [] };
    const message = content.decode(row.content);
    const title = content.findExtension(message, "title");
    if (row.mimi_id.length === 0) return { kind: "note", text: content.bodyText(message), attachments: [] };
    if (title !== undefined) return { kind: "note", text: `named the conversation “${title.title}”`, attachments: [] };
    const quoted = message.inReplyTo === null ? undefined : this.#quote(row.conversation, message.inReplyTo);
    return {
      ...bodyOf(message),
      attachments: content.attachments(message).map(attachmentOf),
      ...(quoted === undefined ? {} : { inReplyTo: quoted }),
    };
  }

  #quote(conversation: string, mimiId: Uint8Array): Message["inReplyTo"] {
    const row = this.#vault.rows.findMessageByMimi(conversation, mimiId);
    if (row === undefined) return undefined;
    const text = content.fallbackText(content.decode(row.content)).slice(0, QUOTED_CHARS);
    return { id: row.id, sender: this.#sender(row.sender).name, text };
  }
}

function bodyOf(message: content.Message): Pick<Message, "kind" | "text"> {
  switch (content.kind(message)) {
    case "text":
      return { kind: "text", text: content.bodyText(message) };
    case "photo":
      return { kind: "photo", text: content.bodyText(message) };
    case "attachment":
      return { kind: "file", text: content.bodyText(message) };
    case "unknown":
    case "empty":
    case "session":
      return { kind: "unknown", text: content.fallbackText(message) };
    default:
      // What this client has no better form for is shown in the plain form that every message has.
      return { kind: "text", text: content.fallbackText(message) };
  }
}

function attachmentOf(found: content.Attachment, index: number): Attachment {
  const { part, width, height, preview } = found;
  const mediaType = content.mediaType(part);
  return {
    index,
    kind: mediaType.startsWith("image/") ? "image" : "file",
    name: part.filename,
    mediaType,
    size: part.size,
    ...(width > 0 && height > 0 ? { width, height } : {}),
    ...(preview === null || !isThumbnail(preview.content) ? {} : { thumbnail: Uint8Array.from(preview.content) }),
  };
}

/** A small JPEG by its bytes: the page lets the browser decode it, so it must not be a bomb. */
function isThumbnail(bytes: Uint8Array): boolean {
  const head = sniffPicture(bytes);
  if (head?.type !== "image/jpeg" || head.size === undefined || bytes.length > content.THUMBNAIL_BYTES) return false;
  const { width, height } = head.size;
  return width * height > 0 && Math.max(width, height) <= THUMBNAIL_PIXELS;
}

function lineOf(message: Message): string {
  if (message.kind === "photo") return message.text || "Photo";
  if (message.kind === "file") return message.text || "File";
  if (message.kind === "note") return `${message.isMine ? "You" : message.sender.name} ${message.text}`;
  return message.text;
}
