// Curbside's extensions of MIMI content. The table of numbers and shapes, and its rules, are in content_clinical.py;
// SHAPES is the same table. Names here are camelCase; an absent field is undefined.

import { malformed } from "../errors";
import { isArray, type Key, type Value } from "./cbor";
import type { ExtensionKey, Message } from "./content_types";

export const [ROUTINE, URGENT, EMERGENCY] = [1, 2, 3] as const;
export const [SEEN, ACCEPTED, DECLINED] = [1, 2, 3] as const;
export const [TASK_OPEN, TASK_ACCEPTED, TASK_DONE, TASK_CANCELLED] = [1, 2, 3, 4] as const;
export const [CONSENT_GIVEN, CONSENT_REFUSED, CONSENT_WITHDRAWN] = [1, 2, 3] as const;
export const [SCOPE_PHOTO, SCOPE_TEACHING, SCOPE_RESEARCH, SCOPE_MESSAGING] = [1, 2, 3, 4] as const;
export const [LEFT, RIGHT, BOTH] = [1, 2, 3] as const;

/** How soon the message wants eyes. */
export interface Priority {
  readonly extension: "priority";
  readonly level: number;
}

/** The sender wants an answer by hand. */
export interface AckRequest {
  readonly extension: "ackRequest";
  readonly withinSeconds?: number;
}

/** The answer to an AckRequest. */
export interface Acknowledgement {
  readonly extension: "acknowledgement";
  readonly response: number;
  readonly note?: string;
}

/** Whom the message is about. system: URI of what assigns the identifier (FHIR Identifier.system). */
export interface Patient {
  readonly extension: "patient";
  readonly identifier: string;
  readonly system?: string;
  readonly name?: string;
  readonly birthDate?: string;
  readonly location?: string;
}

/** A consult request: situation, background, assessment, recommendation. */
export interface Consult {
  readonly extension: "consult";
  readonly situation: string;
  readonly background?: string;
  readonly assessment?: string;
  readonly recommendation?: string;
  readonly specialty?: string;
}

/** Something to do. A later state is an edit of the message. due: Unix seconds. */
export interface Task {
  readonly extension: "task";
  readonly title: string;
  readonly state: number;
  readonly assignee?: string;
  readonly due?: number;
}

/** What the patient (or who speaks for the patient) said yes or no to. recordedAt: Unix seconds. */
export interface Consent {
  readonly extension: "consent";
  readonly decision: number;
  readonly scope: number;
  readonly givenBy?: string;
  readonly recordedAt?: number;
  readonly note?: string;
}

/** Where on the body. system: code system's URI, for example http://snomed.info/sct. */
export interface BodySite {
  readonly extension: "bodySite";
  readonly display: string;
  readonly code?: string;
  readonly system?: string;
  readonly side?: number;
}

/** The conversation's title from here on. */
export interface Title {
  readonly extension: "title";
  readonly title: string;
}

/** Size of a picture before it is fetched, so that nothing shifts. part, preview: part indexes. */
export interface Picture {
  readonly extension: "picture";
  readonly part: number;
  readonly width: number;
  readonly height: number;
  readonly preview?: number;
}

export type Clinical =
  | Priority
  | AckRequest
  | Acknowledgement
  | Patient
  | Consult
  | Task
  | Consent
  | BodySite
  | Title
  | Picture;
export type ClinicalName = Clinical["extension"];
export type ClinicalOf<N extends ClinicalName> = Extract<Clinical, { readonly extension: N }>;

type FieldsOf<N extends ClinicalName> = Exclude<keyof ClinicalOf<N>, "extension">;
type Field = readonly [number: number, type: "number" | "string", presence: "required" | "optional"];
interface Shape<N extends ClinicalName> {
  readonly key: number;
  readonly fields: Readonly<Record<FieldsOf<N>, Field>>;
}

export const SHAPES: { readonly [N in ClinicalName]: Shape<N> } = {
  priority: { key: -4201, fields: { level: [1, "number", "required"] } },
  ackRequest: { key: -4202, fields: { withinSeconds: [1, "number", "optional"] } },
  acknowledgement: {
    key: -4203,
    fields: { response: [1, "number", "required"], note: [2, "string", "optional"] },
  },
  patient: {
    key: -4204,
    fields: {
      identifier: [1, "string", "required"],
      system: [2, "string", "optional"],
      name: [3, "string", "optional"],
      birthDate: [4, "string", "optional"],
      location: [5, "string", "optional"],
    },
  },
  consult: {
    key: -4205,
    fields: {
      situation: [1, "string", "required"],
      background: [2, "string", "optional"],
      assessment: [3, "string", "optional"],
      recommendation: [4, "string", "optional"],
      specialty: [5, "string", "optional"],
    },
  },
  task: {
    key: -4206,
    fields: {
      title: [1, "string", "required"],
      state: [2, "number", "required"],
      assignee: [3, "string", "optional"],
      due: [4, "number", "optional"],
    },
  },
  consent: {
    key: -4207,
    fields: {
      decision: [1, "number", "required"],
      scope: [2, "number", "required"],
      givenBy: [3, "string", "optional"],
      recordedAt: [4, "number", "optional"],
      note: [5, "string", "optional"],
    },
  },
  bodySite: {
    key: -4208,
    fields: {
      display: [1, "string", "required"],
      code: [2, "string", "optional"],
      system: [3, "string", "optional"],
      side: [4, "number", "optional"],
    },
  },
  title: { key: -4209, fields: { title: [1, "string", "required"] } },
  picture: {
    key: -4210,
    fields: {
      part: [1, "number", "required"],
      width: [2, "number", "required"],
      height: [3, "number", "required"],
      preview: [4, "number", "optional"],
    },
  },
};
const NAMES = Object.keys(SHAPES) as ClinicalName[];
const KNOWN_KEYS: ReadonlySet<ExtensionKey> = new Set(NAMES.map((name) => SHAPES[name].key));

/** The message with these extensions beside, or instead of, those it has. */
export function withExtensions(message: Message, ...extensions: readonly Clinical[]): Message {
  const found = new Map(message.extensions);
  const pictures: Value[] = [];
  for (const extension of extensions) {
    if (extension.extension === "picture") pictures.push(toMap(extension));
    else found.set(SHAPES[extension.extension].key, toMap(extension));
  }
  if (pictures.length > 0) found.set(SHAPES.picture.key, pictures);
  return { ...message, extensions: found };
}

/** The message's extension of this name, if it has one; of pictures the first. Throws `malformed` on a wrong shape. */
export function findExtension<N extends ClinicalName>(message: Message, name: N): ClinicalOf<N> | undefined {
  const value = message.extensions.get(SHAPES[name].key);
  if (value === undefined || value === null) return undefined;
  if (name === "picture") return listPictures(message)[0] as ClinicalOf<N> | undefined;
  return fromMap(name, value);
}

/** All picture entries. Throws `malformed` on a wrong shape. */
export function listPictures(message: Message): readonly Picture[] {
  const value = message.extensions.get(SHAPES.picture.key) ?? [];
  if (!isArray(value)) throw malformed("extension: an array was expected");
  return value.map((item) => fromMap("picture", item));
}

/** Every extension of the table has its shape. Throws `malformed` if one has not. */
export function checkExtensions(message: Message): void {
  for (const name of NAMES) {
    if (message.extensions.get(SHAPES[name].key) === null) throw malformed("extension: a map was expected");
    findExtension(message, name);
  }
}

/** Whether a newer Curbside put something in that this one cannot show. */
export function hasUnknownExtension(message: Message): boolean {
  const isOurs = (key: ExtensionKey): boolean => typeof key === "number" && key >= -4299 && key <= -4200;
  return [...message.extensions.keys()].some((key) => isOurs(key) && !KNOWN_KEYS.has(key));
}

function fieldsOf(name: ClinicalName): [string, Field][] {
  return Object.entries(SHAPES[name].fields);
}

function toMap(extension: Clinical): ReadonlyMap<Key, Value> {
  const values = extension as unknown as Readonly<Record<string, string | number | undefined>>;
  const found = new Map<Key, Value>();
  for (const [name, [number, , presence]] of fieldsOf(extension.extension)) {
    const value = values[name];
    if (value === undefined && presence === "required") throw malformed("extension: a field is missing");
    if (value !== undefined && (presence === "required" || value !== "")) found.set(number, value);
  }
  return found;
}

function fromMap<N extends ClinicalName>(wanted: N, value: Value): ClinicalOf<N> {
  if (!(value instanceof Map)) throw malformed("extension: a map was expected");
  const found: Record<string, unknown> = { extension: wanted };
  for (const [name, [number, type, presence]] of fieldsOf(wanted)) {
    const item: unknown = value.get(number);
    if (item === undefined) {
      if (presence === "required") throw malformed("extension: a field is missing");
      continue;
    }
    if (type === "string" && typeof item !== "string") throw malformed("extension: text was expected");
    if (type === "number" && !(Number.isSafeInteger(item) && (item as number) >= 0))
      throw malformed("extension: a number from 0 to 2^53 - 1 was expected");
    found[name] = item;
  }
  return found as unknown as ClinicalOf<N>;
}
