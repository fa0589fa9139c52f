import { describe, expect, it } from "vitest";
import { sniffPicture } from "./sniff";

const bytes = (...parts: (number | string | number[])[]): Uint8Array =>
  Uint8Array.from(
    parts.flatMap((part) =>
      typeof part === "string" ? [...part].map((character) => character.charCodeAt(0)) : part,
    ),
  );
const PNG_HEAD = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13];
const zeros = (count: number): number[] => new Array<number>(count).fill(0);

describe("sniffPicture", () => {
  it.each([
    ["png", bytes(PNG_HEAD, "IHDR", [0, 0, 2, 0, 0, 0, 1, 0]), "image/png", 512, 256],
    [
      "jpeg with an EXIF segment before the frame",
      bytes([0xff, 0xd8, 0xff, 0xe1, 0, 6, 1, 2, 3, 4, 0xff, 0xc2, 0, 11, 8, 0, 100, 0, 200, 1, 0, 0]),
      "image/jpeg",
      200,
      100,
    ],
    ["webp lossy", bytes("RIFF", zeros(4), "WEBPVP8 ", zeros(10), [64, 1, 240, 0]), "image/webp", 320, 240],
    ["webp extended", bytes("RIFF", zeros(4), "WEBPVP8X", zeros(8), [63, 1, 0, 239, 0, 0]), "image/webp", 320, 240],
    ["webp lossless", bytes("RIFF", zeros(4), "WEBPVP8L", zeros(4), [0x2f, 0x3f, 0xc1, 0x3b, 0], zeros(6)), "image/webp", 320, 240],
  ])("%s", (_, content, type, width, height) => {
    expect(sniffPicture(content)).toEqual({ type, size: { width, height } });
  });

  it("heic has no size before decoding", () => {
    expect(sniffPicture(bytes(zeros(4), "ftypheic"))).toEqual({ type: "image/heic", size: undefined });
  });

  it.each([
    ["nothing", bytes()],
    ["svg", bytes("<svg xmlns='http://www.w3.org/2000/svg'/>")],
    ["html", bytes("<html><script>alert(1)</script>")],
    ["pdf", bytes("%PDF-1.7")],
    ["gif", bytes("GIF89a", zeros(20))],
    ["cut png", bytes(PNG_HEAD)],
    ["jpeg without a frame", bytes([0xff, 0xd8, 0xff, 0xe0, 0, 4, 0, 0, 0xff, 0xd9])],
    ["jpeg whose segments run out of the file", bytes([0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0, 0, 0, 0, 0, 0])],
    ["cut webp", bytes("RIFF", zeros(4), "WEBPVP8 ")],
    ["wave", bytes("RIFF", zeros(4), "WAVEfmt ", zeros(30))],
  ])("refuses %s", (_, content) => {
    expect(sniffPicture(content)).toBeUndefined();
  });

  it("never throws, whatever the bytes", () => {
    let seed = 7;
    const next = (): number => (seed = (seed * 1103515245 + 12345) % 2 ** 31) & 255;
    for (let round = 0; round < 2000; round++) {
      const heads = [PNG_HEAD, [0xff, 0xd8, 0xff], [...bytes("RIFF1234WEBPVP8X")], [...bytes("RIFF1234WEBPVP8L")]];
      const content = Uint8Array.from([...heads[round % 4]!, ...Array.from({ length: next() % 64 }, next)]);
      expect(() => sniffPicture(content)).not.toThrow();
    }
  });
});
