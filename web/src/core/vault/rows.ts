// The rows of the vault: every SQL statement of the client, one small function each. Twin of src/curbside/client/rows.py.

import { CurbsideError } from "../errors";
import type { Database } from "./sqlite";

/** mls: the group's saved state. cursor: last sequence number processed. alarm: "" or a problem as JSON. */
export interface ConversationRow {
  readonly id: string;
  readonly mls: Uint8Array;
  readonly kind: string;
  readonly title: string;
  readonly cursor: number;
  readonly created_at: number;
  readonly draft: string;
  readonly read_upto: number;
  readonly alarm: string;
}

/**
 * at: Unix milliseconds. sequence: 0 while it waits. delivery: "" for other people's. An empty mimi_id with content is a
 * note about the conversation that this device wrote for itself; one without content could not be opened.
 */
export interface MessageRow {
  readonly row: number;
  readonly id: string;
  readonly mimi_id: Uint8Array;
  readonly conversation: string;
  readonly sequence: number;
  readonly sender: string;
  readonly sender_device: string;
  readonly at: number;
  readonly delivery: string;
  readonly content: Uint8Array;
  readonly problem: string;
}

/** epoch -1 and an empty envelope: not encrypted yet. */
export interface OutboxRow {
  readonly row: number;
  readonly id: string;
  readonly conversation: string;
  readonly content: Uint8Array;
  readonly epoch: number;
  readonly envelope: Uint8Array;
  readonly report: number;
  readonly tries: number;
}

/** offset: bytes that the server is known to hold. */
export interface UploadRow {
  readonly id: string;
  readonly conversation: string;
  readonly blob_id: string;
  readonly ciphertext: Uint8Array;
  readonly offset: number;
}

export interface PersonRow {
  readonly user_id: string;
  readonly name: string;
  readonly role: string;
  readonly certificate: Uint8Array;
}

const CONVERSATION = "id, mls, kind, title, cursor, created_at, draft, read_upto, alarm";
const MESSAGE = "row, id, mimi_id, conversation, sequence, sender, sender_device, at, delivery, content, problem";
const OUTBOX = "row, id, conversation, content, epoch, envelope, report, tries";
/** Where a message stands: waiting ones after everything that is in the log. */
const PLACE = "case sequence when 0 then 9007199254740991 else sequence end";

/** Reads at any time; writes only inside `Vault.transaction`. */
export class VaultRows {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  // --- settings, secrets, certificates ---

  putSetting(name: string, value: string): void {
    this.#db.run("insert or replace into setting values (?, ?)", name, new TextEncoder().encode(value));
  }

  findSetting(name: string): string | undefined {
    const row = this.#db.find<{ value: Uint8Array }>("select value from setting where name = ?", name);
    return row && new TextDecoder().decode(row.value);
  }

  /** Throws `not_found`. */
  getSetting(name: string): string {
    return required(this.findSetting(name));
  }

  putSecret(name: string, value: Uint8Array): void {
    this.#db.run("insert or replace into secret values (?, ?)", name, value);
  }

  /** Throws `not_found`. */
  getSecret(name: string): Uint8Array {
    return required(this.#db.find<{ value: Uint8Array }>("select value from secret where name = ?", name)).value;
  }

  putCertificate(name: string, der: Uint8Array): void {
    this.#db.run("insert or replace into certificate values (?, ?)", name, der);
  }

  /** DER. Throws `not_found`. */
  getCertificate(name: string): Uint8Array {
    return required(this.#db.find<{ der: Uint8Array }>("select der from certificate where name = ?", name)).der;
  }

  // --- key packages ---

  addKeyPackage(reference: Uint8Array, secrets: Uint8Array, lastResort: boolean, nowMs: number): void {
    this.#db.run("insert into key_package values (?, ?, ?, ?)", reference, secrets, lastResort ? 1 : 0, nowMs);
  }

  findKeyPackage(reference: Uint8Array): Uint8Array | undefined {
    const sql = "select secrets from key_package where reference = ?";
    return this.#db.find<{ secrets: Uint8Array }>(sql, reference)?.secrets;
  }

  /** Forgets a used key package; one of last resort stays (RFC 9420 section 16.8). */
  deleteKeyPackage(reference: Uint8Array): void {
    this.#db.run("delete from key_package where reference = ? and last_resort = 0", reference);
  }

  /** When the newest key package of last resort was made; 0 without one. */
  newestLastResort(): number {
    const sql = "select max(created_at) as at from key_package where last_resort = 1";
    return this.#db.find<{ at: number | null }>(sql)?.at ?? 0;
  }

  deleteKeyPackagesBefore(nowMs: number): void {
    this.#db.run("delete from key_package where created_at < ?", nowMs);
  }

  // --- conversations ---

  /** A new conversation; a rejoined one keeps its messages and gets new state. */
  addConversation(row: ConversationRow): void {
    this.#db.run(
      `insert into conversation (${CONVERSATION}) values (?,?,?,?,?,?,?,?,?) on conflict (id) do update` +
        " set mls = excluded.mls, kind = excluded.kind, cursor = excluded.cursor, alarm = ''",
      ...[row.id, row.mls, row.kind, row.title, row.cursor, row.created_at, row.draft, row.read_upto, row.alarm],
    );
  }

  findConversation(id: string): ConversationRow | undefined {
    return this.#db.find<ConversationRow>(`select ${CONVERSATION} from conversation where id = ?`, id);
  }

  /** Throws `not_found`. */
  getConversation(id: string): ConversationRow {
    return required(this.findConversation(id));
  }

  conversations(): ConversationRow[] {
    return this.#db.all<ConversationRow>(`select ${CONVERSATION} from conversation order by created_at, id`);
  }

  deleteConversation(id: string): void {
    for (const table of ["pending_commit", "outbox", "upload", "message"])
      this.#db.run(`delete from ${table} where conversation = ?`, id);
    this.#db.run("delete from conversation where id = ?", id);
  }

  /** Cursor by conversation, for Sync; without those that stopped. */
  cursors(): Record<string, number> {
    const rows = this.#db.all<{ id: string; cursor: number }>("select id, cursor from conversation where alarm = ''");
    return Object.fromEntries(rows.map((row) => [row.id, row.cursor]));
  }

  saveGroup(id: string, mls: Uint8Array): void {
    this.#db.run("update conversation set mls = ? where id = ?", mls, id);
  }

  /** Forward only. */
  saveCursor(id: string, cursor: number): void {
    this.#db.run("update conversation set cursor = ? where id = ? and cursor < ?", cursor, id, cursor);
  }

  saveTitle(id: string, title: string): void {
    this.#db.run("update conversation set title = ? where id = ?", title, id);
  }

  /** Stops a conversation, with the problem as JSON; "" lets it go on. */
  saveAlarm(id: string, alarm: string): void {
    this.#db.run("update conversation set alarm = ? where id = ?", alarm, id);
  }

  saveReadUpto(id: string, sequence: number): void {
    this.#db.run("update conversation set read_upto = ? where id = ? and read_upto < ?", sequence, id, sequence);
  }

  saveDraft(id: string, draft: string): void {
    this.#db.run("update conversation set draft = ? where id = ?", draft, id);
  }

  // --- people ---

  /** A person whose chain was verified. */
  savePerson(person: PersonRow): void {
    const { user_id, name, role, certificate } = person;
    this.#db.run("insert or replace into person values (?, ?, ?, ?)", user_id, name, role, certificate);
  }

  findPerson(userId: string): PersonRow | undefined {
    return this.#db.find<PersonRow>("select user_id, name, role, certificate from person where user_id = ?", userId);
  }

  // --- messages ---

  addMessage(row: Omit<MessageRow, "row">): void {
    this.#db.run(
      "insert into message (id, mimi_id, conversation, sequence, sender, sender_device, at, delivery, content, problem)" +
        " values (?,?,?,?,?,?,?,?,?,?)",
      ...[row.id, row.mimi_id, row.conversation, row.sequence, row.sender, row.sender_device, row.at, row.delivery],
      ...[row.content, row.problem],
    );
  }

  findMessage(id: string): MessageRow | undefined {
    return this.#db.find<MessageRow>(`select ${MESSAGE} from message where id = ?`, id);
  }

  /** The id of the own message that the server stored under a sequence number. */
  findOwnAt(conversation: string, sequence: number, me: string): string | undefined {
    const sql = "select id from message where conversation = ? and sequence = ? and sender = ? and sender_device <> ''";
    return this.#db.find<{ id: string }>(sql, conversation, sequence, me)?.id;
  }

  findMessageByMimi(conversation: string, mimiId: Uint8Array): MessageRow | undefined {
    const sql = `select ${MESSAGE} from message where mimi_id = ? and conversation = ?`;
    return mimiId.length === 0 ? undefined : this.#db.find<MessageRow>(sql, mimiId, conversation);
  }

  /** The last `limit` messages in order, waiting ones last; with `before`, only those that stand before that message. */
  messages(conversation: string, limit: number, before?: MessageRow): MessageRow[] {
    const place = before === undefined ? Number.MAX_SAFE_INTEGER : before.sequence || Number.MAX_SAFE_INTEGER;
    const row = before?.row ?? Number.MAX_SAFE_INTEGER;
    const found = this.#db.all<MessageRow>(
      `select ${MESSAGE} from message where conversation = ? and (${PLACE}, row) < (?, ?)` +
        ` order by ${PLACE} desc, row desc limit ?`,
      ...[conversation, place, row, limit],
    );
    return found.reverse();
  }

  lastMessage(conversation: string): MessageRow | undefined {
    return this.messages(conversation, 1)[0];
  }

  /** Other people's messages beyond what the person has read; notes are none. */
  unread(conversation: string, me: string): MessageRow[] {
    return this.#db.all<MessageRow>(
      `select ${MESSAGE} from message where conversation = ? and sender <> ? and mimi_id <> x''` +
        " and sequence > (select read_upto from conversation where id = ?) order by sequence",
      ...[conversation, me, conversation],
    );
  }

  /** An own message is in the log; whether there was such a message waiting. */
  saveStored(id: string, sequence: number, at: number): boolean {
    const sql = "update message set sequence = ?, at = ?, delivery = 'sent', problem = '' where id = ? and sequence = 0";
    this.#db.run(sql, sequence, at, id);
    return this.#db.changes > 0;
  }

  saveDelivery(id: string, delivery: string, problem = ""): void {
    this.#db.run("update message set delivery = ?, problem = ? where id = ?", delivery, problem, id);
  }

  saveContent(id: string, mimiId: Uint8Array, content: Uint8Array): void {
    this.#db.run("update message set mimi_id = ?, content = ? where id = ?", mimiId, content, id);
  }

  deleteMessage(id: string): void {
    this.#db.run("delete from message where id = ?", id);
  }

  // --- receipts ---

  /** Read never falls back to delivered. */
  addReceipt(mimiId: Uint8Array, userId: string, status: "delivered" | "read", nowMs: number): void {
    this.#db.run(
      "insert into receipt values (?, ?, ?, ?) on conflict (mimi_id, user_id) do update" +
        " set status = excluded.status, at = excluded.at where receipt.status = 'delivered'",
      ...[mimiId, userId, status, nowMs],
    );
  }

  /** Status by user id. */
  receipts(mimiId: Uint8Array): Map<string, string> {
    const sql = "select user_id, status from receipt where mimi_id = ?";
    const rows = this.#db.all<{ user_id: string; status: string }>(sql, mimiId);
    return new Map(rows.map((row) => [row.user_id, row.status]));
  }

  // --- outbox ---

  addOutbox(id: string, conversation: string, content: Uint8Array, report: boolean): void {
    const sql = "insert into outbox (id, conversation, content, epoch, envelope, report) values (?,?,?,-1,x'',?)";
    this.#db.run(sql, id, conversation, content, report ? 1 : 0);
  }

  /** What waits in a conversation, in the order it was written. */
  outbox(conversation: string): OutboxRow[] {
    return this.#db.all<OutboxRow>(`select ${OUTBOX} from outbox where conversation = ? order by row`, conversation);
  }

  /** Messages of the person that wait; reports do not count. */
  countWaiting(): number {
    return this.#db.find<{ n: number }>("select count(*) as n from outbox where report = 0")?.n ?? 0;
  }

  findOutbox(id: string): OutboxRow | undefined {
    return this.#db.find<OutboxRow>(`select ${OUTBOX} from outbox where id = ?`, id);
  }

  /** So that a retry repeats the same bytes. */
  saveEnvelope(id: string, epoch: number, envelope: Uint8Array): void {
    const sql = "update outbox set epoch = ?, envelope = ?, tries = tries + 1 where id = ?";
    this.#db.run(sql, epoch, envelope, id);
  }

  deleteOutbox(id: string): void {
    this.#db.run("delete from outbox where id = ?", id);
  }

  // --- commits of our own ---

  savePendingCommit(conversation: string, id: Uint8Array, request: Uint8Array): void {
    this.#db.run("insert or replace into pending_commit values (?, ?, ?)", conversation, id, request);
  }

  findPendingCommit(conversation: string): { id: Uint8Array; request: Uint8Array } | undefined {
    return this.#db.find("select id, request from pending_commit where conversation = ?", conversation);
  }

  deletePendingCommit(conversation: string): void {
    this.#db.run("delete from pending_commit where conversation = ?", conversation);
  }

  // --- attachments ---

  addUpload(id: string, conversation: string, ciphertext: Uint8Array): void {
    this.#db.run("insert into upload values (?, ?, '', ?, 0)", id, conversation, ciphertext);
  }

  /** Ids of the messages whose attachment is not up yet, oldest first. */
  uploadIds(): string[] {
    const sql = "select upload.id from upload join message on message.id = upload.id order by message.row";
    return this.#db.all<{ id: string }>(sql).map((row) => row.id);
  }

  findUpload(id: string): UploadRow | undefined {
    return this.#db.find("select id, conversation, blob_id, ciphertext, offset from upload where id = ?", id);
  }

  saveUpload(id: string, blobId: string, offset: number): void {
    this.#db.run("update upload set blob_id = ?, offset = ? where id = ?", blobId, offset, id);
  }

  /** How far the upload of a message is: 0 to 1; undefined when there is none. */
  uploadProgress(id: string): number | undefined {
    const sql = "select offset, length(ciphertext) as size from upload where id = ?";
    const row = this.#db.find<{ offset: number; size: number }>(sql, id);
    return row && row.offset / row.size;
  }

  deleteUpload(id: string): void {
    this.#db.run("delete from upload where id = ?", id);
  }

  /** A ciphertext as it was downloaded (or sent). */
  saveAttachment(blobId: string, ciphertext: Uint8Array, nowMs: number): void {
    this.#db.run("insert or replace into attachment values (?, ?, ?)", blobId, ciphertext, nowMs);
  }

  findAttachment(blobId: string): Uint8Array | undefined {
    const sql = "select ciphertext from attachment where blob_id = ?";
    return this.#db.find<{ ciphertext: Uint8Array }>(sql, blobId)?.ciphertext;
  }

  // --- queue ---

  queuePosition(): number {
    return this.#db.find<{ position: number }>("select position from queue_position")?.position ?? 0;
  }

  /** Forward only. */
  saveQueuePosition(position: number): void {
    this.#db.run("update queue_position set position = ? where position < ?", position, position);
  }
}

function required<T>(found: T | undefined): T {
  if (found === undefined) throw new CurbsideError("not_found");
  return found;
}
