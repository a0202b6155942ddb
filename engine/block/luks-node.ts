import { BlockError, sane } from './errors.ts';
import type { BlockFile, BlockHost } from './file.ts';
import { FileNode } from './file-node.ts';
import { LUKS_HEADER_BYTES, readLuksHeader, type SectorCipher, unlockLuks } from './luks.ts';
import { type BlockRun, checkRange } from './node.ts';

const SECTOR = 512;

/** A bare LUKS1 volume (QEMU's `luks` format, what cryptsetup makes). */
export class LuksNode extends FileNode {
  readonly format = 'luks';
  private readonly cipher: SectorCipher | null;

  constructor(file: BlockFile, host: BlockHost, password: Uint8Array | null, noData: boolean) {
    const bytes = new Uint8Array(LUKS_HEADER_BYTES);
    file.pread(bytes, 0);
    const header = readLuksHeader(bytes);
    const base = header.payloadOffset * SECTOR;
    sane(base <= file.size(), 'LUKS payload lies beyond the end of the file');
    super(file, base, Math.floor((file.size() - base) / SECTOR) * SECTOR);
    if (noData) this.cipher = null;
    else {
      if (!password) throw new BlockError('password', `${file.name}: the image is encrypted and needs a password`);
      const found = unlockLuks(host.crypto, header, password, (offset, length) => {
        sane(offset + length <= file.size(), 'LUKS key material lies outside the file');
        const part = new Uint8Array(length);
        file.pread(part, offset);
        return part;
      });
      this.cipher = found;
    }
  }

  read(offset: number, buf: Uint8Array): void {
    checkRange(this.length, offset, buf.length);
    if (!this.cipher) throw new BlockError('password', `${this.filename}: opened without a password`);
    const start = offset - (offset % SECTOR);
    const end = Math.ceil((offset + buf.length) / SECTOR) * SECTOR;
    const whole = start === offset && end - start === buf.length ? buf : new Uint8Array(end - start);
    this.file.pread(whole, this.base + start);
    this.cipher.decrypt(whole, start / SECTOR);
    if (whole !== buf) buf.set(whole.subarray(offset - start, offset - start + buf.length));
  }

  write(offset: number, buf: Uint8Array): void {
    checkRange(this.length, offset, buf.length);
    this.writable();
    if (!this.cipher) throw new BlockError('password', `${this.filename}: opened without a password`);
    const start = offset - (offset % SECTOR);
    const end = Math.ceil((offset + buf.length) / SECTOR) * SECTOR;
    const whole = new Uint8Array(end - start);
    if (whole.length !== buf.length) this.read(start, whole);
    whole.set(buf, offset - start);
    this.cipher.encrypt(whole, start / SECTOR);
    this.file.pwrite(whole, this.base + start);
  }

  writeZeroes(offset: number, length: number): void {
    const zeroes = new Uint8Array(Math.min(length, 1 << 20));
    for (let done = 0; done < length; done += zeroes.length)
      this.write(offset + done, zeroes.subarray(0, Math.min(zeroes.length, length - done)));
  }

  discard(offset: number, length: number): void {
    checkRange(this.length, offset, length);
  }

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.length, offset, length);
    return { kind: 'data', length };
  }
}
