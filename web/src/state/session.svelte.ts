/** Everything that exists only while the vault is open. Locking drops it: no plaintext stays in the page. */

import type { Person } from "../bridge/types";
import type { Client } from "./client";
import { ConversationsStore } from "./conversations.svelte";
import { NavigationStore } from "./navigation.svelte";
import { OpenConversationStore } from "./open-conversation.svelte";
import type { ToastStore } from "./toasts.svelte";

export class Session {
  readonly client: Client;
  readonly toasts: ToastStore;
  readonly conversations: ConversationsStore;
  readonly navigation = new NavigationStore();
  me = $state.raw<Person>({ userId: "", name: "", role: "" });
  open = $state.raw<OpenConversationStore | undefined>(undefined);

  constructor(client: Client, toasts: ToastStore, me: Person | undefined) {
    this.client = client;
    this.toasts = toasts;
    this.conversations = new ConversationsStore(client);
    if (me) this.me = me;
  }

  /** Follows the navigation: opens the store of the conversation on the screen, closes the one before. */
  follow(id: string | undefined): void {
    if (this.open?.id === id) return;
    this.open?.close();
    this.open = id === undefined ? undefined : new OpenConversationStore(this.client, id, this.me, this.#unread(id));
  }

  #unread(id: string): number {
    return this.conversations.find(id)?.unread ?? 0;
  }

  close(): void {
    this.open?.close();
    this.open = undefined;
    this.conversations.close();
    this.navigation.close();
    this.toasts.clear();
  }
}
