// Message content against the draft's examples and the vectors shared with Python.

import { describe, expect, it } from "vitest";
import { isCurbsideError } from "../errors";
import * as cbor from "./cbor";
import * as content from "./content";
import { SHAPES } from "./content_clinical";
import { decodeReport, encodeReport } from "./status";
import { fromHex, listFiles, readBytes, readJson, seeded, toHex } from "../testing/vectors";

interface Refused {
  readonly name: string;
  readonly hex: string;
  readonly error: string;
}
interface Valid {
  readonly name: string;
  readonly hex: string;
  readonly message: unknown;
  readonly clinical: readonly Readonly<Record<string, unknown>>[];
  readonly kind: string;
  readonly body_text: string;
  readonly fallback_text: string;
  readonly attachments: unknown;
  readonly message_id: string;
}
interface ValidReport {
  readonly name: string;
  readonly hex: string;
  readonly statuses: readonly (readonly [string, number])[];
}

const valid = readJson<readonly Valid[]>("content/valid.json");
const invalid = readJson<readonly Refused[]>("content/invalid.json");
const reports = readJson<{ valid: readonly ValidReport[]; invalid: readonly Refused[] }>("content/reports.json");
const plain = readJson<{ valid: readonly string[]; invalid: readonly string[] }>("content/cbor.json");
const draftIds = readJson<Readonly<Record<string, string>>>("content/draft/message_ids.json");

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function describeMessage(message: content.Message): unknown {
  return {
    salt: toHex(message.salt),
    replaces: message.replaces && toHex(message.replaces),
    topic_id: toHex(message.topicId),
    expires: message.expires && [message.expires.relative, message.expires.time],
    in_reply_to: message.inReplyTo && toHex(message.inReplyTo),
    extensions: [...message.extensions].map(([key, value]) => [key, toHex(cbor.encode(value))]),
    body: describePart(message.body),
  };
}

function describePart(part: content.Part): unknown {
  const told = Object.entries(part).map(([name, value]: [string, unknown]) => {
    if (name === "parts") return [name, (part as content.MultiPart).parts.map(describePart)];
    return [snake(name), value instanceof Uint8Array ? toHex(value) : value];
  });
  return Object.fromEntries(told);
}

function describeClinical(message: content.Message): unknown {
  const found = (Object.keys(SHAPES) as content.ClinicalName[]).flatMap((name): content.Clinical[] => {
    if (name === "picture") return [...content.listPictures(message)];
    return [content.findExtension(message, name) ?? []].flat();
  });
  return found.map((item) => {
    const told = Object.entries(item).map(([name, value]: [string, unknown]) => {
      const className = typeof value === "string" ? value.charAt(0).toUpperCase() + value.slice(1) : value;
      return name === "extension" ? [name, className] : [snake(name), value];
    });
    return Object.fromEntries(told);
  });
}

function expectCode(act: () => unknown, code: string): void {
  try {
    act();
  } catch (error) {
    if (!isCurbsideError(error)) throw error;
    expect(error.code).toBe(code);
    return;
  }
  expect.unreachable("it was accepted");
}

describe("the draft's examples", () => {
  it("are all tried", () => {
    expect(Object.keys(draftIds).length).toBeGreaterThanOrEqual(14);
    const files = listFiles("content/draft/").filter((name) => name.endsWith(".cbor"));
    expect(files.sort()).toEqual([...Object.keys(draftIds), "implied-original.cbor"].sort());
  });

  it.each(Object.entries(draftIds))("%s comes back as the same bytes, with the draft's id", async (name, id) => {
    const data = readBytes(`content/draft/${name}`);
    const message = content.decode(data);
    expect(toHex(content.encode(message))).toBe(toHex(data));
    const [sender, room] = [message.extensions.get(1), message.extensions.get(2)];
    expect(toHex(await content.messageId(data, sender as string, room as string))).toBe(id);
  });

  it("of derived values is no message", () => {
    expectCode(() => content.decode(readBytes("content/draft/implied-original.cbor")), "malformed");
  });
});

describe("shared vectors", () => {
  it("are there", () => {
    expect(Math.min(valid.length, invalid.length, plain.valid.length, plain.invalid.length)).toBeGreaterThan(40);
  });

  it.each(valid)("$name reads as described", async (vector) => {
    const data = fromHex(vector.hex);
    const message = content.decode(data);
    expect(toHex(content.encode(message))).toBe(vector.hex);
    expect(describeMessage(message)).toEqual(vector.message);
    expect(describeClinical(message)).toEqual(vector.clinical);
    expect(content.kind(message)).toBe(vector.kind);
    expect(content.bodyText(message)).toBe(vector.body_text);
    expect(content.fallbackText(message)).toBe(vector.fallback_text);
    const attachments = content
      .attachments(message)
      .map((item) => [item.part.url, item.index, item.width, item.height, item.preview && toHex(item.preview.content)]);
    expect(attachments).toEqual(vector.attachments);
    const id = await content.messageId(data, content.userUri("alice"), content.conversationUri("ward"));
    expect(toHex(id)).toBe(vector.message_id);
  });

  it.each(invalid)("$name is refused as $error", ({ hex, error }) => {
    expectCode(() => content.decode(fromHex(hex)), error);
  });

  it.each(reports.valid)("report $name reads as described", ({ hex, statuses }) => {
    const report = decodeReport(fromHex(hex));
    expect(report.map(([message, status]) => [toHex(message), status])).toEqual(statuses);
    expect(toHex(encodeReport(report))).toBe(hex);
  });

  it.each(reports.invalid)("report $name is refused as $error", ({ hex, error }) => {
    expectCode(() => decodeReport(fromHex(hex)), error);
  });

  it.each(plain.valid)("CBOR %s comes back as the same bytes", (hex) => {
    expect(toHex(cbor.encode(cbor.decode(fromHex(hex))))).toBe(hex);
  });

  it.each(plain.invalid)("CBOR '%s' is refused", (hex) => {
    expectCode(() => cbor.decode(fromHex(hex)), "malformed");
  });
});

// --- the same constructors make the same bytes -------------------------------------------------------------------------

const salt = Uint8Array.from({ length: 16 }, (_, i) => i);
const target = Uint8Array.from([1, ...Array.from({ length: 31 }, (_, i) => i)]);
const other = Uint8Array.from([1, ...Array.from({ length: 31 }, (_, i) => i + 100)]);
const run = (from: number): Uint8Array => Uint8Array.from({ length: 32 }, (_, i) => from + i);
const described = { contentType: "image/webp", size: 123456, key: run(0), contentHash: run(32), filename: "IMG.webp" };
const picture = content.blob("0f3c", described);
const thumbnail = content.singlePart("image/webp", new TextEncoder().encode("RIFF-thumbnail"));
const size = { width: 4000, height: 3000 };
const file = (contentType: string, filename: string): content.ExternalPart =>
  content.blob("77", { contentType, filename, size: 9, key: new Uint8Array(32), contentHash: new Uint8Array(32) });
const patient: content.Patient = {
  extension: "patient",
  identifier: "4711",
  system: "urn:oid:2.16.840.1",
  name: "Ada Muster",
  birthDate: "1950-01-02",
  location: "4 West, bed 12",
};
const sbar = {
  situation: "Fast AF, BP 85/50",
  background: "Mitral repair 2019",
  assessment: "Unstable",
  recommendation: "Cardiovert?",
  specialty: "Cardiology",
};
const priority = (level: number): content.Priority => ({ extension: "priority", level });
const given = {
  decision: content.CONSENT_GIVEN,
  scope: content.SCOPE_PHOTO,
  givenBy: "patient",
  recordedAt: 1790000000,
  note: "verbal",
};
const heel: content.BodySite = {
  extension: "bodySite",
  display: "heel",
  code: "76853006",
  system: "http://snomed.info/sct",
  side: content.LEFT,
};

const made: Readonly<Record<string, () => content.Message>> = {
  text: () => content.text("Café ☕ at 3?", { salt }),
  "text-empty": () => content.text("", { salt }),
  "text-lone-surrogate": () => content.text("half \ud83d", { salt }),
  "text-bom": () => content.text("\ufeffbom", { salt }),
  markdown: () => content.markdown("**stat** please", { salt }),
  reply: () => content.text("Yes", { inReplyTo: target, salt }),
  "topic-expiry": () =>
    content.text("x", { topicId: Uint8Array.of(116), expires: { relative: true, time: 86400 }, salt }),
  "expiry-absolute": () => content.text("x", { expires: { relative: false, time: 4294967295 }, salt }),
  reaction: () => content.reaction("👍🏽", target, { salt }),
  "reaction-changed": () => content.reaction("🙏", target, { replaces: other, salt }),
  edit: () => content.edit(target, "5 mg, not 50 mg", { inReplyTo: other, salt }),
  delete: () => content.remove(target, { salt }),
  null: () => content.message(content.nullPart(), { salt }),
  status: () =>
    content.statusReport(
      [
        [target, content.Status.DELIVERED],
        [other, content.Status.READ],
      ],
      { salt },
    ),
  title: () => content.conversationTitle("Ward 4 nights", { salt }),
  photo: () => content.photo(picture, { ...size, caption: "Left heel", thumbnail }, { salt }),
  "photo-plain": () => content.photo(picture, size, { salt }),
  "photo-caption": () => content.photo(picture, { ...size, caption: "Left heel" }, { salt }),
  "photo-thumbnail": () => content.photo(picture, { ...size, thumbnail }, { salt }),
  attachment: () => content.attachment(file("application/pdf", "ECG.pdf"), "", { salt }),
  "attachment-caption": () => content.attachment(file("application/pdf", ""), "ECG from 10:40", { salt }),
  priority: () => content.text("BP 70/40", { clinical: [priority(content.EMERGENCY)], salt }),
  "ack-request": () => content.text("K 6.9", { clinical: [{ extension: "ackRequest", withinSeconds: 900 }], salt }),
  "ack-request-open": () => content.text("K 6.9", { clinical: [{ extension: "ackRequest" }], salt }),
  acknowledgement: () => content.acknowledge(target, content.ACCEPTED, "on my way", { salt }),
  "acknowledgement-later": () => content.acknowledge(target, 77, "", { salt }),
  patient: () => content.text("Ready to go home?", { clinical: [patient], salt }),
  consult: () => content.consult(sbar, { clinical: [priority(content.URGENT), patient], salt }),
  "consult-short": () => content.consult({ situation: "New murmur" }, { salt }),
  task: () =>
    content.task({ title: "Repeat K", state: content.TASK_OPEN, assignee: "Dr. Ito", due: 1900000000 }, { salt }),
  "task-done": () => content.task({ title: "Repeat K", state: content.TASK_DONE }, { replaces: target, salt }),
  consent: () => content.consent(given, { salt }),
  "body-site": () => content.photo(picture, { width: 3, height: 4 }, { clinical: [heel], salt }),
};

describe("constructors", () => {
  it.each(Object.keys(made))("%s makes the bytes that Python makes", (name) => {
    const vector = valid.find((found) => found.name === name);
    expect(toHex(content.encode((made[name] as () => content.Message)()))).toBe(vector?.hex);
  });

  it("salt every message anew", () => {
    expect(toHex(content.text("same").salt)).not.toBe(toHex(content.text("same").salt));
  });

  it("refuse a preview over its limit", () => {
    const large = content.singlePart("image/webp", new Uint8Array(content.THUMBNAIL_BYTES + 1));
    expectCode(() => content.photo(picture, { ...size, thumbnail: large }), "too_large");
  });
});

describe("limits", () => {
  const filled = (length: number): content.Message =>
    content.message(content.singlePart(content.PLAIN, new Uint8Array(length)), { salt });

  it("let a message of just the limit through, and not one octet more", () => {
    const overhead = content.encode(filled(60_000)).length - 60_000;
    const full = content.encode(filled(content.MESSAGE_BYTES - overhead));
    expect(full.length).toBe(content.MESSAGE_BYTES);
    expect(content.decode(full).body.type).toBe("single");
    expectCode(() => content.encode(filled(content.MESSAGE_BYTES - overhead + 1)), "too_large");
  });

  it("are kept by encode as well as by decode", () => {
    const message = content.text("x");
    const wrong: readonly content.Message[] = [
      { ...message, salt: new Uint8Array(15) },
      { ...message, replaces: new Uint8Array(32) },
      { ...message, topicId: new Uint8Array(4097) },
      { ...message, expires: { relative: true, time: 2 ** 31 } },
      { ...message, extensions: new Map([[0, 1]]) },
      { ...message, extensions: new Map([["\ud800", 1]]) },
      { ...message, extensions: new Map([[2 ** 53, 1]]) },
      { ...message, extensions: new Map([[-7, 1.5]]) },
      { ...message, extensions: new Map([[-7, 1n << 64n]]) },
      { ...message, extensions: new Map([[-7, [[[[1]]]]]]) },
      { ...message, extensions: new Map([[-4201, 1]]) },
      { ...message, body: content.singlePart("text/plain", new Uint8Array(), 256) },
      { ...message, body: content.externalPart("text/plain", "") },
      { ...message, body: content.multiPart(content.Semantics.CHOOSE_ONE, [content.nullPart()]) },
    ];
    for (const one of wrong) expectCode(() => content.encode(one), "malformed");
  });

  it("refuse an absolute expiry years from now", () => {
    const message = content.text("x", { expires: { relative: false, time: 2_000_000_000 } });
    content.checkExpiry(message, 2_000_000_000 - 86_400);
    for (const now of [1_900_000_000, 2_100_000_000]) expectCode(() => content.checkExpiry(message, now), "malformed");
  });
});

describe("hostile bytes", () => {
  const known = (act: () => unknown): boolean => {
    try {
      act();
      return true;
    } catch (error) {
      if (isCurbsideError(error, "malformed") || isCurbsideError(error, "too_large")) return false;
      throw error;
    }
  };
  const readAll = (data: Uint8Array): void => {
    const message = content.decode(data);
    expect(toHex(content.encode(message))).toBe(toHex(data));
    content.kind(message);
    content.bodyText(message);
    content.attachments(message);
    content.fallbackText(message);
    known(() => content.report(message));
  };

  it("bring only typed errors when random", () => {
    const random = seeded(20_260_101);
    for (let round = 0; round < 3000; round++) {
      const data = Uint8Array.from({ length: random(200) }, () => random(256));
      known(() => readAll(data));
      known(() => cbor.decode(data));
      known(() => decodeReport(data));
    }
  });

  it("bring only typed errors when a message is damaged", () => {
    const random = seeded(7);
    let accepted = 0;
    for (let round = 0; round < 4000; round++) {
      const vector = valid[random(valid.length)] as Valid;
      const data = fromHex(vector.hex);
      const at = random(data.length);
      const more = Uint8Array.from({ length: random(4) }, () => random(256));
      const damaged = Uint8Array.from([...data.subarray(0, at), ...more, ...data.subarray(at + random(4))]);
      if (known(() => readAll(damaged))) accepted++;
    }
    expect(accepted).toBeGreaterThan(0);
  });
});
