// Reading messages: what kind one is, its text, its attachments, and a plain form. Twin of content_read.py: same strings.

import * as clinical from "./content_clinical";
import { Disposition, type ExternalPart, type Message, type Part, Semantics, type SinglePart } from "./content_types";
import { decodeReport, MEDIA_TYPE, type Report } from "./status";

/** What a message does. An unlike is a "delete" of a reaction; a task's new state is an "edit". */
export type Kind =
  | "text"
  | "photo"
  | "attachment"
  | "reaction"
  | "edit"
  | "delete"
  | "status"
  | "title"
  | "acknowledgement"
  | "consult"
  | "task"
  | "consent"
  | "session"
  | "empty"
  | "unknown";

const KINDS = ["title", "acknowledgement", "consult", "task", "consent"] as const;
const READABLE: readonly string[] = ["text/plain", "text/markdown"];
/** Dispositions of nested parts that are not the message's own words. */
const ASIDE: readonly number[] = [
  Disposition.ICON,
  Disposition.ATTACHMENT,
  Disposition.PREVIEW,
  Disposition.PROFILE,
];

/**
 * An external part with what the message says about it. index: part index. width, height: 0 = not given. preview: the
 * small picture that came inside the message.
 */
export interface Attachment {
  readonly part: ExternalPart;
  readonly index: number;
  readonly width: number;
  readonly height: number;
  readonly preview: SinglePart | null;
}

/** What the message does. */
export function kind(message: Message): Kind {
  const { body } = message;
  if (message.replaces && body.type === "null") return "delete";
  if (body.disposition === Disposition.REACTION) return "reaction";
  if (message.replaces) return "edit";
  if (body.type === "single" && mediaType(body) === MEDIA_TYPE) return "status";
  for (const name of KINDS) if (message.extensions.has(clinical.SHAPES[name].key)) return name;
  return kindOfBody(message);
}

function kindOfBody(message: Message): Kind {
  const { body } = message;
  if (body.disposition === Disposition.SESSION) return "session";
  const [first] = attachments(message);
  if (first) return mediaType(first.part).startsWith("image/") ? "photo" : "attachment";
  if (bodyText(message) || (body.type === "single" && READABLE.includes(mediaType(body)))) return "text";
  return body.type === "null" ? "empty" : "unknown";
}

/** Type and subtype in lower case, without parameters. */
export function mediaType(part: SinglePart | ExternalPart): string {
  const [type = ""] = part.contentType.split(";", 1);
  return type.replace(/^[ \t]+|[ \t]+$/g, "").toLowerCase();
}

/**
 * The words of the message (of a photo: its caption; of a reaction: the emoji); "" if it has none. Plain text and
 * Markdown are read, as UTF-8 with U+FFFD for what is none; of parts to choose from, the first.
 */
export function bodyText(message: Message): string {
  return textOf(message.body);
}

function textOf(part: Part): string {
  if (part.type === "single")
    return READABLE.includes(mediaType(part)) ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(part.content) : "";
  if (part.type !== "multi") return "";
  const own = part.parts.filter((nested) => !ASIDE.includes(nested.disposition));
  const texts = own.map(textOf).filter((text) => text !== "");
  return (part.semantics === Semantics.CHOOSE_ONE ? texts.slice(0, 1) : texts).join("\n");
}

/** All parts in the order of their part index: depth first, from 0. */
export function numberedParts(message: Message): readonly Part[] {
  const walk = (part: Part): Part[] => (part.type === "multi" ? [part, ...part.parts.flatMap(walk)] : [part]);
  return walk(message.body);
}

/** The external parts that are files or pictures, in order; of alternatives all are listed. */
export function attachments(message: Message): readonly Attachment[] {
  const parts = numberedParts(message);
  const pictures = new Map(clinical.listPictures(message).map((picture) => [picture.part, picture]));
  return parts.flatMap((part, index) => {
    if (part.type !== "external" || part.disposition === Disposition.SESSION) return [];
    const picture = pictures.get(index);
    const preview = picture?.preview === undefined ? undefined : parts[picture.preview];
    const inside = preview?.type === "single" ? preview : null;
    return [{ part, index, width: picture?.width ?? 0, height: picture?.height ?? 0, preview: inside }];
  });
}

/** The statuses of a message of kind "status"; empty for any other. Throws `malformed` if the report cannot be read. */
export function report(message: Message): Report {
  if (message.body.type !== "single" || kind(message) !== "status") return [];
  return decodeReport(message.body.content);
}

// --- the plain form --------------------------------------------------------------------------------------------------

type Words = Readonly<Record<number, string>>;
const LEVELS: Words = { [clinical.URGENT]: "URGENT", [clinical.EMERGENCY]: "EMERGENCY" };
const RESPONSES: Words = {
  [clinical.SEEN]: "Seen",
  [clinical.ACCEPTED]: "Accepted",
  [clinical.DECLINED]: "Declined",
};
const STATES: Words = {
  [clinical.TASK_OPEN]: "open",
  [clinical.TASK_ACCEPTED]: "accepted",
  [clinical.TASK_DONE]: "done",
  [clinical.TASK_CANCELLED]: "cancelled",
};
const DECISIONS: Words = {
  [clinical.CONSENT_GIVEN]: "given",
  [clinical.CONSENT_REFUSED]: "refused",
  [clinical.CONSENT_WITHDRAWN]: "withdrawn",
};
const SCOPES: Words = {
  [clinical.SCOPE_PHOTO]: "photo for care",
  [clinical.SCOPE_TEACHING]: "teaching",
  [clinical.SCOPE_RESEARCH]: "research",
  [clinical.SCOPE_MESSAGING]: "messaging",
};
const SIDES: Words = { [clinical.LEFT]: "left", [clinical.RIGHT]: "right", [clinical.BOTH]: "both sides" };
export const NEWER = "This message has a part that needs a newer version of Curbside.";

/**
 * The message as plain lines, for notifications, lists, exports and clients without a better form. "" for what has
 * nothing to say to a person (a status report).
 */
export function fallbackText(message: Message): string {
  const found = kind(message);
  if (found === "status") return "";
  if (found === "delete") return "Message deleted.";
  const lines = [
    ...(found === "reaction" ? ["Reaction:"] : []),
    ...extensionLines(message, "priority"),
    ...words(message),
    ...attachments(message).map((item) => attachmentLine(item.part)),
    ...extensionLines(message, "patient"),
    ...extensionLines(message, "bodySite"),
    ...extensionLines(message, "ackRequest"),
    ...(clinical.hasUnknownExtension(message) ? [NEWER] : []),
  ];
  if (found === "reaction") return lines.join(" ");
  return lines.join("\n") || (found === "empty" ? "Empty message." : NEWER);
}

function words(message: Message): string[] {
  const own = bodyText(message);
  if (own) return [own];
  const { body } = message;
  if (body.type === "external" && body.disposition === Disposition.SESSION) return [body.description || "Call"];
  return KINDS.flatMap((name) => extensionLines(message, name));
}

function extensionLines(message: Message, name: clinical.ClinicalName): string[] {
  const found = clinical.findExtension(message, name);
  return found ? describe(found) : [];
}

function attachmentLine(part: ExternalPart): string {
  const what = mediaType(part).startsWith("image/") ? "Photo" : "File";
  return join(": ", what, part.description || part.filename);
}

/** An extension as plain lines. */
export function describe(extension: clinical.Clinical): string[] {
  switch (extension.extension) {
    case "priority":
      return [LEVELS[extension.level] ?? []].flat();
    case "ackRequest": {
      const within = extension.withinSeconds;
      return [within ? `Please acknowledge within ${duration(within)}.` : "Please acknowledge."];
    }
    case "acknowledgement":
      return [join(": ", RESPONSES[extension.response] ?? "Acknowledged", extension.note)];
    case "patient":
      return [describePatient(extension)];
    case "consult":
      return describeConsult(extension);
    case "task": {
      const whom = extension.assignee && `for ${extension.assignee}`;
      return [join(", ", `Task: ${extension.title}`, STATES[extension.state], whom)];
    }
    case "consent":
      return [describeConsent(extension)];
    case "bodySite":
      return [join(", ", `Body site: ${extension.display}`, SIDES[extension.side ?? 0])];
    case "title":
      return [`Conversation title: ${extension.title}`];
    case "picture":
      return [];
  }
}

function describePatient(patient: clinical.Patient): string {
  const born = patient.birthDate && `born ${patient.birthDate}`;
  return `Patient: ${join(", ", patient.name, born, patient.identifier, patient.location)}`;
}

function describeConsult(request: clinical.Consult): string[] {
  const lines = [join(": ", "Consult request", request.specialty), `Situation: ${request.situation}`];
  if (request.background) lines.push(`Background: ${request.background}`);
  if (request.assessment) lines.push(`Assessment: ${request.assessment}`);
  if (request.recommendation) lines.push(`Recommendation: ${request.recommendation}`);
  return lines;
}

function describeConsent(record: clinical.Consent): string {
  const by = record.givenBy && `by ${record.givenBy}`;
  const decision = `Consent ${DECISIONS[record.decision] ?? "recorded"}`;
  return join(": ", decision, join(", ", SCOPES[record.scope], by, record.note));
}

function duration(seconds: number): string {
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}

function join(separator: string, ...pieces: readonly (string | undefined)[]): string {
  return pieces.filter((piece) => piece).join(separator);
}
