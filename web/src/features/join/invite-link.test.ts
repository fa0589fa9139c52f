import { describe, expect, it } from "vitest";
import { isInviteLink } from "./invite-link";

const payload = "Ab-_".repeat(27);

describe("isInviteLink", () => {
  it("knows one, with blanks around it", () => {
    expect(isInviteLink(` https://chat.example/#/join/${payload}\n`)).toBe(true);
    expect(isInviteLink(`http://127.0.0.1:8080/#/join/${payload}`)).toBe(true);
  });
  it("refuses what is cut off or something else", () => {
    expect(isInviteLink(`https://chat.example/#/join/${payload.slice(1)}`)).toBe(false);
    expect(isInviteLink("https://chat.example/")).toBe(false);
    expect(isInviteLink("hello")).toBe(false);
  });
});
