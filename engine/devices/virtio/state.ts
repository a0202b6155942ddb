/**
 * The registers that every virtio device has, whatever its transport, and the names of the common bits.
 * virtio 1.2, chapters 2, 4.1 and 6.
 */
import { bytes, struct, u16s, u32, u32s, type View } from '../../memory/struct.ts';

/** The most queues that one device may have. */
export const VIRTIO_QUEUES_MAX = 120;

/** Device status bits. virtio 1.2, 2.1. */
export const STATUS_ACKNOWLEDGE = 1;
export const STATUS_DRIVER = 2;
export const STATUS_DRIVER_OK = 4;
export const STATUS_FEATURES_OK = 8;
export const STATUS_NEEDS_RESET = 64;
export const STATUS_FAILED = 128;

/** Feature bits that belong to no device type. virtio 1.2, chapter 6; legacy ones 6.3. */
export const F_ANY_LAYOUT = 27;
export const F_INDIRECT_DESC = 28;
export const F_EVENT_IDX = 29;
export const F_VERSION_1 = 32;
export const F_RING_PACKED = 34;
export const F_IN_ORDER = 35;
export const F_RING_RESET = 40;

/** A vector register that names no vector. virtio 1.2, 4.1.5.1.2. */
export const NO_VECTOR = 0xffff;

export const virtioState = struct('virtio', 1, {
  status: u32,
  /** Status as it was before a reset that waits for requests that are still being carried out. */
  statusBefore: u32,
  /** 1 while the last reset came through a modern interface, whose driver waits until status reads as 0. */
  resetWaits: u32,
  deviceFeatureSelect: u32,
  driverFeatureSelect: u32,
  driverFeatures: u32s(2),
  queueSelect: u32,
  /** Bit 0: a queue has used buffers; bit 1: the configuration changed. */
  isr: u32,
  configVector: u32,
  configGeneration: u32,
  /** Resets so far: what was taken from a queue before one is void after it. */
  epoch: u32,
  /** Chains that I/O threads work on. */
  inFlight: u32,
  queueSize: u16s(VIRTIO_QUEUES_MAX),
  queueVector: u16s(VIRTIO_QUEUES_MAX),
  queueEnabled: bytes(VIRTIO_QUEUES_MAX),
  /** 1 after the driver reset this queue alone, until it is put to work again. */
  queueResets: bytes(VIRTIO_QUEUES_MAX),
  /** Rises with each reset of one queue, for the same purpose as `epoch`. */
  queueEpoch: u16s(VIRTIO_QUEUES_MAX),
  /** Low and high half of each address: descriptor area, driver area, device area. */
  queueDesc: u32s(VIRTIO_QUEUES_MAX * 2),
  queueDriver: u32s(VIRTIO_QUEUES_MAX * 2),
  queueDevice: u32s(VIRTIO_QUEUES_MAX * 2),
  /** Where the device takes the next chain: a free-running index (split) or a ring position (packed). */
  nextAvail: u16s(VIRTIO_QUEUES_MAX),
  nextUsed: u16s(VIRTIO_QUEUES_MAX),
  /** Packed: bit 0 the wrap counter of `nextAvail`, bit 1 that of `nextUsed`. */
  wrap: bytes(VIRTIO_QUEUES_MAX),
  /** Ring entries used since the driver was last considered for an interrupt; saturates. */
  unsignalled: u16s(VIRTIO_QUEUES_MAX),
});
export type VirtioState = View<typeof virtioState.fields>;

/** True where feature `bit` is set in a pair of words. */
export const hasBit = (words: ArrayLike<number>, bit: number): boolean => ((words[bit >> 5] >>> (bit & 31)) & 1) !== 0;

/** The pair of words with the given bits set. */
export function featureWords(bits: Iterable<number>): [number, number] {
  const words: [number, number] = [0, 0];
  for (const bit of bits) words[bit >> 5] = (words[bit >> 5] | (1 << (bit & 31))) >>> 0;
  return words;
}
