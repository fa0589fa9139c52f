import { describe, expect, it } from "vitest";
import type { LocalMessage } from "./merge";
import { buildTimeline } from "./timeline";

const people = { fiona: { userId: "f", name: "Fiona", role: "nurse" }, me: { userId: "m", name: "Me", role: "nurse" } };
const noon = new Date(2026, 10, 23, 12, 0).getTime();

function said(id: string, who: keyof typeof people, minutes: number, rest: Partial<LocalMessage> = {}): LocalMessage {
  return { id, conversationId: "c", sequence: 1, sender: people[who], isMine: who === "me", kind: "text", text: id, attachments: [], at: noon + minutes * 60_000, ...rest };
}

function shape(messages: LocalMessage[], firstUnread?: string): string[] {
  return buildTimeline(messages, firstUnread).map((item) =>
    item.kind === "message" ? `${item.startsGroup ? "[" : ""}${item.key}${item.endsGroup ? "]" : ""}` : item.kind,
  );
}

describe("buildTimeline", () => {
  it("groups what one person says in a row, and starts anew after a pause", () => {
    expect(shape([said("a", "fiona", 0), said("b", "fiona", 1), said("c", "me", 2), said("d", "me", 9)])).toEqual(["day", "[a", "b]", "[c]", "[d]"]);
  });

  it("separates days", () => {
    expect(shape([said("a", "fiona", -1), said("b", "fiona", 12 * 60)])).toEqual(["day", "[a]", "day", "[b]"]);
  });

  it("puts the divider before the first unread message and breaks the group there", () => {
    expect(shape([said("a", "fiona", 0), said("b", "fiona", 1)], "b")).toEqual(["day", "[a]", "unread", "[b]"]);
  });

  it("keeps notes out of groups", () => {
    expect(shape([said("a", "fiona", 0), said("n", "fiona", 0, { kind: "note" }), said("b", "fiona", 1)])).toEqual(["day", "[a]", "[n]", "[b]"]);
  });

  it("gives every item a key of its own", () => {
    const keys = buildTimeline([said("a", "fiona", -1), said("b", "fiona", 1_000), said("c", "me", 3_000)], "b").map((item) => item.key);
    expect(new Set(keys).size).toBe(keys.length);
  });
});
