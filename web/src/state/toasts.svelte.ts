/** Short notes at the edge of the screen: what went wrong, and the next step. */

import type { Problem } from "../bridge/types";
import { asProblem, type Client } from "./client";

export interface Toast {
  id: number;
  tone: "problem" | "done";
  title: string;
  detail: string;
  /** The device that was refused, or "". */
  device: string;
}

const KEPT = 3;
const DONE_MS = 4_000;

export class ToastStore {
  items = $state.raw<Toast[]>([]);
  #next = 1;

  constructor(client: Client) {
    client.subscribe((event) => {
      if (event.kind === "notice") this.problem(event.problem);
    });
  }

  /** Stays until it is dismissed: a person on the ward may look away. The same one is not shown twice. */
  problem(error: Problem | unknown): void {
    const problem = asProblem(error);
    const { title } = problem;
    const named = problem.members?.["device"];
    const device = typeof named === "string" ? named : "";
    if (this.items.some((toast) => toast.title === title && toast.device === device)) return;
    this.#add({ tone: "problem", title, detail: problem.nextStep || problem.detail, device });
  }

  done(title: string): void {
    const id = this.#add({ tone: "done", title, detail: "", device: "" });
    setTimeout(() => this.dismiss(id), DONE_MS);
  }

  dismiss(id: number): void {
    this.items = this.items.filter((toast) => toast.id !== id);
  }

  clear(): void {
    this.items = [];
  }

  #add(toast: Omit<Toast, "id">): number {
    const id = this.#next++;
    this.items = [...this.items, { id, ...toast }].slice(-KEPT);
    return id;
  }
}
