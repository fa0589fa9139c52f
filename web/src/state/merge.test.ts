import { describe, expect, it } from "vitest";
import type { Message } from "../bridge/types";
import { compareMessages, DRAWN, mergeMessages, slideDown, slideUp, windowAt, type LocalMessage } from "./merge";

const fiona = { userId: "f", name: "Fiona Wu", role: "nurse" };

function message(id: string, sequence: number, rest: Partial<LocalMessage> = {}): LocalMessage {
  return { id, conversationId: "c", sequence, sender: fiona, isMine: false, kind: "text", text: id, attachments: [], at: 1_000 + sequence, ...rest };
}

const ids = (messages: Message[]): string[] => messages.map((one) => one.id);

describe("mergeMessages", () => {
  it("orders by place in the log and keeps what waits at the end", () => {
    const waiting = message("w", 0, { isMine: true, at: 1 });
    expect(ids(mergeMessages([waiting], [message("b", 2), message("a", 1)]))).toEqual(["a", "b", "w"]);
  });

  it("replaces a message by its id", () => {
    const merged = mergeMessages([message("a", 0, { delivery: "sending" })], [message("a", 7, { delivery: "sent" })]);
    expect(merged).toHaveLength(1);
    expect(merged[0]).toMatchObject({ sequence: 7, delivery: "sent" });
  });

  it("puts the Worker's message in the place of its stand-in, once for each, and keeps the picture's preview", () => {
    const standIns = [1, 2].map((n) => message(`local-${n}`, 0, { isMine: true, isLocal: true, text: "yes", preview: `blob:${n}`, at: n }));
    const merged = mergeMessages(standIns, [message("m1", 0, { isMine: true, text: "yes", at: 1 })]);
    expect(ids(merged)).toEqual(["m1", "local-2"]);
    expect(merged[0]?.preview).toBe("blob:1");
  });

  it("does not take somebody else's words for the stand-in of mine", () => {
    const standIn = message("local-1", 0, { isMine: true, isLocal: true, text: "yes" });
    expect(ids(mergeMessages([standIn], [message("m1", 4, { text: "yes" })]))).toEqual(["m1", "local-1"]);
  });

  it("leaves out news about messages older than what is loaded: they would leave a gap", () => {
    const known = [message("x", 50), message("y", 51)];
    expect(ids(mergeMessages(known, [message("old", 3, { delivery: "read" })], known[0]))).toEqual(["x", "y"]);
    expect(ids(mergeMessages(known, [message("old", 3)]))).toEqual(["old", "x", "y"]);
  });
});

describe("the drawn window", () => {
  it("shows the end, or the place asked for", () => {
    expect(windowAt(1_000).end).toBe(1_000);
    const around = windowAt(1_000, 300);
    expect(around.start).toBeLessThan(300);
    expect(around.end).toBeGreaterThan(300);
    expect(windowAt(5)).toEqual({ start: 0, end: 5 });
  });

  it("slides over everything in both directions, never draws too much and never leaves a hole", () => {
    const count = 1_000;
    let window = windowAt(count);
    while (window.start > 0) {
      const next = slideUp(window, count);
      expect(next.start).toBeLessThan(window.start);
      expect(next.end).toBeGreaterThan(window.start);
      expect(next.end - next.start).toBeLessThanOrEqual(DRAWN);
      window = next;
    }
    while (window.end < count) {
      const next = slideDown(window, count);
      expect(next.end).toBeGreaterThan(window.end);
      expect(next.start).toBeLessThan(window.end);
      expect(next.end - next.start).toBeLessThanOrEqual(DRAWN);
      window = next;
    }
  });
});

describe("compareMessages", () => {
  it("is by time only among those that wait", () => {
    expect(compareMessages(message("a", 0, { at: 5 }), message("b", 0, { at: 9 }))).toBeLessThan(0);
    expect(compareMessages(message("a", 0, { at: 5 }), message("b", 3, { at: 9 }))).toBeGreaterThan(0);
  });
});
