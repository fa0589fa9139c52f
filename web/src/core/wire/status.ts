// Delivery and read reports: `application/mimi-message-status` (draft-mahy-mimi-message-status-01). Twin of status.py.
// A report is a list of [message id, status]; the last status given for a message counts.

import { malformed, tooLarge } from "../errors";
import { decode, encode, isArray, type Value } from "./cbor";
import { MESSAGE_BYTES, MESSAGE_ID_BYTES } from "./content_types";

export const MEDIA_TYPE = "application/mimi-message-status";
/** Messages that one report may name; about 36 KiB. */
export const REPORTED_MESSAGES = 1024;

/** What became of a message on the reporting side. Unknown numbers (7 to 255) are kept. */
export const Status = { UNREAD: 0, DELIVERED: 1, READ: 2, EXPIRED: 3, DELETED: 4, HIDDEN: 5, ERROR: 6 } as const;

export type Report = readonly (readonly [messageId: Uint8Array, status: number])[];

/** The one encoding of a report. Throws `malformed` or `too_large`. */
export function encodeReport(statuses: Report): Uint8Array {
  return encode(readReport(statuses), 2);
}

/** Read a report. Throws `malformed` or `too_large` for anything that `encodeReport` would not have written. */
export function decodeReport(data: Uint8Array): Report {
  if (data.length > MESSAGE_BYTES) throw tooLarge("a report is over its size limit", MESSAGE_BYTES);
  return readReport(decode(data, 2));
}

function readReport(value: Value): Report {
  if (!isArray(value) || value.length === 0) throw malformed("report: one status or more was expected");
  if (value.length > REPORTED_MESSAGES) throw tooLarge("a report names too many messages", REPORTED_MESSAGES);
  return value.map(readStatus);
}

function readStatus(value: Value): readonly [Uint8Array, number] {
  const [message, status, ...more] = isArray(value) ? value : [];
  const isStatus = typeof status === "number" && Number.isInteger(status) && status >= 0 && status <= 255;
  if (!(message instanceof Uint8Array) || message.length !== MESSAGE_ID_BYTES || !isStatus || more.length > 0)
    throw malformed("report: a message id and a status were expected");
  return [message, status];
}
