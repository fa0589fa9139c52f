/** One open conversation: its loaded messages, the window of them that is drawn, and sending. */

import type { CoreEvent, Message, Person, PhotoInput, Problem } from "../bridge/types";
import { asProblem, type Client } from "./client";
import { mergeMessages, slideDown, slideUp, windowAt, type LocalMessage, type Window } from "./merge";

const FIRST_PAGE = 60;
const LARGEST_PAGE = 600;
const OLDER_PAGE = 80;

export class OpenConversationStore {
  readonly id: string;
  messages = $state.raw<LocalMessage[]>([]);
  view = $state.raw<Window>({ start: 0, end: 0 });
  drawn = $derived(this.messages.slice(this.view.start, this.view.end));
  firstUnread = $state<string | undefined>(undefined);
  hasOlder = $state(false);
  loaded = $state(false);
  problem = $state.raw<Problem | undefined>(undefined);
  /** What came in last from somebody else: for the live region and the jump button's count. */
  arrived = $state.raw<Message[]>([]);
  atLatest = $derived(this.view.end >= this.messages.length);
  #client: Client;
  #me: Person;
  #stop: () => void;
  #loading = false;
  #locals = 0;
  #pictures = new Map<string, string>();
  #opening: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(client: Client, id: string, me: Person, unread: number) {
    this.#client = client;
    this.id = id;
    this.#me = me;
    this.#stop = client.subscribe((event) => this.#hear(event));
    void this.#open(unread);
  }

  close(): void {
    this.#closed = true;
    this.#stop();
    for (const address of this.#pictures.values()) URL.revokeObjectURL(address);
    this.#pictures.clear();
    for (const message of this.messages) if (message.preview) URL.revokeObjectURL(message.preview);
    this.messages = [];
  }

  async #open(unread: number): Promise<void> {
    try {
      const limit = Math.min(LARGEST_PAGE, Math.max(FIRST_PAGE, unread + 20));
      const page = await this.#client.core.messages(this.id, { limit });
      this.messages = mergeMessages(this.messages, page.messages);
      this.hasOlder = page.hasOlder;
      this.firstUnread = page.firstUnread;
      const index = this.messages.findIndex((message) => message.id === page.firstUnread);
      this.view = windowAt(this.messages.length, index > 0 && this.messages.length - index > 30 ? index : undefined);
    } catch (error) {
      this.problem = asProblem(error);
    }
    this.loaded = true;
  }

  #hear(event: CoreEvent): void {
    if (event.kind === "messages" && event.conversationId === this.id) this.#take(event.messages);
    if (event.kind === "discarded" && event.conversationId === this.id) this.#drop(event.messageId);
  }

  #take(fresh: Message[]): void {
    const known = new Set(this.messages.map((message) => message.id));
    const wasAtLatest = this.atLatest;
    this.messages = mergeMessages(this.messages, fresh, this.hasOlder ? this.messages[0] : undefined);
    if (wasAtLatest) this.view = { ...this.view, end: this.messages.length };
    const arrived = fresh.filter((message) => !message.isMine && !known.has(message.id));
    if (arrived.length > 0 && this.loaded) this.arrived = arrived;
  }

  #drop(id: string): void {
    const gone = this.messages.find((message) => message.id === id);
    if (gone?.preview) URL.revokeObjectURL(gone.preview);
    this.messages = this.messages.filter((message) => message.id !== id);
    this.view = { start: Math.min(this.view.start, this.messages.length), end: Math.min(this.view.end, this.messages.length) };
  }

  /** Draws older messages, from memory first, then from the vault. True when something was added. */
  async showOlder(): Promise<boolean> {
    if (this.#loading) return false;
    if (this.view.start > 0) {
      this.view = slideUp(this.view, this.messages.length);
      return true;
    }
    const before = this.messages[0]?.id;
    if (!this.hasOlder || before === undefined) return false;
    this.#loading = true;
    try {
      const page = await this.#client.core.messages(this.id, { before, limit: OLDER_PAGE });
      const count = this.messages.length;
      this.messages = mergeMessages(this.messages, page.messages);
      this.hasOlder = page.hasOlder && page.messages.length > 0;
      const added = this.messages.length - count;
      this.view = slideUp({ start: this.view.start + added, end: this.view.end + added }, this.messages.length);
      return added > 0;
    } catch (error) {
      this.problem = asProblem(error);
      return false;
    } finally {
      this.#loading = false;
    }
  }

  showNewer(): boolean {
    if (this.atLatest) return false;
    this.view = slideDown(this.view, this.messages.length);
    return true;
  }

  showLatest(): void {
    this.view = windowAt(this.messages.length);
  }

  /** Draws the message if it is loaded. False when it is not. */
  reveal(id: string): boolean {
    const index = this.messages.findIndex((message) => message.id === id);
    if (index < 0) return false;
    if (index < this.view.start || index >= this.view.end) this.view = windowAt(this.messages.length, index);
    return true;
  }

  /** The bubble is there before the Worker answers. Rejects with a Problem when it refuses; the bubble is gone then. */
  async sendText(text: string, inReplyTo?: Message): Promise<void> {
    const quote = inReplyTo
      ? { inReplyTo: { id: inReplyTo.id, sender: inReplyTo.sender.name, text: inReplyTo.text } }
      : {};
    await this.#send({ kind: "text", text, ...quote }, () => this.#client.core.sendText(this.id, text, inReplyTo?.id));
  }

  async sendPhoto(input: PhotoInput): Promise<void> {
    const preview = URL.createObjectURL(input.blob);
    await this.#send({ kind: "photo", text: input.caption, preview }, () => this.#client.core.sendPhoto(this.id, input));
  }

  async #send(part: Partial<LocalMessage> & { kind: Message["kind"] }, ask: () => Promise<string>): Promise<void> {
    const local: LocalMessage = {
      id: `local-${++this.#locals}`,
      conversationId: this.id,
      sequence: 0,
      sender: this.#me,
      isMine: true,
      text: "",
      attachments: [],
      at: Date.now(),
      delivery: "sending",
      isLocal: true,
      ...part,
    };
    this.messages = [...this.messages, local];
    this.showLatest();
    try {
      const id = await ask();
      this.messages = this.messages.map((message) => (message.id === local.id ? { ...message, id, isLocal: false } : message));
    } catch (error) {
      this.#drop(local.id);
      throw asProblem(error);
    }
  }

  /** Object URL of a whole picture, for as long as the conversation is open. One is opened after another. */
  async picture(messageId: string, index: number): Promise<string> {
    const key = `${messageId} ${index}`;
    const next = this.#opening.then(async () => {
      const known = this.#pictures.get(key);
      if (known !== undefined || this.#closed) return known ?? "";
      const image = await this.#client.core.openImage(messageId, index);
      if (this.#closed) return "";
      const address = URL.createObjectURL(new Blob([image.bytes], { type: image.mediaType }));
      this.#pictures.set(key, address);
      return address;
    });
    this.#opening = next.catch(() => undefined);
    return next;
  }

  /** The divider stays until the conversation is left; only the count is told to the vault. */
  async markRead(): Promise<void> {
    await this.#client.core.markRead(this.id).catch(() => undefined);
  }
}
