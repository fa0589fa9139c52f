/** The conversation list and its drafts. Read again whenever the Worker says that something in it changed. */

import type { ConversationRow } from "../bridge/types";
import type { Client } from "./client";

export class ConversationsStore {
  rows = $state.raw<ConversationRow[]>([]);
  loaded = $state(false);
  unread = $derived(this.rows.reduce((sum, row) => sum + row.unread, 0));
  #client: Client;
  #stop: () => void;
  #reading = false;
  #again = false;
  #drafts = new Map<string, string>();
  #saving = new Set<string>();

  constructor(client: Client) {
    this.#client = client;
    this.#stop = client.subscribe((event) => {
      if (event.kind === "conversations") void this.refresh();
    });
    void this.refresh();
  }

  close(): void {
    this.#stop();
    this.rows = [];
    this.#drafts.clear();
  }

  /** One read at a time; calls during a read lead to exactly one more. */
  async refresh(): Promise<void> {
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    try {
      do {
        this.#again = false;
        const rows = await this.#client.core.conversations();
        this.rows = rows.map((row) => this.#withDraft(row));
        this.loaded = true;
      } while (this.#again);
    } catch {
      // Locked in between: the screen changes by the state event.
    } finally {
      this.#reading = false;
    }
  }

  find(id: string): ConversationRow | undefined {
    return this.rows.find((row) => row.id === id);
  }

  draft(id: string): string {
    return this.#drafts.get(id) ?? this.find(id)?.draft ?? "";
  }

  /** Every change goes to the vault at once; while one save is under way only the newest text waits. */
  setDraft(id: string, text: string): void {
    this.#drafts.set(id, text);
    if (!this.#saving.has(id)) void this.#saveDraft(id);
  }

  async #saveDraft(id: string): Promise<void> {
    this.#saving.add(id);
    try {
      let saved: string | undefined;
      while (saved !== this.#drafts.get(id)) {
        saved = this.#drafts.get(id) ?? "";
        await this.#client.core.saveDraft(id, saved);
      }
    } catch {
      // The text stays in the field and in memory; the next change tries again.
    } finally {
      this.#saving.delete(id);
    }
    this.rows = this.rows.map((row) => (row.id === id ? this.#withDraft(row) : row));
  }

  #withDraft(row: ConversationRow): ConversationRow {
    const draft = this.#drafts.get(row.id);
    return draft === undefined || draft === row.draft ? row : { ...row, draft };
  }
}
