// Checks of unpacked values, for the generated readers. Each gives the value with its type or throws `malformed`.

import { malformed } from "../errors";

export type Reader<T> = (value: unknown) => T;

export const text: Reader<string> = (value) => {
  if (typeof value !== "string") throw malformed("frame: text was expected");
  return value;
};

export const integer: Reader<number> = (value) => {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) throw malformed("frame: an integer was expected");
  return value;
};

export const boolean: Reader<boolean> = (value) => {
  if (typeof value !== "boolean") throw malformed("frame: true or false was expected");
  return value;
};

export const bytes: Reader<Uint8Array> = (value) => {
  if (!(value instanceof Uint8Array)) throw malformed("frame: bytes were expected");
  return value;
};

export const nothing: Reader<null> = (value) => {
  if (value !== null) throw malformed("frame: null was expected");
  return value;
};

/** An array of `least` items or more: fields that a newer peer adds at the end are passed over. */
export function tuple(value: unknown, least: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length < least) throw malformed("frame: an array was expected, or is too short");
  return value;
}

export function list<T>(item: Reader<T>): Reader<readonly T[]> {
  return (value) => tuple(value, 0).map((found) => item(found));
}

export function record<T>(item: Reader<T>): Reader<Readonly<Record<string, T>>> {
  return (value) => {
    if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || Array.isArray(value))
      throw malformed("frame: a map was expected");
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) throw malformed("frame: a map was expected");
    return Object.fromEntries(Object.entries(value).map(([name, found]) => [name, item(found)]));
  };
}

/** The first of these readers that takes the value. */
export function either<T extends readonly unknown[]>(...readers: { [I in keyof T]: Reader<T[I]> }): Reader<T[number]> {
  return (value) => {
    for (const reader of readers) {
      try {
        return reader(value);
      } catch {
        continue;
      }
    }
    throw malformed("frame: a value of another type was expected");
  };
}
