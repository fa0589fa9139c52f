/** Draws an ECG strip on paper, so that the preview has a picture without anybody's data in it. */

function grid(ink: CanvasRenderingContext2D, width: number, height: number): void {
  for (let step = 0; step <= Math.max(width, height); step += 16) {
    ink.strokeStyle = step % 80 === 0 ? "#e0908a" : "#f0c6c0";
    ink.lineWidth = step % 80 === 0 ? 1.6 : 0.8;
    ink.beginPath();
    ink.moveTo(step, 0);
    ink.lineTo(step, height);
    ink.moveTo(0, step);
    ink.lineTo(width, step);
    ink.stroke();
  }
}

/** Millivolts over one beat (0..1): P, QRS, a raised ST segment, T. */
function beat(phase: number): number {
  const bump = (at: number, wide: number, high: number): number => high * Math.exp(-(((phase - at) / wide) ** 2));
  const raised = phase > 0.36 && phase < 0.5 ? 0.22 : 0;
  return bump(0.18, 0.03, 0.13) - bump(0.305, 0.008, 0.15) + bump(0.325, 0.011, 1) - bump(0.35, 0.01, 0.2) + raised + bump(0.54, 0.06, 0.34);
}

function trace(ink: CanvasRenderingContext2D, width: number, middle: number, gain: number): void {
  ink.strokeStyle = "#1d1b22";
  ink.lineWidth = 2.6;
  ink.lineJoin = "round";
  ink.beginPath();
  for (let x = 20; x < width - 20; x += 1) {
    const y = middle - beat(((x - 20) % 236) / 236) * gain + Math.sin(x / 90) * 3;
    if (x === 20) ink.moveTo(x, y);
    else ink.lineTo(x, y);
  }
  ink.stroke();
}

export async function ecg(width: number, height: number): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = 1600;
  canvas.height = 1000;
  const ink = canvas.getContext("2d");
  if (!ink) throw new Error("no canvas");
  ink.fillStyle = "#fdf1ea";
  ink.fillRect(0, 0, 1600, 1000);
  grid(ink, 1600, 1000);
  ink.font = "600 34px sans-serif";
  ink.fillStyle = "#1d1b22";
  for (const [index, lead] of ["II", "III", "aVF"].entries()) {
    ink.fillText(lead, 30, 120 + index * 310);
    trace(ink, 1600, 270 + index * 300, [190, 170, 150][index] ?? 150);
  }
  const light = ink.createLinearGradient(0, 0, 1600, 1000);
  light.addColorStop(0, "rgba(255,240,210,0.25)");
  light.addColorStop(1, "rgba(60,40,20,0.35)");
  ink.fillStyle = light;
  ink.fillRect(0, 0, 1600, 1000);
  const small = document.createElement("canvas");
  small.width = width;
  small.height = height;
  small.getContext("2d")?.drawImage(canvas, 0, 0, width, height);
  return new Promise((resolve, reject) => small.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/jpeg", 0.86));
}
