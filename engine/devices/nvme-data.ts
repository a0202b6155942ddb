/** Data structures that an NVMe controller sends. NVM Express 1.3, 5.14.1.2 and 5.15. */

const PAGE = 4096;

export interface NvmeIdentity {
  /** At most 20, 40 and 8 characters of ASCII. */
  readonly serial: string;
  readonly model: string;
  readonly revision: string;
  /** Eight bytes that no other namespace of the machine has. */
  readonly eui64: Uint8Array;
  /** `2^mdts` pages are moved by one command at most. */
  readonly mdts: number;
  readonly readOnly: boolean;
  readonly discard: boolean;
}

const text = (value: string, length: number): Uint8Array =>
  Uint8Array.from(value.padEnd(length).slice(0, length), (c) => c.charCodeAt(0) & 0x7f);

/** NVMe 5.15.3. */
export function identifyController(identity: NvmeIdentity, queues: number): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0x1b36, true);
  view.setUint16(2, 0x1af4, true);
  bytes.set(text(identity.serial, 20), 4);
  bytes.set(text(identity.model, 40), 24);
  bytes.set(text(identity.revision, 8), 64);
  bytes[72] = 6; // commands that arbitration likes at once, as a power of two
  bytes[77] = identity.mdts;
  view.setUint32(80, 0x00010300, true);
  bytes[258] = 3; // aborts at once, events that may wait, from zero
  bytes[259] = 3;
  bytes[260] = 0x03; // one firmware slot, read-only
  bytes[261] = 0x04; // logs have offsets and long lengths
  view.setUint16(266, 0x157, true);
  view.setUint16(268, 0x175, true);
  bytes[512] = 0x66; // entries of 64 and 16 bytes
  bytes[513] = 0x44;
  view.setUint32(516, 1, true);
  view.setUint16(520, (identity.discard ? 4 : 0) | 8, true); // deallocation, write zeroes
  bytes[525] = 1; // a volatile write cache
  bytes.set(text(`nqn.2019-08.org.vivarium:${identity.serial}`, 60), 768);
  bytes.subarray(768, 768 + 60).forEach((byte, i) => {
    if (byte === 0x20) bytes[768 + i] = 0;
  });
  view.setUint16(2048, 0x9c4, true); // power state 0: 25 W
  view.setUint16(514, Math.min(0xffff, queues * 64), true); // commands that may be outstanding
  return bytes;
}

/** NVMe 5.15.2. */
export function identifyNamespace(identity: NvmeIdentity, blocks: number, blockSize: number): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  const view = new DataView(bytes.buffer);
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(blocks), true);
  bytes[24] = identity.discard ? 1 : 0; // thin
  bytes[99] = identity.readOnly ? 1 : 0; // write protected
  bytes.set(identity.eui64, 120);
  bytes[130] = Math.log2(blockSize);
  return bytes;
}

/** The list of names of the namespace. NVMe 5.15.4. */
export function namespaceDescriptors(identity: NvmeIdentity): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  bytes.set([1, 8], 0);
  bytes.set(identity.eui64, 4);
  return bytes;
}

/** A healthy drive at 27 degrees. NVMe 5.14.1.2. */
export function smartLog(): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  view.setUint16(1, 300, true);
  bytes[3] = 100;
  bytes[4] = 10;
  return bytes;
}
