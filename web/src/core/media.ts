// Pictures: drawn anew and bounded before they leave, checked by content and drawn anew before they are shown. Nothing of
// the original file but its pixels survives: no EXIF, no place, no serial number. Twin of src/curbside/client/media.py.

import { CurbsideError, malformed, tooLarge } from "./errors";
import { sniffPicture } from "./sniff";

/** Largest picture that is decoded (decompression bombs). */
const PIXELS = 40_000_000;
const LONG_SIDE = 2048;
const THUMBNAIL_SIDE = 96;
const THUMBNAIL_BYTES = 6 * 1024;
const QUALITY = 0.85;
const THUMBNAIL_QUALITIES = [0.6, 0.45, 0.3, 0.15];
const SOURCE_BYTES = 64 * 1024 * 1024;
const DECODE_MS = 15_000;

export interface Picture {
  /** JPEG. */
  readonly data: Uint8Array<ArrayBuffer>;
  readonly width: number;
  readonly height: number;
}

export interface SentPicture extends Picture {
  /** A small JPEG. */
  readonly thumbnail: Uint8Array<ArrayBuffer>;
}

/** A picture that this person picked or took, upright, at most 2,048 pixels on the long side. Throws `malformed`, `too_large`. */
export async function redrawOwn(source: Blob): Promise<SentPicture> {
  if (source.size > SOURCE_BYTES) throw tooLarge("the picture's file is too large", SOURCE_BYTES);
  const bitmap = await decode(new Uint8Array(await source.arrayBuffer()), true);
  try {
    const picture = await draw(bitmap, LONG_SIDE, QUALITY);
    return { ...picture, thumbnail: await drawThumbnail(bitmap) };
  } finally {
    bitmap.close();
  }
}

/** A received picture, drawn anew. HEIC is refused: what Curbside sends never is. Throws `blob_corrupt`. */
export async function redrawReceived(bytes: Uint8Array): Promise<Picture> {
  try {
    const bitmap = await decode(bytes, false);
    try {
      return await draw(bitmap, LONG_SIDE, QUALITY);
    } finally {
      bitmap.close();
    }
  } catch (error) {
    if (error instanceof CurbsideError && error.code === "internal") throw error;
    throw new CurbsideError("blob_corrupt", "The attachment is not a picture that can be shown.");
  }
}

async function decode(bytes: Uint8Array, own: boolean): Promise<ImageBitmap> {
  const head = sniffPicture(bytes);
  if (head === undefined || (head.type === "image/heic" && !own)) throw malformed("this is not a picture we can read");
  if (head.size !== undefined) checkPixels(head.size.width, head.size.height);
  const blob = new Blob([Uint8Array.from(bytes)], { type: head.type });
  const bitmap = await within(DECODE_MS, createImageBitmap(blob, { imageOrientation: "from-image" }));
  checkPixels(bitmap.width, bitmap.height);
  return bitmap;
}

function checkPixels(width: number, height: number): void {
  if (width * height === 0) throw malformed("the picture has no pixels");
  if (width * height > PIXELS) throw tooLarge("the picture has too many pixels", PIXELS);
}

async function within(milliseconds: number, decoding: Promise<ImageBitmap>): Promise<ImageBitmap> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(malformed("the picture takes too long to read")), milliseconds);
  });
  try {
    return await Promise.race([decoding, tooLate]);
  } catch (error) {
    // A bitmap that comes too late is let go of at once.
    void decoding.then((bitmap) => bitmap.close()).catch(() => undefined);
    throw error instanceof CurbsideError ? error : malformed("the picture is damaged");
  } finally {
    clearTimeout(timer);
  }
}

async function draw(bitmap: ImageBitmap, longSide: number, quality: number): Promise<Picture> {
  const scale = Math.min(1, longSide / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { alpha: false });
  if (context === null) throw new CurbsideError("internal", "this browser cannot draw pictures in the background");
  // JPEG has no transparency: white, as on paper.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
  return { data: new Uint8Array(await blob.arrayBuffer()), width, height };
}

async function drawThumbnail(bitmap: ImageBitmap): Promise<Uint8Array<ArrayBuffer>> {
  let smallest: Uint8Array<ArrayBuffer> | undefined;
  for (const quality of THUMBNAIL_QUALITIES) {
    smallest = (await draw(bitmap, THUMBNAIL_SIDE, quality)).data;
    if (smallest.length <= THUMBNAIL_BYTES) return smallest;
  }
  throw tooLarge("the preview is too large", THUMBNAIL_BYTES);
}
