/**
 * The 128 bytes with which a monitor says what it is and likes. VESA E-EDID 1.4 (release A2), section 3.
 */

export interface EdidOptions {
  /** Preferred resolution in pixels; at most 4095 each way. */
  readonly width: number;
  readonly height: number;
  /** Up to 13 characters of ASCII. */
  readonly name?: string;
}

const ESTABLISHED = 0x23;
const DETAILED = 0x36;

export function buildEdid(options: EdidOptions): Uint8Array {
  const width = Math.min(4095, Math.max(320, options.width));
  const height = Math.min(4095, Math.max(200, options.height));
  const edid = new Uint8Array(128);
  edid.set([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
  // Manufacturer VIV: five bits a letter, big-endian.
  const letter = (c: string): number => c.charCodeAt(0) - 64;
  const maker = (letter('V') << 10) | (letter('I') << 5) | letter('V');
  edid.set([maker >> 8, maker & 0xff, 1, 0, 1, 0, 0, 0, 1, 36, 1, 4], 8);
  // Digital input, 8 bits a colour; size in cm at 96 dots an inch; gamma 2.2; sRGB, preferred timing is native.
  edid.set(
    [0xa5, Math.min(255, Math.round((width * 2.54) / 96)), Math.min(255, Math.round((height * 2.54) / 96)), 120, 0x06],
    0x14,
  );
  // sRGB chromaticity coordinates.
  edid.set([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54], 0x19);
  // Established timings: 640x480, 800x600 and 1024x768 at 60 Hz.
  edid.set([0x21, 0x08, 0x00], ESTABLISHED);
  edid.fill(1, 0x26, 0x36);
  // Detailed timing at 60 Hz with reduced blanking (CVT-RB: 160 pixels, at least 460 us of lines).
  const hBlank = 160;
  const vBlank = Math.max(10, Math.ceil(height * 0.03));
  const clock = Math.min(0xffff, Math.round(((width + hBlank) * (height + vBlank) * 60) / 10_000));
  const mmX = Math.min(4095, Math.round((width * 25.4) / 96));
  const mmY = Math.min(4095, Math.round((height * 25.4) / 96));
  edid.set(
    [
      clock & 0xff,
      clock >> 8,
      width & 0xff,
      hBlank,
      (width >> 8) << 4,
      height & 0xff,
      vBlank,
      (height >> 8) << 4,
      48,
      32,
      (3 << 4) | 6,
      0,
      mmX & 0xff,
      mmY & 0xff,
      ((mmX >> 8) << 4) | (mmY >> 8),
      0,
      0,
      0x1a,
    ],
    DETAILED,
  );
  // Range limits, then the name, then a dummy descriptor.
  edid.set([0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 50, 1, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20], DETAILED + 18);
  const name = new TextEncoder().encode((options.name ?? 'Vivarium').slice(0, 13));
  edid.set([0, 0, 0, 0xfc, 0], DETAILED + 36);
  edid.fill(0x20, DETAILED + 41, DETAILED + 54);
  edid.set(name, DETAILED + 41);
  if (name.length < 13) edid[DETAILED + 41 + name.length] = 0x0a;
  edid.set([0, 0, 0, 0x10], DETAILED + 54);
  edid[127] = -edid.reduce((sum, byte) => sum + byte, 0);
  return edid;
}
