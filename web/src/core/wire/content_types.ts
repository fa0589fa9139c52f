// MIMI message content (draft-ietf-mimi-content-08): the types and the limits. Twin of content_types.py.

import type { Value } from "./cbor";

/** One encoded message. */
export const MESSAGE_BYTES = 64 * 1024;
export const SALT_BYTES = 16;
export const MESSAGE_ID_BYTES = 32;
export const TOPIC_BYTES = 4096;
export const PARTS = 1024;
export const PART_LEVELS = 4;
export const EXTENSION_LEVELS = 4;
/** Furthest relative expiry; more is nonsense (draft, "General handling"). */
export const EXPIRES_SECONDS = 366 * 24 * 3600;
export const URI_BYTES = 0xffff;
/** IANA named-information hash algorithm; also the first octet of a message id. */
export const HASH_SHA256 = 1;

/** What a part is for. Unknown numbers (9 to 255) are kept and treated as RENDER. */
export const Disposition = {
  UNSPECIFIED: 0,
  RENDER: 1,
  REACTION: 2,
  PROFILE: 3,
  INLINE: 4,
  ICON: 5,
  ATTACHMENT: 6,
  SESSION: 7,
  PREVIEW: 8,
} as const;

/** How the parts of a MultiPart belong together. */
export const Semantics = { CHOOSE_ONE: 0, SINGLE_UNIT: 1, PROCESS_ALL: 2 } as const;
export type Semantics = (typeof Semantics)[keyof typeof Semantics];

/** No body: a delete, an unlike, or a message that is all extension. */
export interface NullPart {
  readonly type: "null";
  readonly disposition: number;
  readonly language: string;
}

/** A body inside the message. */
export interface SinglePart {
  readonly type: "single";
  readonly contentType: string;
  readonly content: Uint8Array;
  readonly disposition: number;
  readonly language: string;
}

/**
 * A body kept elsewhere, encrypted under a key of its own. expires: Unix seconds, 0 = never. size: octets of the plain
 * content, 0 = not given. encAlg: IANA AEAD number; 0 = not encrypted, and then key, nonce and aad are empty.
 * contentHash: of the bytes at the url.
 */
export interface ExternalPart {
  readonly type: "external";
  readonly contentType: string;
  readonly url: string;
  readonly expires: number;
  readonly size: number;
  readonly encAlg: number;
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly aad: Uint8Array;
  readonly hashAlg: number;
  readonly contentHash: Uint8Array;
  readonly description: string;
  readonly filename: string;
  readonly disposition: number;
  readonly language: string;
}

/** Two or more parts. */
export interface MultiPart {
  readonly type: "multi";
  readonly semantics: Semantics;
  readonly parts: readonly Part[];
  readonly disposition: number;
  readonly language: string;
}

export type Part = NullPart | SinglePart | ExternalPart | MultiPart;
export type ExtensionKey = number | string;
export type Extensions = ReadonlyMap<ExtensionKey, Value>;

/** relative: seconds after reading; otherwise Unix seconds. */
export interface Expiry {
  readonly relative: boolean;
  readonly time: number;
}

/**
 * One message as the people in a conversation exchange it. replaces: id of the first version of the message this one
 * edits or deletes. topicId: empty = none. extensions: by number, kept as they came, known or not.
 */
export interface Message {
  readonly salt: Uint8Array;
  readonly body: Part;
  readonly replaces: Uint8Array | null;
  readonly topicId: Uint8Array;
  readonly expires: Expiry | null;
  readonly inReplyTo: Uint8Array | null;
  readonly extensions: Extensions;
}

export function nullPart(disposition: number = Disposition.RENDER, language = ""): NullPart {
  return { type: "null", disposition, language };
}

export function singlePart(
  contentType: string,
  content: Uint8Array,
  disposition: number = Disposition.RENDER,
  language = "",
): SinglePart {
  return { type: "single", contentType, content, disposition, language };
}

export function externalPart(
  contentType: string,
  url: string,
  rest: Partial<Omit<ExternalPart, "type" | "contentType" | "url">> = {},
): ExternalPart {
  const empty = new Uint8Array();
  return {
    type: "external",
    contentType,
    url,
    expires: 0,
    size: 0,
    encAlg: 0,
    key: empty,
    nonce: empty,
    aad: empty,
    hashAlg: 0,
    contentHash: empty,
    description: "",
    filename: "",
    disposition: Disposition.ATTACHMENT,
    language: "",
    ...rest,
  };
}

export function multiPart(
  semantics: Semantics,
  parts: readonly Part[],
  disposition: number = Disposition.RENDER,
  language = "",
): MultiPart {
  return { type: "multi", semantics, parts, disposition, language };
}
