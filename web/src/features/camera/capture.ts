/** The in-page camera: pictures go from the lens to memory, never through a gallery. */

export type CameraTrouble = "denied" | "missing" | "busy";
export type Facing = "environment" | "user";

export interface OpenCamera {
  stream: MediaStream;
  facing: Facing;
  hasTorch: boolean;
  canTurn: boolean;
}

const LONGEST_EDGE = 2560;
const QUALITY = 0.92;

export async function openCamera(facing: Facing): Promise<OpenCamera> {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no camera interface", "NotFoundError");
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: false,
    video: { facingMode: { ideal: facing }, width: { ideal: LONGEST_EDGE }, height: { ideal: 1920 } },
  });
  const track = stream.getVideoTracks()[0];
  const abilities = (track?.getCapabilities?.() ?? {}) as MediaTrackCapabilities & { torch?: boolean };
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  return {
    stream,
    facing,
    hasTorch: abilities.torch === true,
    canTurn: devices.filter((device) => device.kind === "videoinput").length > 1,
  };
}

export function closeCamera(camera: OpenCamera | undefined): void {
  for (const track of camera?.stream.getTracks() ?? []) track.stop();
}

export async function setTorch(camera: OpenCamera, on: boolean): Promise<void> {
  const wanted = { advanced: [{ torch: on }] } as unknown as MediaTrackConstraints;
  await camera.stream.getVideoTracks()[0]?.applyConstraints(wanted);
}

/** What went wrong, in one of the three ways a person can do something about. */
export function troubleOf(error: unknown): CameraTrouble {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return "denied";
  return name === "NotReadableError" || name === "AbortError" ? "busy" : "missing";
}

/** The frame on the screen as JPEG. The front camera's picture is not mirrored: text in it stays readable. */
export async function takePhoto(video: HTMLVideoElement): Promise<Blob> {
  const scale = Math.min(1, LONGEST_EDGE / Math.max(video.videoWidth, video.videoHeight, 1));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d", { alpha: false })?.drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new DOMException("no picture", "NotReadableError"))), "image/jpeg", QUALITY);
  });
}
