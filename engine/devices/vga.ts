/**
 * Standard VGA with the Bochs display interface: registers, memory window, PCI function 1234:1111.
 *
 * IBM VGA as FreeVGA and the Intel OpenSource HD Graphics PRM volume 3 (VGA chapter) describe the registers;
 * Bochs dispi ids B0C0 to B0C5 as the Bochs VBE documentation, and the MMIO block of QEMU's docs/specs/standard-vga.
 *
 * Video memory is one linear array. The four planes are interleaved in it: byte `4 * unit + plane`. Chain-4 and
 * odd/even accesses use the low address bits for the plane and the rest for the unit, so 256-colour and linear
 * modes see pixels in a row, and text has character, attribute, font and an unused byte in each unit.
 */
import type { Clock } from '../bus/clock.ts';
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { PciFunctionSpec } from '../bus/pci.ts';
import { bytes, struct, u16s, u32, type View } from '../memory/struct.ts';
import { describeMode, type VgaMode } from './vga-mode.ts';
import { egaDac, MODE3 } from './vga-tables.ts';

/** Start and length of the legacy memory window. */
export const VGA_WINDOW = { base: 0xa0000, length: 0x20000 } as const;
/** First port and count of the Bochs display interface. */
export const DISPI_PORTS = { base: 0x1ce, length: 4 } as const;
/** Length of the register BAR. */
export const VGA_MMIO_BYTES = 0x1000;

/** Indexes of the dispi registers. */
export const Dispi = {
  id: 0,
  xres: 1,
  yres: 2,
  bpp: 3,
  enable: 4,
  bank: 5,
  virtualWidth: 6,
  virtualHeight: 7,
  xOffset: 8,
  yOffset: 9,
  memory64k: 10,
} as const;
const DISPI_REGISTERS = 11;
const DISPI_ID_FIRST = 0xb0c0;
const DISPI_ID_LAST = 0xb0c5;
export const DISPI_ENABLED = 0x01;
const DISPI_GETCAPS = 0x02;
export const DISPI_8BIT_DAC = 0x20;
const DISPI_LFB = 0x40;
const DISPI_NOCLEAR = 0x80;
const DISPI_MAX_X = 8192;
const DISPI_MAX_Y = 8192;

const MISC_COLOUR = 1;
const STATUS_DISPLAY_OFF = 1;
const STATUS_RETRACE = 8;
/** A frame at 60 Hz, and when in it the vertical blank and the retrace begin, in ns. */
const FRAME_NS = 16_666_667;
const BLANK_AT_NS = 15_000_000;
const RETRACE_AT_NS = 15_600_000;
const RETRACE_END_NS = 16_300_000;

export const vgaState = struct('vga', 1, {
  misc: u32,
  feature: u32,
  sequencerIndex: u32,
  sequencer: bytes(8),
  graphicsIndex: u32,
  graphics: bytes(16),
  crtcIndex: u32,
  crtc: bytes(32),
  attributeIndex: u32,
  /** 1 where the next write to 0x3c0 is data. */
  attributeData: u32,
  attribute: bytes(32),
  dacMask: u32,
  /** 0 after the write index was set, 3 after the read index was: what 0x3c7 reads. */
  dacState: u32,
  dacRead: u32,
  dacWrite: u32,
  /** Which of red, green, blue is next. */
  dacPart: u32,
  dacHold: bytes(4),
  dac: bytes(768),
  latch: u32,
  dispiIndex: u32,
  dispi: u16s(16),
});
export type VgaState = View<typeof vgaState.fields>;

export interface VgaWires {
  readonly clock: Clock;
  /** Video memory: a power of two of bytes, 4-byte aligned in shared memory. */
  readonly vram: Uint8Array;
  /** What the monitor says of itself, at the start of the register BAR. */
  readonly edid?: Uint8Array;
}

/** Four bits spread over the bytes of a word. */
const SPREAD = Uint32Array.from({ length: 16 }, (_, bits) => {
  let value = 0;
  for (let plane = 0; plane < 4; plane++) if ((bits & (1 << plane)) !== 0) value |= 0xff << (plane * 8);
  return value >>> 0;
});

/** Writable bits of the sequencer, graphics and attribute registers. */
const SEQUENCER_MASK = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
const GRAPHICS_MASK = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

export class Vga {
  readonly #s: VgaState;
  readonly #wires: VgaWires;
  readonly #vram: Uint8Array;
  readonly #units: Uint32Array;
  /** The window 0xa0000 to 0xbffff. */
  readonly window: IoHandler;
  /** The dispi ports. */
  readonly dispiPorts: IoHandler;
  /** BAR2: EDID, VGA ports from 0x400, dispi registers from 0x500, extended registers from 0x600. */
  readonly mmio: IoHandler;
  /** Where the register ports go; parallel ports may lie between them. */
  readonly ports: readonly { readonly base: number; readonly length: number; readonly handler: IoHandler }[];

  constructor(state: VgaState, wires: VgaWires) {
    this.#s = state;
    this.#wires = wires;
    this.#vram = wires.vram;
    this.#units = new Uint32Array(wires.vram.buffer, wires.vram.byteOffset, wires.vram.length >> 2);
    this.window = {
      read: (offset, size) => {
        let value = 0;
        for (let i = 0; i < size; i++) value |= this.#readMemory(offset + i) << (8 * i);
        return value >>> 0;
      },
      write: (offset, size, value) => {
        for (let i = 0; i < size; i++) this.#writeMemory(offset + i, (value >>> (8 * i)) & 0xff);
      },
    };
    this.dispiPorts = {
      read: (offset, size) => {
        if (size === 1) return 0xff;
        return offset === 0 ? state.dispiIndex : this.readDispi(state.dispiIndex);
      },
      write: (offset, size, value) => {
        if (size === 1) return;
        if (offset === 0) state.dispiIndex = value & 0xffff;
        else this.writeDispi(state.dispiIndex, value & 0xffff);
      },
    };
    this.mmio = {
      read: (offset, size) => this.#readMmio(offset, size),
      write: (o, size, value) => this.#writeMmio(o, size, value),
    };
    const range = (base: number, length: number) => ({
      base,
      length,
      handler: {
        read: (offset: number, size: AccessSize): number => {
          let value = 0;
          for (let i = 0; i < size; i++) value |= this.readPort(base + offset + i) << (8 * i);
          return value >>> 0;
        },
        write: (offset: number, size: AccessSize, value: number): void => {
          for (let i = 0; i < size; i++) this.writePort(base + offset + i, (value >>> (8 * i)) & 0xff);
        },
      },
    });
    this.ports = [range(0x3b4, 2), range(0x3ba, 1), range(0x3c0, 16), range(0x3d4, 2), range(0x3da, 1)];
  }

  /** Registers as at power-on: a blank screen until someone sets a mode. Video memory stays. */
  reset(): void {
    const s = this.#s;
    s.misc = MISC_COLOUR;
    s.feature = 0;
    s.sequencerIndex = 0;
    s.sequencer.fill(0);
    s.graphicsIndex = 0;
    s.graphics.fill(0);
    s.crtcIndex = 0;
    s.crtc.fill(0);
    s.attributeIndex = 0;
    s.attributeData = 0;
    s.attribute.fill(0);
    s.dacMask = 0xff;
    s.dacState = 0;
    s.dacRead = 0;
    s.dacWrite = 0;
    s.dacPart = 0;
    s.dacHold.fill(0);
    s.dac.fill(0);
    s.latch = 0;
    s.dispiIndex = 0;
    s.dispi.fill(0);
    s.dispi[Dispi.id] = DISPI_ID_LAST;
    s.dispi[Dispi.bpp] = 8;
  }

  /** PCI 1234:1111. `place` learns where the guest put video memory. */
  pciSpec(place: (address: number | undefined) => void, rom?: Uint8Array): PciFunctionSpec {
    return {
      name: 'vga',
      vendor: 0x1234,
      device: 0x1111,
      revision: 2,
      classCode: 0x030000,
      subsystemVendor: 0x1af4,
      subsystem: 0x1100,
      bars: [
        { index: 0, kind: 'mem32', prefetch: true, size: this.#vram.length, ram: place },
        { index: 2, kind: 'mem32', size: VGA_MMIO_BYTES, handler: this.mmio },
      ],
      ...(rom === undefined ? {} : { rom }),
    };
  }

  // Register ports.

  #decodes(port: number): boolean {
    if (port >= 0x3c0 && port <= 0x3cf) return true;
    return ((this.#s.misc & MISC_COLOUR) !== 0) === port >= 0x3d0;
  }

  /** Reads a byte of ports 0x3b0 to 0x3df. */
  readPort(port: number): number {
    const s = this.#s;
    if (!this.#decodes(port)) return 0xff;
    switch (port) {
      case 0x3c0:
        return s.attributeIndex;
      case 0x3c1:
        return s.attribute[s.attributeIndex & 31];
      case 0x3c2:
        return 0x10; // the monitor sense switch: a colour monitor
      case 0x3c4:
        return s.sequencerIndex;
      case 0x3c5:
        return s.sequencer[s.sequencerIndex];
      case 0x3c6:
        return s.dacMask;
      case 0x3c7:
        return s.dacState;
      case 0x3c8:
        return s.dacWrite;
      case 0x3c9: {
        const value = s.dac[s.dacRead * 3 + s.dacPart];
        s.dacPart = (s.dacPart + 1) % 3;
        if (s.dacPart === 0) s.dacRead = (s.dacRead + 1) & 0xff;
        return value;
      }
      case 0x3ca:
        return s.feature;
      case 0x3cc:
        return s.misc;
      case 0x3ce:
        return s.graphicsIndex;
      case 0x3cf:
        return s.graphics[s.graphicsIndex];
      case 0x3b4:
      case 0x3d4:
        return s.crtcIndex;
      case 0x3b5:
      case 0x3d5:
        return s.crtc[s.crtcIndex & 31];
      case 0x3ba:
      case 0x3da:
        s.attributeData = 0;
        return this.#status();
      default:
        return 0xff;
    }
  }

  /** Where the beam would be. */
  #status(): number {
    const at = this.#wires.clock.now() % FRAME_NS;
    if (at >= BLANK_AT_NS) return STATUS_DISPLAY_OFF | (at >= RETRACE_AT_NS && at < RETRACE_END_NS ? STATUS_RETRACE : 0);
    // Horizontal blank: the last fifth of a line of 31.8 us.
    return at % 31_778 > 25_400 ? STATUS_DISPLAY_OFF : 0;
  }

  /** Writes a byte of ports 0x3b0 to 0x3df. */
  writePort(port: number, value: number): void {
    const s = this.#s;
    if (!this.#decodes(port)) return;
    switch (port) {
      case 0x3c0:
        if (s.attributeData === 0) s.attributeIndex = value & 0x3f;
        else {
          const index = s.attributeIndex & 31;
          if (index < 16) s.attribute[index] = value & 0x3f;
          else if (index < 21) s.attribute[index] = value & [0xef, 0xff, 0x3f, 0x0f, 0x0f][index - 16];
        }
        s.attributeData ^= 1;
        return;
      case 0x3c2:
        s.misc = value & ~0x10;
        return;
      case 0x3c4:
        s.sequencerIndex = value & 7;
        return;
      case 0x3c5:
        s.sequencer[s.sequencerIndex] = value & SEQUENCER_MASK[s.sequencerIndex];
        return;
      case 0x3c6:
        s.dacMask = value;
        return;
      case 0x3c7:
        s.dacRead = value;
        s.dacPart = 0;
        s.dacState = 3;
        return;
      case 0x3c8:
        s.dacWrite = value;
        s.dacPart = 0;
        s.dacState = 0;
        return;
      case 0x3c9:
        // An entry changes when its third part arrives.
        s.dacHold[s.dacPart] = this.dac8 ? value : value & 0x3f;
        s.dacPart++;
        if (s.dacPart === 3) {
          s.dac.set(s.dacHold.subarray(0, 3), s.dacWrite * 3);
          s.dacPart = 0;
          s.dacWrite = (s.dacWrite + 1) & 0xff;
        }
        return;
      case 0x3ce:
        s.graphicsIndex = value & 15;
        return;
      case 0x3cf:
        s.graphics[s.graphicsIndex] = value & (GRAPHICS_MASK[s.graphicsIndex] ?? 0);
        return;
      case 0x3b4:
      case 0x3d4:
        s.crtcIndex = value & 0x3f;
        return;
      case 0x3b5:
      case 0x3d5:
        this.#writeCrtc(s.crtcIndex & 31, value);
        return;
      case 0x3ba:
      case 0x3da:
        s.feature = value & 0x10;
        return;
    }
  }

  #writeCrtc(index: number, value: number): void {
    const { crtc } = this.#s;
    if (index <= 7 && (crtc[0x11] & 0x80) !== 0) {
      // Locked, but for bit 8 of the line compare.
      if (index === 7) crtc[7] = (crtc[7] & ~0x10) | (value & 0x10);
      return;
    }
    if (index <= 0x18) crtc[index] = value;
  }

  /** The DAC takes eight bits a part instead of six. */
  get dac8(): boolean {
    return (this.#s.dispi[Dispi.enable] & DISPI_8BIT_DAC) !== 0;
  }

  // The memory window.

  get #linear(): boolean {
    const { dispi } = this.#s;
    return (dispi[Dispi.enable] & DISPI_ENABLED) !== 0 && dispi[Dispi.bpp] > 4;
  }

  /** The address inside the selected window, with the dispi bank added, or -1 where the window is elsewhere. */
  #translate(offset: number): number {
    const s = this.#s;
    let at: number;
    switch ((s.graphics[6] >> 2) & 3) {
      case 0:
        at = offset;
        break;
      case 1:
        at = offset < 0x10000 ? offset : -1;
        break;
      case 2:
        at = offset >= 0x10000 && offset < 0x18000 ? offset - 0x10000 : -1;
        break;
      default:
        at = offset >= 0x18000 ? offset - 0x18000 : -1;
    }
    if (at < 0 || (s.dispi[Dispi.enable] & DISPI_ENABLED) === 0) return at;
    // The bank counts 64 KiB of what the processor sees: of each plane in the 4-bit mode.
    return at + s.dispi[Dispi.bank] * 0x10000;
  }

  #readMemory(offset: number): number {
    const s = this.#s;
    const at = this.#translate(offset);
    if (at < 0) return 0xff;
    const chain4 = (s.sequencer[4] & 8) !== 0 || this.#linear;
    const oddEven = !chain4 && (s.graphics[5] & 0x10) !== 0;
    const unit = chain4 ? at >>> 2 : oddEven ? at >>> 1 : at;
    if (unit >= this.#units.length) return 0xff;
    s.latch = this.#units[unit];
    if (chain4) return this.#vram[at];
    if (!oddEven && (s.graphics[5] & 8) !== 0) {
      // Read mode 1: a bit is set where the planes that matter equal the colour.
      const differ = (s.latch ^ SPREAD[s.graphics[2]]) & SPREAD[s.graphics[7]];
      return ~(differ | (differ >>> 8) | (differ >>> 16) | (differ >>> 24)) & 0xff;
    }
    const plane = oddEven ? (s.graphics[4] & 2) | (at & 1) : s.graphics[4];
    return (s.latch >>> (plane * 8)) & 0xff;
  }

  #writeMemory(offset: number, value: number): void {
    const s = this.#s;
    const at = this.#translate(offset);
    if (at < 0) return;
    if (this.#linear) {
      if (at < this.#vram.length) this.#vram[at] = value;
      return;
    }
    const g = s.graphics;
    let planes = s.sequencer[2];
    let unit = at;
    if ((s.sequencer[4] & 8) !== 0) {
      planes &= 1 << (at & 3);
      unit = at >>> 2;
    } else if ((s.sequencer[4] & 4) === 0) {
      planes &= (at & 1) !== 0 ? 0b1010 : 0b0101;
      unit = at >>> 1;
    }
    if (planes === 0 || unit >= this.#units.length) return;
    const mask = SPREAD[planes];
    this.#units[unit] = (this.#units[unit] & ~mask) | (this.#combine(g, value) & mask);
  }

  /** The value of all four planes that a write asks for, by write mode. */
  #combine(g: Uint8Array, value: number): number {
    const { latch } = this.#s;
    const mode = g[5] & 3;
    if (mode === 1) return latch;
    const turn = g[3] & 7;
    const turned = ((value >>> turn) | (value << (8 - turn))) & 0xff;
    let bits = g[8];
    let data: number;
    if (mode === 2) data = SPREAD[value & 15];
    else if (mode === 3) {
      bits &= turned;
      data = SPREAD[g[0]];
    } else {
      const fixed = SPREAD[g[1]];
      data = (Math.imul(turned, 0x01010101) & ~fixed) | (SPREAD[g[0]] & fixed);
    }
    switch ((g[3] >> 3) & 3) {
      case 1:
        data &= latch;
        break;
      case 2:
        data |= latch;
        break;
      case 3:
        data ^= latch;
        break;
    }
    const mask = Math.imul(bits, 0x01010101);
    return (data & mask) | (latch & ~mask);
  }

  // The Bochs display interface.

  readDispi(index: number): number {
    const { dispi } = this.#s;
    if (index >= DISPI_REGISTERS) return 0;
    if (index === Dispi.memory64k) return this.#vram.length >>> 16;
    if ((dispi[Dispi.enable] & DISPI_GETCAPS) !== 0) {
      if (index === Dispi.xres) return DISPI_MAX_X;
      if (index === Dispi.yres) return DISPI_MAX_Y;
      if (index === Dispi.bpp) return 32;
    }
    return dispi[index];
  }

  writeDispi(index: number, value: number): void {
    const { dispi } = this.#s;
    switch (index) {
      case Dispi.id:
        if (value >= DISPI_ID_FIRST && value <= DISPI_ID_LAST) dispi[Dispi.id] = value;
        return;
      case Dispi.xres:
      case Dispi.yres:
      case Dispi.bpp:
      case Dispi.virtualWidth:
      case Dispi.xOffset:
      case Dispi.yOffset:
        dispi[index] = value;
        if ((dispi[Dispi.enable] & DISPI_ENABLED) !== 0) this.#fitDispi();
        return;
      case Dispi.bank:
        dispi[index] = value % Math.max(1, this.#vram.length >>> 16);
        return;
      case Dispi.enable:
        this.#enableDispi(value);
        return;
    }
  }

  #enableDispi(value: number): void {
    const { dispi, dac } = this.#s;
    const old = dispi[Dispi.enable];
    if ((value & DISPI_ENABLED) !== 0 && (old & DISPI_ENABLED) === 0) {
      dispi[Dispi.virtualWidth] = dispi[Dispi.xres];
      dispi[Dispi.xOffset] = 0;
      dispi[Dispi.yOffset] = 0;
      dispi[Dispi.bank] = 0;
      this.#fitDispi();
      if ((value & DISPI_NOCLEAR) === 0) {
        const bits = dispi[Dispi.bpp] === 15 ? 16 : dispi[Dispi.bpp];
        const length = Math.ceil((dispi[Dispi.virtualWidth] * bits) / 8) * dispi[Dispi.yres];
        this.#vram.fill(0, 0, Math.min(this.#vram.length, length));
      }
    } else if ((value & DISPI_ENABLED) === 0) dispi[Dispi.bank] = 0;
    // The DAC keeps its colours when its width changes.
    if (((value ^ old) & DISPI_8BIT_DAC) !== 0) {
      const wider = (value & DISPI_8BIT_DAC) !== 0;
      for (let i = 0; i < dac.length; i++) dac[i] = wider ? dac[i] << 2 : dac[i] >> 2;
    }
    dispi[Dispi.enable] = value & (DISPI_ENABLED | DISPI_GETCAPS | DISPI_8BIT_DAC | DISPI_LFB | DISPI_NOCLEAR);
  }

  /** Brings the requested geometry into what video memory holds. */
  #fitDispi(): void {
    const { dispi } = this.#s;
    if (![4, 8, 15, 16, 24, 32].includes(dispi[Dispi.bpp])) dispi[Dispi.bpp] = 8;
    const bits = dispi[Dispi.bpp] === 15 ? 16 : dispi[Dispi.bpp];
    const bytesOf = (pixels: number): number => (pixels * bits) / 8;
    dispi[Dispi.xres] = Math.max(8, Math.min(dispi[Dispi.xres], DISPI_MAX_X) & ~7);
    while (bytesOf(dispi[Dispi.xres]) > this.#vram.length) dispi[Dispi.xres] >>= 1;
    const widest = Math.min(0xfff8, Math.floor((this.#vram.length * 8) / bits));
    dispi[Dispi.virtualWidth] = Math.min(widest, Math.max(dispi[Dispi.xres], (dispi[Dispi.virtualWidth] + 7) & ~7));
    const lines = Math.floor(this.#vram.length / bytesOf(dispi[Dispi.virtualWidth]));
    dispi[Dispi.virtualHeight] = Math.min(0xffff, lines);
    dispi[Dispi.yres] = Math.max(1, Math.min(dispi[Dispi.yres], DISPI_MAX_Y, lines));
    dispi[Dispi.xOffset] = Math.min(dispi[Dispi.xOffset], dispi[Dispi.virtualWidth] - dispi[Dispi.xres]);
    dispi[Dispi.yOffset] = Math.min(dispi[Dispi.yOffset], Math.max(0, lines - dispi[Dispi.yres]));
  }

  #readMmio(offset: number, size: AccessSize): number {
    if (offset >= 0x400 && offset + size <= 0x420) {
      let value = 0;
      for (let i = 0; i < size; i++) value |= this.readPort(offset - 0x400 + 0x3c0 + i) << (8 * i);
      return value >>> 0;
    }
    if (offset >= 0x500 && offset < 0x500 + DISPI_REGISTERS * 2) {
      const value = this.readDispi((offset - 0x500) >> 1);
      return size === 1 ? (value >>> ((offset & 1) * 8)) & 0xff : value;
    }
    // Extended registers: their length, and the byte order of the frame buffer, which is always little.
    if (offset === 0x600 && size === 4) return 8;
    if (offset === 0x604 && size === 4) return 0x1e1e1e1e;
    const { edid } = this.#wires;
    if (offset < 0x400 && edid !== undefined) {
      let value = 0;
      for (let i = 0; i < size; i++) value |= (edid[offset + i] ?? 0) << (8 * i);
      return value >>> 0;
    }
    return offset < 0x400 ? 0 : allOnes(size);
  }

  #writeMmio(offset: number, size: AccessSize, value: number): void {
    if (offset >= 0x400 && offset + size <= 0x420) {
      for (let i = 0; i < size; i++) this.writePort(offset - 0x400 + 0x3c0 + i, (value >>> (8 * i)) & 0xff);
    } else if (size >= 2 && (offset & 1) === 0 && offset >= 0x500 && offset < 0x500 + DISPI_REGISTERS * 2)
      this.writeDispi((offset - 0x500) >> 1, value & 0xffff);
  }

  // What is on the screen.

  /** What the screen shows now. */
  mode(): VgaMode {
    return describeMode(this.#s, this.#vram.length);
  }

  /**
   * Fills `palette` (256 words) with the DAC's colours as R, G, B, 255 in order of bytes, and `ega` (16 words)
   * with the sixteen that text and planar modes reach through the attribute controller.
   */
  colours(palette: Uint32Array, ega: Uint32Array): void {
    const s = this.#s;
    const eight = this.dac8;
    const part = (at: number): number => (eight ? s.dac[at] : ((s.dac[at] << 2) | (s.dac[at] >> 4)) & 0xff);
    for (let i = 0; i < 256; i++) {
      const at = (i & s.dacMask) * 3;
      palette[i] = (part(at) | (part(at + 1) << 8) | (part(at + 2) << 16) | 0xff000000) >>> 0;
    }
    const select = s.attribute[0x14];
    for (let i = 0; i < 16; i++) {
      const low = s.attribute[i];
      const index = (s.attribute[0x10] & 0x80) !== 0 ? (low & 15) | ((select & 15) << 4) : (low & 0x3f) | ((select & 0x0c) << 4);
      ega[i] = palette[index];
    }
  }

  // Starting without a video BIOS.

  /** Programs 80x25 text with `font` (256 glyphs of 16 bytes) and an empty screen: what a kernel expects to find. */
  loadTextMode(font: Uint8Array): void {
    const s = this.#s;
    s.dispi[Dispi.enable] = 0;
    s.misc = MODE3.misc;
    s.sequencer.set(MODE3.sequencer);
    s.crtc.set(MODE3.crtc);
    s.graphics.set(MODE3.graphics);
    s.attribute.set(MODE3.attribute);
    s.attributeIndex = 0x20;
    s.attributeData = 0;
    s.dacMask = 0xff;
    s.dac.set(egaDac());
    for (let cell = 0; cell < 0x4000; cell++) {
      this.#vram[cell * 4] = 0x20;
      this.#vram[cell * 4 + 1] = 0x07;
    }
    for (let glyph = 0; glyph < 256; glyph++) {
      for (let line = 0; line < 32; line++) {
        this.#vram[(glyph * 32 + line) * 4 + 2] = line < 16 ? (font[glyph * 16 + line] ?? 0) : 0;
      }
    }
  }

  /** Sets a linear mode, for a kernel that is given a frame buffer; `mode()` says what became of it. */
  setLinearMode(width: number, height: number, bpp: number): VgaMode {
    this.writeDispi(Dispi.enable, 0);
    this.writeDispi(Dispi.xres, width);
    this.writeDispi(Dispi.yres, height);
    this.writeDispi(Dispi.bpp, bpp);
    this.writeDispi(Dispi.enable, DISPI_ENABLED | DISPI_LFB);
    this.#s.attributeIndex = 0x20;
    return this.mode();
  }
}
