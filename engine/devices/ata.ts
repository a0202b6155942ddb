/**
 * What ATA disks and packet devices are, whatever host adapter they hang on (IDE, AHCI). ATA8-ACS (T13/1699-D) chapters
 * 6 and 7; CHS addressing and the commands that went with it: ATA-4 (T13/1153-D).
 */
import { struct, u32, type View } from '../memory/struct.ts';

export const SECTOR = 512;

/** Status register. */
export const ATA_BSY = 0x80;
export const ATA_DRDY = 0x40;
export const ATA_DF = 0x20;
export const ATA_DSC = 0x10;
export const ATA_DRQ = 0x08;
export const ATA_ERR = 0x01;
/** Error register. */
export const ATA_ABRT = 0x04;
export const ATA_IDNF = 0x10;
export const ATA_UNC = 0x40;

/** How a command moves its data. */
export type AtaProtocol = 'none' | 'pio-in' | 'pio-out' | 'dma-in' | 'dma-out' | 'packet' | 'queued-in' | 'queued-out';

export interface AtaCommand {
  readonly what:
    | 'read'
    | 'write'
    | 'verify'
    | 'flush'
    | 'identify'
    | 'identify-packet'
    | 'packet'
    | 'trim'
    | 'device-reset'
    | 'diagnostic'
    | 'set-features'
    | 'set-multiple'
    | 'native-max'
    | 'power-mode'
    | 'initialize'
    | 'seek'
    | 'nothing';
  readonly protocol: AtaProtocol;
  /** 48-bit addresses and 16-bit counts. */
  readonly ext: boolean;
  /** Blocks of several sectors: SET MULTIPLE MODE says how many. */
  readonly multiple?: boolean;
  /** The data is on stable storage when the command completes. */
  readonly fua?: boolean;
}

const command = (what: AtaCommand['what'], protocol: AtaProtocol = 'none', ext = false, more: object = {}): AtaCommand => ({
  what,
  protocol,
  ext,
  ...more,
});

const commands = new Map<number, AtaCommand>([
  [0x06, command('trim', 'dma-out', true)],
  [0x08, command('device-reset')],
  [0x20, command('read', 'pio-in')],
  [0x21, command('read', 'pio-in')],
  [0x24, command('read', 'pio-in', true)],
  [0x25, command('read', 'dma-in', true)],
  [0x27, command('native-max', 'none', true)],
  [0x29, command('read', 'pio-in', true, { multiple: true })],
  [0x30, command('write', 'pio-out')],
  [0x31, command('write', 'pio-out')],
  [0x34, command('write', 'pio-out', true)],
  [0x35, command('write', 'dma-out', true)],
  [0x39, command('write', 'pio-out', true, { multiple: true })],
  [0x3d, command('write', 'dma-out', true, { fua: true })],
  [0x40, command('verify')],
  [0x41, command('verify')],
  [0x42, command('verify', 'none', true)],
  [0x60, command('read', 'queued-in', true)],
  [0x61, command('write', 'queued-out', true)],
  [0x70, command('seek')],
  [0x90, command('diagnostic')],
  [0x91, command('initialize')],
  [0xa0, command('packet', 'packet')],
  [0xa1, command('identify-packet', 'pio-in')],
  [0xc4, command('read', 'pio-in', false, { multiple: true })],
  [0xc5, command('write', 'pio-out', false, { multiple: true })],
  [0xc6, command('set-multiple')],
  [0xc8, command('read', 'dma-in')],
  [0xc9, command('read', 'dma-in')],
  [0xca, command('write', 'dma-out')],
  [0xcb, command('write', 'dma-out')],
  [0xce, command('write', 'pio-out', true, { multiple: true, fua: true })],
  // STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE, SLEEP: nothing spins. Security freeze: nothing is locked.
  ...[0xe0, 0xe1, 0xe2, 0xe3, 0xe6, 0xf5].map((code) => [code, command('nothing')] as const),
  [0xe5, command('power-mode')],
  [0xe7, command('flush')],
  [0xea, command('flush', 'none', true)],
  [0xec, command('identify', 'pio-in')],
  [0xef, command('set-features')],
  [0xf8, command('native-max')],
  ...Array.from({ length: 16 }, (_, n) => [0x10 + n, command('seek')] as const),
]);

/** What a command code means; undefined: it is aborted. */
export const ataCommand = (code: number): AtaCommand | undefined => commands.get(code);

export const ataDriveState = struct('ata-drive', 1, {
  /** 512-byte sectors, in two words; 0 where there is no disk. */
  sectorsLow: u32,
  sectorsHigh: u32,
  /** Sectors of a block of the MULTIPLE commands. */
  multiple: u32,
  /** 1: the driver switched the write cache off. */
  writeThrough: u32,
  /** The transfer mode that SET FEATURES chose, as it was written. */
  transferMode: u32,
  /** The geometry of INITIALIZE DEVICE PARAMETERS. */
  heads: u32,
  sectorsPerTrack: u32,
  /** Packet devices: sense code that REQUEST SENSE gives, see `Sense`. */
  sense: u32,
});
export type AtaDriveState = View<typeof ataDriveState.fields>;

/** The most sectors of a block of the MULTIPLE commands. */
export const MULTIPLE_MAX = 16;
const HEADS = 16;
const SECTORS_PER_TRACK = 63;
/** Sectors that 28 bits and that cylinders reach. */
const LBA28_MAX = 0xfffffff;
const CYLINDERS_MAX = 16383;
/** Blocks of 512 bytes of ranges that one DATA SET MANAGEMENT takes. */
export const TRIM_BLOCKS_MAX = 8;

export interface AtaIdentity {
  readonly model: string;
  readonly serial: string;
  readonly revision: string;
  readonly wwn?: bigint;
  readonly readOnly?: boolean;
  /** SATA: native queueing of 32 commands. */
  readonly sata: boolean;
  /** Offer TRIM. */
  readonly trim: boolean;
  /** Revolutions a minute, 1 for none. */
  readonly rotationRate?: number;
}

/** Back to power-on; the size stays. */
export function resetAtaDrive(state: AtaDriveState): void {
  state.multiple = MULTIPLE_MAX;
  state.writeThrough = 0;
  state.transferMode = 0;
  state.heads = HEADS;
  state.sectorsPerTrack = SECTORS_PER_TRACK;
  state.sense = 0;
}

export const sectorsOf = (state: AtaDriveState): number => state.sectorsHigh * 2 ** 32 + state.sectorsLow;

export function setSectors(state: AtaDriveState, bytes: number): void {
  const sectors = Math.floor(bytes / SECTOR);
  state.sectorsLow = sectors % 2 ** 32;
  state.sectorsHigh = Math.floor(sectors / 2 ** 32);
}

/** An ATA string: ASCII with the bytes of each word swapped, filled with blanks. */
function putText(words: DataView, word: number, count: number, text: string): void {
  const padded = text.padEnd(count * 2);
  for (let i = 0; i < count * 2; i++) words.setUint8((word * 2 + i) ^ 1, padded.charCodeAt(i) & 0x7f);
}

/** Multiword and Ultra DMA words with the chosen mode marked. ATA8-ACS 7.16.7.52. */
function putModes(put: (word: number, value: number) => void, mode: number): void {
  const chosen = (kind: number): number => ((mode & 0xf8) === kind ? 0x100 << (mode & 7) : 0);
  put(63, 0x07 | chosen(0x20));
  put(88, 0x3f | (mode === 0 ? 0x2000 : chosen(0x40)));
}

/** IDENTIFY DEVICE. ATA8-ACS 7.16.7. */
export function identifyDevice(state: AtaDriveState, identity: AtaIdentity): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  const put = (word: number, value: number): void => view.setUint16(word * 2, value & 0xffff, true);
  const put32 = (word: number, value: number): void => view.setUint32(word * 2, value, true);
  const sectors = sectorsOf(state);
  const cylinders = (heads: number, track: number): number =>
    Math.min(CYLINDERS_MAX, Math.max(1, Math.floor(sectors / (heads * track))));
  put(0, 0x0040); // a fixed drive
  put(1, cylinders(HEADS, SECTORS_PER_TRACK));
  put(3, HEADS);
  put(6, SECTORS_PER_TRACK);
  putText(view, 10, 10, identity.serial);
  putText(view, 23, 4, identity.revision);
  putText(view, 27, 20, identity.model);
  put(47, 0x8000 | MULTIPLE_MAX);
  put(48, 1); // 32-bit PIO
  put(49, 0x0f00); // LBA, DMA, IORDY
  put(50, 0x4000);
  put(51, 0x0200);
  put(52, 0x0200);
  put(53, 7); // words 54 to 58, 64 to 70 and 88 are valid
  const current = cylinders(state.heads, state.sectorsPerTrack);
  put(54, current);
  put(55, state.heads);
  put(56, state.sectorsPerTrack);
  put32(57, current * state.heads * state.sectorsPerTrack);
  put(59, state.multiple > 0 ? 0x100 | state.multiple : 0);
  put32(60, Math.min(sectors, LBA28_MAX));
  put(64, 3); // PIO modes 3 and 4
  for (const word of [65, 66, 67, 68]) put(word, 120); // nanoseconds a word
  putModes(put, state.transferMode);
  if (identity.sata) {
    put(75, 31); // queue depth 32
    put(76, 0x0106); // native queueing, 1.5 and 3 Gb/s
  } else put(93, 0x6001); // an 80-conductor cable, device 0 found by jumper
  put(80, 0x01f0); // ATA-4 to ATA8-ACS
  put(82, 0x4020); // NOP, write cache
  put(83, 0x7400); // FLUSH CACHE (EXT), 48 bits
  put(84, 0x4040); // WRITE DMA FUA EXT
  put(85, 0x4000 | (state.writeThrough === 0 ? 0x20 : 0));
  put(86, 0x3400);
  put(87, 0x4040);
  view.setBigUint64(200, BigInt(sectors), true);
  if (identity.wwn !== undefined) {
    view.setUint16(84 * 2, 0x4140, true);
    view.setUint16(87 * 2, 0x4140, true);
    for (let i = 0; i < 4; i++) put(108 + i, Number((identity.wwn >> BigInt(48 - 16 * i)) & 0xffffn));
  }
  put(106, 0x4000); // one logical sector a physical one, 512 bytes
  if (identity.trim) {
    put(105, TRIM_BLOCKS_MAX);
    put(169, 1);
  }
  put(217, identity.rotationRate ?? 1);
  return bytes;
}

/** IDENTIFY PACKET DEVICE for a CD drive. ATA8-ACS 7.17. */
export function identifyPacketDevice(state: AtaDriveState, identity: AtaIdentity): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  const put = (word: number, value: number): void => view.setUint16(word * 2, value & 0xffff, true);
  put(0, 0x8580); // ATAPI, CD-ROM, removable, DRQ within 50 us, packets of 12 bytes
  putText(view, 10, 10, identity.serial);
  putText(view, 23, 4, identity.revision);
  putText(view, 27, 20, identity.model);
  put(48, 1);
  put(49, 0x0f00);
  put(53, 7);
  putModes(put, state.transferMode);
  put(64, 3);
  for (const word of [65, 66, 67, 68]) put(word, 120);
  put(71, 30);
  put(72, 30);
  if (identity.sata) put(76, 0x0006);
  put(80, 0x01f0);
  put(82, 0x4210); // PACKET, DEVICE RESET, NOP
  put(83, 0x4000);
  put(84, 0x4000);
  put(85, 0x4210);
  put(86, 0);
  put(87, 0x4000);
  return bytes;
}

/** What SET FEATURES says; false: it is aborted. ATA8-ACS 7.45. */
export function setFeatures(state: AtaDriveState, feature: number, count: number): boolean {
  switch (feature) {
    case 0x02: // write cache on, off
      state.writeThrough = 0;
      return true;
    case 0x82:
      state.writeThrough = 1;
      return true;
    case 0x03: {
      const kind = count & 0xf8;
      const mode = count & 7;
      if (kind === 0 ? mode > 1 : kind === 0x08 ? mode > 4 : kind === 0x20 ? mode > 2 : kind === 0x40 ? mode > 5 : true)
        return false;
      state.transferMode = kind >= 0x20 ? count : 0;
      return true;
    }
    // Power management, read look-ahead, what a software reset keeps, SATA features: without effect here.
    case 0x05:
    case 0x85:
    case 0xaa:
    case 0x55:
    case 0x66:
    case 0xcc:
    case 0x10:
    case 0x90:
    case 0x42:
    case 0xc2:
      return true;
    default:
      return false;
  }
}

/** The ranges of DATA SET MANAGEMENT's TRIM: eight bytes each, 48 bits of address and 16 of length. ATA8-ACS 7.10.3. */
export function trimRanges(list: Uint8Array): { lba: number; count: number }[] {
  const view = new DataView(list.buffer, list.byteOffset, list.length);
  const out: { lba: number; count: number }[] = [];
  for (let at = 0; at + 8 <= list.length; at += 8) {
    const count = view.getUint16(at + 6, true);
    if (count === 0) continue;
    out.push({ lba: view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32, count });
  }
  return out;
}
