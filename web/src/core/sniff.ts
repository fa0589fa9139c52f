// What a picture is, by its bytes: never by its name or by what the sender says. Only headers are read, with bounds.

export type PictureType = "image/jpeg" | "image/png" | "image/webp" | "image/heic";

export interface PictureHead {
  readonly type: PictureType;
  /** Pixels; undefined when only decoding tells (HEIC). */
  readonly size: { readonly width: number; readonly height: number } | undefined;
}

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const HEIC_BRANDS = ["heic", "heix", "hevc", "heim", "heis", "mif1", "msf1"];

/** Undefined for everything that is no JPEG, PNG, WebP or HEIC picture. */
export function sniffPicture(bytes: Uint8Array): PictureHead | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (PNG.every((byte, index) => bytes[index] === byte)) return sniffPng(view);
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return sniffJpeg(view);
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 12) === "WEBP") return sniffWebp(bytes, view);
  if (ascii(bytes, 4, 8) === "ftyp" && HEIC_BRANDS.includes(ascii(bytes, 8, 12)))
    return { type: "image/heic", size: undefined };
  return undefined;
}

function ascii(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, to));
}

/** PNG (W3C PNG, 11.2.1): IHDR is the first chunk. */
function sniffPng(view: DataView): PictureHead | undefined {
  if (view.byteLength < 24 || view.getUint32(12) !== 0x49484452) return undefined;
  return { type: "image/png", size: { width: view.getUint32(16), height: view.getUint32(20) } };
}

/** JPEG (ITU-T T.81, B.2.2): the first frame header, SOF0 to SOF15 without DHT, JPG and DAC. */
function sniffJpeg(view: DataView): PictureHead | undefined {
  let offset = 2;
  while (offset + 9 <= view.byteLength) {
    if (view.getUint8(offset) !== 0xff) return undefined;
    const marker = view.getUint8(offset + 1);
    if (marker === 0xff) {
      offset++;
      continue;
    }
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      return { type: "image/jpeg", size: { width: view.getUint16(offset + 7), height: view.getUint16(offset + 5) } };
    offset += 2 + view.getUint16(offset + 2);
  }
  return undefined;
}

/** WebP (RFC 9649): lossy, lossless and extended. */
function sniffWebp(bytes: Uint8Array, view: DataView): PictureHead | undefined {
  if (bytes.length < 30) return undefined;
  const size = webpSize(ascii(bytes, 12, 16), bytes, view);
  return size && { type: "image/webp", size };
}

function webpSize(chunk: string, bytes: Uint8Array, view: DataView): { width: number; height: number } | undefined {
  const three = (at: number): number => (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16)) + 1;
  if (chunk === "VP8X") return { width: three(24), height: three(27) };
  if (chunk === "VP8 ") return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (chunk !== "VP8L" || bytes[20] !== 0x2f) return undefined;
  const packed = view.getUint32(21, true);
  return { width: (packed & 0x3fff) + 1, height: ((packed >>> 14) & 0x3fff) + 1 };
}
