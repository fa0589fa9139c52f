/** Where the person is: a stack of layers over the list. The browser's back button and edge swipe take one off.
 *
 *  Nothing of it is written to the address or the history entries: both are kept on disk, outside the vault. */

import type { Message } from "../bridge/types";

export type Layer =
  | { kind: "conversation"; id: string }
  | { kind: "new" }
  | { kind: "details"; conversationId: string }
  | { kind: "add-people"; conversationId: string }
  | { kind: "camera"; conversationId: string; picture?: Blob }
  | { kind: "viewer"; message: Message; index: number }
  | { kind: "shortcuts" };

export class NavigationStore {
  layers = $state.raw<Layer[]>([]);
  top = $derived(this.layers.at(-1));
  conversationId = $derived.by(() => {
    const first = this.layers[0];
    return first?.kind === "conversation" ? first.id : undefined;
  });
  #onPop = (event: PopStateEvent): void => {
    const depth = typeof event.state?.depth === "number" ? event.state.depth : 0;
    if (depth < this.layers.length) this.layers = this.layers.slice(0, depth);
  };

  constructor() {
    history.replaceState({ depth: 0 }, "");
    window.addEventListener("popstate", this.#onPop);
  }

  close(): void {
    window.removeEventListener("popstate", this.#onPop);
    if (this.layers.length > 0) history.go(-this.layers.length);
    this.layers = [];
  }

  push(layer: Layer): void {
    this.layers = [...this.layers, layer];
    history.pushState({ depth: this.layers.length }, "");
  }

  /** Takes the top layer off at once; the history follows. */
  back(): void {
    if (this.layers.length === 0) return;
    this.layers = this.layers.slice(0, -1);
    history.back();
  }

  /** Opens a conversation on the list, in place of whatever is open. */
  openConversation(id: string): void {
    const extra = this.layers.length - 1;
    if (extra > 0) history.go(-extra);
    if (this.layers.length === 0) history.pushState({ depth: 1 }, "");
    this.layers = [{ kind: "conversation", id }];
  }

  is(kind: Layer["kind"]): boolean {
    return this.layers.some((layer) => layer.kind === kind);
  }
}
