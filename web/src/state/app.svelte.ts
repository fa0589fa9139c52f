/** The one state that chooses the screen: phase, connection, who I am, and how far a long task has come. */

import type { AppState, Connection, CoreEvent } from "../bridge/types";
import { asProblem, type Client } from "./client";

export interface Progress {
  task: "join" | "unlock" | "catch-up";
  done: number;
  total: number;
  text: string;
}

export class AppStore {
  current = $state.raw<AppState>({ phase: "starting", connection: "connecting", waiting: 0 });
  #hasNetwork = $state(navigator.onLine);
  /** A device without network is offline at once, even before the stream notices. */
  connection = $derived<Connection>(this.#hasNetwork ? this.current.connection : "offline");
  progress = $state.raw<Progress | undefined>(undefined);

  constructor(client: Client) {
    client.subscribe((event) => this.#hear(event));
    addEventListener("online", () => (this.#hasNetwork = true));
    addEventListener("offline", () => (this.#hasNetwork = false));
    client.core.state().then(
      (state) => this.#enter(state),
      (error: unknown) => this.#enter({ ...this.current, phase: "unsupported", problem: asProblem(error) }),
    );
  }

  #hear(event: CoreEvent): void {
    if (event.kind === "state") this.#enter(event.state);
    if (event.kind === "progress")
      this.progress = { task: event.task, done: event.done, total: event.total, text: event.text };
  }

  #enter(state: AppState): void {
    if (state.phase !== this.current.phase) this.progress = undefined;
    this.current = state;
  }
}
