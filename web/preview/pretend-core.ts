/** A core that keeps nothing and talks to nobody: enough of one to walk through every screen. */

import type { AppState, ConversationRow, Core, CoreEvent, InvitePreview, Message, MessagePage, OpenedImage, Person, PhotoInput, Problem } from "../src/bridge/types";
import { ecg } from "./pictures";
import { everybody, leeTalk, longTalk, me, message, nightTalk, now, rows } from "./pretend-data";
import type { Scene } from "./scenes";

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const problem = (code: string, title: string, nextStep: string): Problem => ({ code, title, detail: title, nextStep });

function fold(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

export class PretendCore implements Core {
  #scene: Scene;
  #listeners = new Set<(event: CoreEvent) => void>();
  #state: AppState;
  #rows: ConversationRow[];
  #talks = new Map<string, Message[]>();
  #ready: Promise<void>;

  constructor(scene: Scene) {
    this.#scene = scene;
    const phases: Partial<Record<Scene, AppState["phase"]>> = {
      welcome: "empty",
      invite: "empty",
      "invite-expired": "empty",
      joining: "empty",
      locked: "locked",
      "other-tab": "other-tab",
      unsupported: "unsupported",
    };
    this.#state = {
      phase: phases[scene] ?? "open",
      connection: scene === "offline" ? "offline" : "online",
      // Who somebody is stands in the vault: a locked one does not tell.
      ...(phases[scene] ? {} : { me, organization: "St Brigid's Hospital" }),
      waiting: scene === "offline" ? 2 : 0,
    };
    this.#rows = scene === "empty" ? [] : rows();
    this.#ready = this.#fill();
  }

  async #fill(): Promise<void> {
    const small = await ecg(480, 300);
    this.#talks.set("c-lee", leeTalk(new Uint8Array(await small.arrayBuffer())));
    this.#talks.set("c-night", this.#scene === "long" ? longTalk() : nightTalk());
    for (const row of this.#rows)
      if (!this.#talks.has(row.id) && row.lastText) {
        const other = row.members.find((person) => !person.isMe) ?? me;
        this.#talks.set(row.id, [message(row.id, row.lastIsMine ? me : other, row.lastAt, row.lastText)]);
      }
  }

  subscribe(listener: (event: CoreEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: CoreEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #enter(change: Partial<AppState>): void {
    this.#state = { ...this.#state, ...change };
    this.emit({ kind: "state", state: this.#state });
  }

  async state(): Promise<AppState> {
    return this.#state;
  }

  async previewInvite(): Promise<InvitePreview> {
    await wait(60);
    if (this.#scene === "invite-expired") throw problem("invite_expired", "This invite has expired.", "Ask the person who invited you for a new one.");
    return { organization: "St Brigid's Hospital", role: "physician", expiresAt: now / 1000 + 3 * 86_400 };
  }

  async join(): Promise<void> {
    const steps = ["Checking the invite again", "Making your keys", "Locking the vault", "Introducing this device"];
    for (const [done, text] of steps.entries()) {
      this.emit({ kind: "progress", task: "join", done, total: steps.length, text });
      await wait(this.#scene === "joining" && done === 2 ? 60_000 : 250);
    }
    this.#enter({ phase: "open", me });
  }

  async ratePassphrase(passphrase: string): Promise<{ score: number; hint: string; acceptable: boolean }> {
    const length = [...passphrase].length;
    const score = Math.min(4, Math.floor(length / 7));
    if (length < 15) return { score: 0, hint: `${15 - length} more characters are needed.`, acceptable: false };
    return { score, hint: score > 3 ? "Hard to guess, easy to say." : "One more word makes it much stronger.", acceptable: true };
  }

  async unlock(passphrase: string): Promise<void> {
    await wait(500);
    if (passphrase === "wrong") throw problem("wrong_passphrase", "That passphrase is not right.", "Check it and try again; capital letters matter.");
    this.#enter({ phase: "open", connection: "online", me });
  }

  async lock(): Promise<void> {
    this.#state = { phase: "locked", connection: "offline", waiting: 0 };
    this.emit({ kind: "state", state: this.#state });
  }

  async people(query: string): Promise<Person[]> {
    const words = fold(query).split(/\s+/).filter(Boolean);
    return everybody.filter((person) => words.every((word) => fold(`${person.name} ${person.role}`).split(" ").some((part) => part.startsWith(word))));
  }

  async conversations(): Promise<ConversationRow[]> {
    await this.#ready;
    return this.#rows;
  }

  async conversation(id: string): Promise<ConversationRow> {
    const row = this.#rows.find((one) => one.id === id);
    if (!row) throw problem("not_found", "Not found.", "It may have ended, or it is not shared with you.");
    return row;
  }

  async startConversation(input: { userIds: string[]; title: string }): Promise<string> {
    await wait(200);
    const members = everybody.filter((person) => input.userIds.includes(person.userId));
    const id = `c-${this.#rows.length + 100}`;
    const kind = members.length > 1 ? "group" : "direct";
    this.#rows = [{ id, kind, title: input.title || (members[0]?.name ?? ""), members: [me, ...members], lastText: "", lastAt: 0, lastIsMine: false, unread: 0, draft: "" }, ...this.#rows];
    this.emit({ kind: "conversations" });
    return id;
  }

  async addPeople(id: string, userIds: string[]): Promise<void> {
    this.#change(id, (row) => ({ ...row, members: [...row.members, ...everybody.filter((person) => userIds.includes(person.userId))] }));
  }

  async messages(id: string, input: { before?: string; limit: number }): Promise<MessagePage> {
    await this.#ready;
    const all = this.#talks.get(id) ?? [];
    const end = input.before ? all.findIndex((one) => one.id === input.before) : all.length;
    const start = Math.max(0, end - input.limit);
    const unread = this.#rows.find((row) => row.id === id)?.unread ?? 0;
    const firstUnread = unread > 0 ? all.at(-unread)?.id : undefined;
    return { messages: all.slice(start, end), hasOlder: start > 0, ...(firstUnread ? { firstUnread } : {}) };
  }

  async sendText(id: string, text: string, inReplyTo?: string): Promise<string> {
    const quoted = this.#talks.get(id)?.find((one) => one.id === inReplyTo);
    const sent = message(id, me, Date.now(), text, {
      sequence: 0,
      delivery: "sending",
      ...(quoted ? { inReplyTo: { id: quoted.id, sender: quoted.sender.name, text: quoted.text } } : {}),
    });
    void this.#deliver(sent);
    return sent.id;
  }

  async sendPhoto(id: string, input: PhotoInput): Promise<string> {
    await wait(200);
    const bitmap = await createImageBitmap(input.blob);
    const { width, height } = bitmap;
    const thumbnail = new Uint8Array(await (await ecg(480, 300)).arrayBuffer());
    const attachments = [{ index: 0, kind: "image" as const, name: "photo.jpg", mediaType: "image/jpeg", size: input.blob.size, width, height, thumbnail }];
    const sent = message(id, me, Date.now(), input.caption, { sequence: 0, kind: "photo", delivery: "sending", attachments, progress: 0 });
    void this.#deliver(sent);
    return sent.id;
  }

  async #deliver(sent: Message): Promise<void> {
    this.#tell(sent);
    if (this.#state.connection === "offline") return;
    if (sent.kind === "photo")
      for (let part = 1; part <= 10; part += 1) {
        await wait(120);
        this.#tell({ ...sent, progress: part / 10 });
      }
    const placed: Message = { ...sent, sequence: 10_000 + Number(sent.id.slice(2)) };
    delete placed.progress;
    for (const delivery of ["sent", "delivered", "read"] as const) {
      await wait(400);
      this.#tell({ ...placed, delivery });
    }
  }

  #tell(fresh: Message): void {
    const before = this.#talks.get(fresh.conversationId) ?? [];
    this.#talks.set(fresh.conversationId, [...before.filter((one) => one.id !== fresh.id), fresh]);
    this.emit({ kind: "messages", conversationId: fresh.conversationId, messages: [fresh] });
    this.#change(fresh.conversationId, (row) => ({
      ...row,
      lastText: fresh.text || "Photo",
      lastAt: fresh.at,
      lastIsMine: fresh.isMine,
      ...(fresh.delivery ? { lastDelivery: fresh.delivery } : {}),
    }));
  }

  /** For the console and the screenshots: somebody else writes. */
  hear(id: string, text: string): void {
    this.#tell(message(id, everybody[0] ?? me, Date.now(), text, { sequence: 20_000 + Math.floor(performance.now()) }));
  }

  #change(id: string, change: (row: ConversationRow) => ConversationRow): void {
    this.#rows = this.#rows.map((row) => (row.id === id ? change(row) : row));
    this.emit({ kind: "conversations" });
  }

  async retry(messageId: string): Promise<void> {
    const found = [...this.#talks.values()].flat().find((one) => one.id === messageId);
    if (found) void this.#deliver({ ...found, delivery: "sending", sequence: 0 });
  }

  async discard(messageId: string): Promise<void> {
    for (const [id, talk] of this.#talks) {
      this.#talks.set(id, talk.filter((one) => one.id !== messageId));
      this.emit({ kind: "discarded", conversationId: id, messageId });
    }
  }

  async openImage(): Promise<OpenedImage> {
    const blob = await ecg(1600, 1000);
    return { bytes: await blob.arrayBuffer(), mediaType: "image/jpeg", width: 1600, height: 1000 };
  }

  async markRead(id: string): Promise<void> {
    this.#change(id, (row) => ({ ...row, unread: 0 }));
  }

  async saveDraft(id: string, text: string): Promise<void> {
    this.#rows = this.#rows.map((row) => (row.id === id ? { ...row, draft: text } : row));
  }

  async safetyNumber(): Promise<string> {
    return "3f9a1c07e2b84d51a6c0f7738e19d2b5540cae619f23d78b06e4";
  }
}
