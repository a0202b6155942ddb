/**
 * L2 entries, decoded to one form: a cluster of 1 or 32 subclusters, each allocated, zero, or neither.
 * Source: docs/interop/qcow2.txt, "Cluster mapping", "Extended L2 Entries".
 */
import { BlockError } from '../errors.ts';
import type { Qcow2Meta } from './meta.ts';

const BIT62 = 0x40000000;

/** One L2 entry. `host` is -1 where no cluster is attached. Reused between calls: copy what must last. */
export interface L2Entry {
  compressed: boolean;
  copied: boolean;
  /** Byte offset of the host cluster, or of the compressed data. */
  host: number;
  /** Compressed only: bytes from `host` to the end of its last sector. */
  length: number;
  /** One bit a subcluster, unsigned. */
  allocated: number;
  zero: number;
}

export class L2Codec {
  private readonly clusterSize: number;
  private readonly clusterBits: number;
  private readonly extended: boolean;
  private readonly external: boolean;
  private readonly version: number;
  private readonly name: string;
  readonly subclusters: number;
  /** All subcluster bits. */
  readonly all: number;

  constructor(meta: Qcow2Meta) {
    this.clusterSize = meta.clusterSize;
    this.clusterBits = meta.header.clusterBits;
    this.extended = meta.extended;
    this.external = meta.external;
    this.version = meta.header.version;
    this.name = meta.file.name;
    this.subclusters = meta.extended ? 32 : 1;
    this.all = meta.extended ? 0xffffffff : 1;
  }

  empty(): L2Entry {
    return { compressed: false, copied: false, host: -1, length: 0, allocated: 0, zero: 0 };
  }

  private bad(what: string): never {
    throw new BlockError('corrupt', `${this.name}: ${what}`);
  }

  /** Throws `corrupt` on reserved bits, offsets off a boundary or out of reach, and contradictory bitmaps. */
  decode(view: DataView, at: number, entry: L2Entry): void {
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    entry.copied = hi >>> 31 === 1;
    if (hi & BIT62) {
      if (this.external) this.bad('compressed cluster with an external data file');
      const x = 62 - (this.clusterBits - 8);
      // x is above 32 for every cluster size, so the split lies in the high word.
      const sectors = (hi & 0x3fffffff) >>> (x - 32);
      const offsetHigh = hi & (2 ** (x - 32) - 1);
      if (offsetHigh >= 0x200000) this.bad('compressed cluster offset is out of reach');
      entry.compressed = true;
      entry.host = offsetHigh * 0x100000000 + lo;
      entry.length = (sectors + 1) * 512 - (lo & 511);
      entry.allocated = this.all;
      entry.zero = 0;
      if (this.extended && view.getUint32(at + 8) | view.getUint32(at + 12))
        this.bad('compressed cluster with a subcluster bitmap');
      return;
    }
    entry.compressed = false;
    entry.length = 0;
    const offsetHigh = hi & 0x00ffffff;
    const offset = offsetHigh * 0x100000000 + ((lo & ~0x1ff) >>> 0);
    if (hi & 0x3f000000 || lo & 0x1fe || offsetHigh >= 0x200000 || offset % this.clusterSize !== 0)
      this.bad(`L2 entry ${hi.toString(16).padStart(8, '0')}${lo.toString(16).padStart(8, '0')} is not valid`);
    entry.host = offset !== 0 || (this.external && entry.copied) ? offset : -1;
    if (this.extended) {
      if (lo & 1) this.bad('zero flag in an extended L2 entry');
      entry.zero = view.getUint32(at + 8);
      entry.allocated = view.getUint32(at + 12);
      if (entry.zero & entry.allocated) this.bad('subcluster is both allocated and zero');
      if (entry.allocated && entry.host < 0) this.bad('subcluster is allocated but its cluster is not');
    } else if (lo & 1) {
      if (this.version < 3) this.bad('zero cluster in a version 2 image');
      entry.zero = 1;
      entry.allocated = 0;
    } else {
      entry.zero = 0;
      entry.allocated = entry.host >= 0 ? 1 : 0;
    }
  }

  encode(view: DataView, at: number, entry: L2Entry): void {
    if (entry.compressed) {
      const x = 62 - (this.clusterBits - 8);
      const sectors = Math.floor((entry.host + entry.length - 1) / 512) - Math.floor(entry.host / 512);
      view.setUint32(at, (BIT62 | (sectors << (x - 32)) | Math.floor(entry.host / 0x100000000)) >>> 0);
      view.setUint32(at + 4, entry.host >>> 0);
      if (this.extended) {
        view.setUint32(at + 8, 0);
        view.setUint32(at + 12, 0);
      }
      return;
    }
    const host = Math.max(0, entry.host);
    view.setUint32(at, (Math.floor(host / 0x100000000) | (entry.host >= 0 && entry.copied ? 0x80000000 : 0)) >>> 0);
    view.setUint32(at + 4, ((host >>> 0) | (!this.extended && entry.zero ? 1 : 0)) >>> 0);
    if (this.extended) {
      view.setUint32(at + 8, entry.zero);
      view.setUint32(at + 12, entry.allocated);
    }
  }
}

/** Bits [from, to) of a 32-bit mask, unsigned. */
export function bits(from: number, to: number): number {
  if (from >= to) return 0;
  const high = to === 32 ? 0xffffffff : 2 ** to - 1;
  return (high & ~(2 ** from - 1)) >>> 0;
}
