import { describe, expect, it } from "vitest";
import type { ConversationRow } from "../../bridge/types";
import { filterRows } from "./search";

function row(title: string, members: string[]): ConversationRow {
  const people = members.map((name) => ({ userId: name, name, role: "nurse" }));
  return { id: title, kind: "group", title, members: people, lastText: "", lastAt: 0, lastIsMine: false, unread: 0, draft: "" };
}

const rows = [row("Inês Carvalho", ["Inês Carvalho"]), row("Ward 7 nights", ["Fiona Wu", "Jun Lee"])];
const found = (query: string): string[] => filterRows(rows, query).map((one) => one.title);

describe("filterRows", () => {
  it("keeps all for an empty search", () => expect(found("  ")).toHaveLength(2));
  it("ignores accents and case", () => expect(found("INES")).toEqual(["Inês Carvalho"]));
  it("finds a group by its members", () => expect(found("fio")).toEqual(["Ward 7 nights"]));
  it("wants every word, at the start of a word", () => {
    expect(found("jun 7")).toEqual(["Ward 7 nights"]);
    expect(found("jun carvalho")).toEqual([]);
    expect(found("arvalho")).toEqual([]);
  });
});
