/**
 * The primary volume descriptor of an ISO 9660 image (ECMA-119, 8.4): 2048 bytes from byte 32768. Only identifiers and
 * sizes are read; nothing of the image is trusted.
 */
export interface VolumeDescriptor {
  readonly systemId: string;
  readonly volumeId: string;
  readonly publisher: string;
  readonly application: string;
  /** Bytes that the volume says it has. */
  readonly volumeBytes: number;
}

export const descriptorOffset = 32768;
export const descriptorBytes = 2048;

/** Identifiers are padded with spaces; some writers put zeros. */
const text = (data: Uint8Array, at: number, length: number): string =>
  Buffer.from(data.subarray(at, at + length))
    .toString('latin1')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed
    .replace(/[\u0000-\u001f\u007f]/g, ' ')
    .trim();

/** The descriptor in these 2048 bytes; undefined where they are none. */
export function parseVolumeDescriptor(data: Uint8Array): VolumeDescriptor | undefined {
  // Type 1, standard identifier "CD001", version 1.
  if (data.length < descriptorBytes || data[0] !== 1 || text(data, 1, 5) !== 'CD001' || data[6] !== 1) return undefined;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return {
    systemId: text(data, 8, 32),
    volumeId: text(data, 40, 32),
    publisher: text(data, 318, 128),
    application: text(data, 574, 128),
    // Volume space size in blocks (8.4.8) and block size (8.4.12), the little-endian halves of both.
    volumeBytes: view.getUint32(80, true) * view.getUint16(128, true),
  };
}
