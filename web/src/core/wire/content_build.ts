// Making messages: one function for each thing people send. Twin of content_build.py.
//
// Every function takes `Options`. Without a `salt` a message gets a fresh random one; a salt must never be used twice,
// because the message's id hangs on it.

import { tooLarge } from "../errors";
import {
  type Acknowledgement,
  type Clinical,
  type Consent,
  type Consult,
  type Picture,
  type Task,
  withExtensions,
} from "./content_clinical";
import { describe } from "./content_read";
import {
  Disposition,
  type Expiry,
  type ExternalPart,
  externalPart,
  HASH_SHA256,
  type Message,
  multiPart,
  nullPart,
  type Part,
  SALT_BYTES,
  Semantics,
  type SinglePart,
  singlePart,
} from "./content_types";
import { encodeReport, MEDIA_TYPE, type Report } from "./status";

export const PLAIN = "text/plain;charset=utf-8";
export const MARKDOWN = "text/markdown;variant=GFM-MIMI";
/** A preview inside a message. */
export const THUMBNAIL_BYTES = 16 * 1024;
export const BLOB_SCHEME = "curbside-blob:";
/** Our chunked AES-256-GCM (docs/protocol.md, "Blobs"); 0x8000 and up is the IANA registry's private range. */
export const ENC_STREAM_AES_256_GCM = 0x8001;

/** What any message may carry. clinical: extensions; the others as in Message. */
export interface Options {
  readonly salt?: Uint8Array;
  readonly replaces?: Uint8Array;
  readonly topicId?: Uint8Array;
  readonly expires?: Expiry;
  readonly inReplyTo?: Uint8Array;
  readonly clinical?: readonly Clinical[];
}

/** A message around a body. */
export function message(body: Part, options: Options = {}): Message {
  const made: Message = {
    salt: options.salt ?? crypto.getRandomValues(new Uint8Array(SALT_BYTES)),
    body,
    replaces: options.replaces ?? null,
    topicId: options.topicId ?? new Uint8Array(),
    expires: options.expires ?? null,
    inReplyTo: options.inReplyTo ?? null,
    extensions: new Map(),
  };
  return withExtensions(made, ...(options.clinical ?? []));
}

/** A body of text. */
export function textPart(text: string, contentType: string = PLAIN): SinglePart {
  return singlePart(contentType, new TextEncoder().encode(text));
}

/** A plain text; a reply with `inReplyTo`. */
export function text(text: string, options: Options = {}): Message {
  return message(textPart(text), options);
}

/** A text in the draft's Markdown (GFM-MIMI: no HTML). */
export function markdown(text: string, options: Options = {}): Message {
  return message(textPart(text, MARKDOWN), options);
}

/** One reaction to the message `target`. Taken back with `remove` of the reaction's own id. */
export function reaction(emoji: string, target: Uint8Array, options: Options = {}): Message {
  const body = singlePart(PLAIN, new TextEncoder().encode(emoji), Disposition.REACTION);
  return message(body, { ...options, inReplyTo: target });
}

/** A new body for the message whose first version has the id `target`. Pass the original's `inReplyTo` on. */
export function edit(target: Uint8Array, body: string | Part, options: Options = {}): Message {
  return message(typeof body === "string" ? textPart(body) : body, { ...options, replaces: target });
}

/** Retract the message (or reaction) whose first version has the id `target`. Python: `delete`. */
export function remove(target: Uint8Array, options: Options = {}): Message {
  return message(nullPart(), { ...options, replaces: target });
}

/** What became of messages on this side: [message id, Status]. Throws `malformed` or `too_large`. */
export function statusReport(statuses: Report, options: Options = {}): Message {
  return message(singlePart(MEDIA_TYPE, encodeReport(statuses), Disposition.UNSPECIFIED), options);
}

/** size: of the plain file. key: the blob's. contentHash: SHA-256 of the ciphertext. */
export interface BlobDescription {
  readonly contentType: string;
  readonly size: number;
  readonly key: Uint8Array;
  readonly contentHash: Uint8Array;
  readonly filename?: string;
  readonly description?: string;
  readonly disposition?: number;
}

/** An attachment kept as a blob. The nonce is at the head of the ciphertext, so the part has none. */
export function blob(blobId: string, of: BlobDescription): ExternalPart {
  const { contentType, ...rest } = of;
  const sealed = { encAlg: ENC_STREAM_AES_256_GCM, hashAlg: HASH_SHA256 };
  return externalPart(contentType, BLOB_SCHEME + blobId, { ...rest, ...sealed });
}

/** width, height: pixels. thumbnail: a small preview that travels inside the message. */
export interface PhotoDescription {
  readonly width: number;
  readonly height: number;
  readonly caption?: string;
  readonly thumbnail?: SinglePart;
}

/** A picture with its size, a caption and a preview. Throws `too_large` for a preview over THUMBNAIL_BYTES. */
export function photo(external: ExternalPart, of: PhotoDescription, options: Options = {}): Message {
  const { width, height, caption, thumbnail } = of;
  const parts: Part[] = caption ? [textPart(caption)] : [];
  parts.push({ ...external, disposition: Disposition.INLINE });
  if (thumbnail) {
    if (thumbnail.content.length > THUMBNAIL_BYTES) throw tooLarge("a preview is over its size limit", THUMBNAIL_BYTES);
    parts.push(singlePart(thumbnail.contentType, thumbnail.content, Disposition.PREVIEW));
  }
  const [first, ...others] = parts as [Part, ...Part[]];
  const body = others.length === 0 ? first : multiPart(Semantics.PROCESS_ALL, parts);
  const part = others.length === 0 ? 0 : caption ? 2 : 1;
  const picture: Picture = { extension: "picture", part, width, height, ...(thumbnail && { preview: part + 1 }) };
  return message(body, { ...options, clinical: [...(options.clinical ?? []), picture] });
}

/** A file, with a caption if there is one. */
export function attachment(external: ExternalPart, caption = "", options: Options = {}): Message {
  if (!caption) return message(external, options);
  return message(multiPart(Semantics.PROCESS_ALL, [textPart(caption), external]), options);
}

/** Name the conversation from here on; the title is content like any other. */
export function conversationTitle(title: string, options: Options = {}): Message {
  return clinical({ extension: "title", title }, options);
}

/** Answer the acknowledge-request of the message `target`. */
export function acknowledge(target: Uint8Array, response: number, note = "", options: Options = {}): Message {
  const extension: Acknowledgement = { extension: "acknowledgement", response, note };
  return clinical(extension, { ...options, inReplyTo: target });
}

/** Ask for a consult. */
export function consult(request: Omit<Consult, "extension">, options: Options = {}): Message {
  return clinical({ ...request, extension: "consult" }, options);
}

/** Give something to do; a later state is the same with `replaces`. */
export function task(task: Omit<Task, "extension">, options: Options = {}): Message {
  return clinical({ ...task, extension: "task" }, options);
}

/** Put a consent on record. */
export function consent(record: Omit<Consent, "extension">, options: Options = {}): Message {
  return clinical({ ...record, extension: "consent" }, options);
}

/** A message that is an extension, with its readable form as the body for those who do not know it. */
function clinical(extension: Clinical, options: Options): Message {
  const all = [extension, ...(options.clinical ?? [])];
  return message(textPart(describe(extension).join("\n")), { ...options, clinical: all });
}
