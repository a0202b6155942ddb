/**
 * LUKS1 headers and the ciphers of encrypted images. Source: LUKS1 On-Disk Format Specification 1.2.3;
 * cipher and IV names as dm-crypt spells them. Also the old AES-CBC of qcow2 (docs/interop/qcow2.txt, "Data encryption").
 */
import { BlockError, sane } from './errors.ts';
import type { Crypto } from './file.ts';

/** Encrypts and decrypts whole 512-byte sectors in place. */
export interface SectorCipher {
  /** What to call it: `luks` or `aes`. */
  readonly kind: 'luks' | 'aes';
  /** True if sector numbers count from the start of the host file, false if from the start of the guest's disk. */
  readonly byHost: boolean;
  encrypt(buf: Uint8Array, sector: number): void;
  decrypt(buf: Uint8Array, sector: number): void;
}

const SECTOR = 512;
const LUKS_MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
const SLOT_ACTIVE = 0x00ac71f3;
const SLOT_INACTIVE = 0x0000dead;
const SLOTS = 8;
const DIGEST_LENGTH = 20;
export const LUKS_HEADER_BYTES = 592;
/** Above this a header is made to keep us busy, not to keep secrets. */
const MAX_ITERATIONS = 20_000_000;
const MAX_TOTAL_ITERATIONS = 40_000_000;
const MAX_STRIPES = 10_000;

export interface LuksSlot {
  active: boolean;
  iterations: number;
  salt: Uint8Array;
  /** Sectors from the start of the header. */
  keyOffset: number;
  stripes: number;
}

export interface LuksHeader {
  cipher: string;
  mode: string;
  hash: string;
  payloadOffset: number;
  keyBytes: number;
  digest: Uint8Array;
  digestSalt: Uint8Array;
  digestIterations: number;
  uuid: string;
  slots: LuksSlot[];
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** True if the bytes start a LUKS header. */
export function isLuks(start: Uint8Array): boolean {
  return start.length >= 8 && LUKS_MAGIC.every((byte, i) => start[i] === byte);
}

export function readLuksHeader(bytes: Uint8Array): LuksHeader {
  if (!isLuks(bytes) || bytes.length < LUKS_HEADER_BYTES) throw new BlockError('corrupt', 'no LUKS header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = view.getUint16(6);
  if (version !== 1) throw new BlockError('unsupported', `LUKS version ${version} is not supported`);
  const header: LuksHeader = {
    cipher: text(bytes.subarray(8, 40)),
    mode: text(bytes.subarray(40, 72)),
    hash: text(bytes.subarray(72, 104)),
    payloadOffset: view.getUint32(104),
    keyBytes: view.getUint32(108),
    digest: bytes.slice(112, 132),
    digestSalt: bytes.slice(132, 164),
    digestIterations: view.getUint32(164),
    uuid: text(bytes.subarray(168, 208)),
    slots: [],
  };
  sane([16, 24, 32, 48, 64].includes(header.keyBytes), 'LUKS key length is not valid');
  sane(header.digestIterations > 0 && header.digestIterations <= MAX_ITERATIONS, 'LUKS digest iterations are not plausible');
  for (let i = 0; i < SLOTS; i++) {
    const at = 208 + i * 48;
    const active = view.getUint32(at) === SLOT_ACTIVE;
    sane(active || view.getUint32(at) === SLOT_INACTIVE, 'LUKS key slot state is not valid');
    const slot: LuksSlot = {
      active,
      iterations: view.getUint32(at + 4),
      salt: bytes.slice(at + 8, at + 40),
      keyOffset: view.getUint32(at + 40),
      stripes: view.getUint32(at + 44),
    };
    if (active) {
      sane(slot.iterations > 0 && slot.iterations <= MAX_ITERATIONS, 'LUKS key slot iterations are not plausible');
      sane(slot.stripes > 0 && slot.stripes <= MAX_STRIPES, 'LUKS key slot stripes are not plausible');
      sane(slot.keyOffset >= 2, 'LUKS key material overlaps the header');
    }
    header.slots.push(slot);
  }
  const total = header.slots.reduce((sum, slot) => sum + (slot.active ? slot.iterations + header.digestIterations : 0), 0);
  sane(total <= MAX_TOTAL_ITERATIONS, 'LUKS key slots ask for more work than is plausible');
  return header;
}

function diffuse(crypto: Crypto, hash: string, block: Uint8Array): void {
  const digestLength = crypto.hash(hash, new Uint8Array(0)).length;
  for (let i = 0, at = 0; at < block.length; i++, at += digestLength) {
    const part = block.subarray(at, Math.min(block.length, at + digestLength));
    const input = new Uint8Array(4 + part.length);
    new DataView(input.buffer).setUint32(0, i);
    input.set(part, 4);
    part.set(crypto.hash(hash, input).subarray(0, part.length));
  }
}

function xorInto(target: Uint8Array, other: Uint8Array): void {
  for (let i = 0; i < target.length; i++) target[i] ^= other[i];
}

/** The anti-forensic splitter, joined. LUKS1 2.4. */
function afMerge(crypto: Crypto, hash: string, material: Uint8Array, stripes: number, length: number): Uint8Array {
  const block = new Uint8Array(length);
  for (let i = 0; i < stripes; i++) {
    xorInto(block, material.subarray(i * length, (i + 1) * length));
    if (i < stripes - 1) diffuse(crypto, hash, block);
  }
  return block;
}

function afSplit(crypto: Crypto, hash: string, key: Uint8Array, stripes: number): Uint8Array {
  const length = key.length;
  const out = new Uint8Array(length * stripes);
  const block = new Uint8Array(length);
  out.set(crypto.random(length * (stripes - 1)));
  for (let i = 0; i < stripes - 1; i++) {
    xorInto(block, out.subarray(i * length, (i + 1) * length));
    diffuse(crypto, hash, block);
  }
  xorInto(block, key);
  out.set(block, (stripes - 1) * length);
  return out;
}

function sectorIv(sector: number, wide: boolean): Uint8Array {
  const iv = new Uint8Array(16);
  const view = new DataView(iv.buffer);
  view.setUint32(0, sector >>> 0, true);
  if (wide) view.setUint32(4, Math.floor(sector / 0x100000000), true);
  return iv;
}

/** Sectors done with one call of the cipher. */
const BATCH = 128;

/**
 * XTS (IEEE 1619) over ECB: tweaks are made here, so that one call of the host's cipher does many sectors. A cipher
 * object for every sector would cost ten times as much.
 */
function xts(crypto: Crypto, key: Uint8Array, ivFor: (sector: number) => Uint8Array): Pick<SectorCipher, 'encrypt' | 'decrypt'> {
  const half = key.length / 2;
  const name = `aes-${half * 8}-ecb`;
  const dataKey = key.slice(0, half);
  const tweakKey = key.slice(half);
  const tweaks = new Uint32Array((BATCH * SECTOR) / 4);
  const work = new Uint8Array(BATCH * SECTOR);
  const words = new Uint32Array(work.buffer);
  const run = (decrypt: boolean) => (buf: Uint8Array, sector: number) => {
    for (let at = 0; at < buf.length; at += work.length) {
      const length = Math.min(work.length, buf.length - at);
      const sectors = length / SECTOR;
      const ivs = new Uint8Array(sectors * 16);
      for (let i = 0; i < sectors; i++) ivs.set(ivFor(sector + at / SECTOR + i), i * 16);
      const first = crypto.cipher(name, tweakKey, null, ivs);
      const view = new DataView(first.buffer, first.byteOffset, first.length);
      let t = 0;
      for (let i = 0; i < sectors; i++) {
        let a = view.getUint32(i * 16, true);
        let b = view.getUint32(i * 16 + 4, true);
        let c = view.getUint32(i * 16 + 8, true);
        let d = view.getUint32(i * 16 + 12, true);
        for (let block = 0; block < SECTOR / 16; block++) {
          tweaks[t++] = a;
          tweaks[t++] = b;
          tweaks[t++] = c;
          tweaks[t++] = d;
          // Times x in GF(2^128), little-endian, reduced by x^7 + x^2 + x + 1.
          const carry = d >>> 31;
          d = (d << 1) | (c >>> 31);
          c = (c << 1) | (b >>> 31);
          b = (b << 1) | (a >>> 31);
          a = (a << 1) ^ (carry ? 0x87 : 0);
        }
      }
      const part = buf.subarray(at, at + length);
      work.set(part);
      for (let i = 0; i < t; i++) words[i] ^= tweaks[i];
      const input = work.subarray(0, length);
      work.set(decrypt ? crypto.decipher(name, dataKey, null, input) : crypto.cipher(name, dataKey, null, input));
      for (let i = 0; i < t; i++) words[i] ^= tweaks[i];
      part.set(input);
    }
  };
  return { encrypt: run(false), decrypt: run(true) };
}

/** A cipher by dm-crypt's names, e.g. `aes`, `xts-plain64`. Throws `unsupported`. */
export function makeSectorCipher(
  crypto: Crypto,
  kind: 'luks' | 'aes',
  cipher: string,
  mode: string,
  key: Uint8Array,
): SectorCipher {
  const dash = mode.indexOf('-');
  const chain = dash < 0 ? mode : mode.slice(0, dash);
  const ivName = dash < 0 ? 'plain' : mode.slice(dash + 1);
  if (cipher !== 'aes' || !['xts', 'cbc', 'ecb'].includes(chain))
    throw new BlockError('unsupported', `Algorithm '${cipher}-${mode}' is not supported`);
  const bits = chain === 'xts' ? key.length * 4 : key.length * 8;
  const name = `aes-${bits}-${chain}`;
  if (![128, 192, 256].includes(bits) || name === 'aes-192-xts')
    throw new BlockError('unsupported', `Algorithm '${name}' is not supported`);
  let ivFor: (sector: number) => Uint8Array;
  if (ivName === 'plain64' || ivName === 'plain') ivFor = (sector) => sectorIv(sector, ivName === 'plain64');
  else if (ivName.startsWith('essiv:')) {
    const ivKey = crypto.hash(ivName.slice(6), key);
    const essiv = `aes-${ivKey.length * 8}-ecb`;
    ivFor = (sector) => crypto.cipher(essiv, ivKey, null, sectorIv(sector, true));
  } else throw new BlockError('unsupported', `IV generator '${ivName}' is not supported`);
  if (chain === 'xts') return { kind, byHost: kind === 'luks', ...xts(crypto, key, ivFor) };
  const run = (decrypt: boolean) => (buf: Uint8Array, sector: number) => {
    for (let at = 0; at < buf.length; at += SECTOR, sector++) {
      const part = buf.subarray(at, at + SECTOR);
      const iv = chain === 'ecb' ? null : ivFor(sector);
      part.set(decrypt ? crypto.decipher(name, key, iv, part) : crypto.cipher(name, key, iv, part));
    }
  };
  return { kind, byHost: kind === 'luks', encrypt: run(false), decrypt: run(true) };
}

/** qcow2's old encryption: AES-128-CBC, the password cut or filled to 16 bytes, sectors of the guest. */
export function legacyAesCipher(crypto: Crypto, password: Uint8Array): SectorCipher {
  const key = new Uint8Array(16);
  key.set(password.subarray(0, 16));
  return makeSectorCipher(crypto, 'aes', 'aes', 'cbc-plain64', key);
}

function keyCipher(crypto: Crypto, header: LuksHeader, key: Uint8Array): SectorCipher {
  return makeSectorCipher(crypto, 'luks', header.cipher, header.mode, key);
}

/** Tries a password on every active slot. `read` gives bytes from the start of the header. Throws `password`. */
export function unlockLuks(
  crypto: Crypto,
  header: LuksHeader,
  password: Uint8Array,
  read: (offset: number, length: number) => Uint8Array,
): SectorCipher {
  for (const slot of header.slots) {
    if (!slot.active) continue;
    const slotKey = crypto.pbkdf2(password, slot.salt, slot.iterations, header.keyBytes, header.hash);
    const length = header.keyBytes * slot.stripes;
    const material = read(slot.keyOffset * SECTOR, Math.ceil(length / SECTOR) * SECTOR);
    keyCipher(crypto, header, slotKey).decrypt(material, 0);
    const key = afMerge(crypto, header.hash, material.subarray(0, length), slot.stripes, header.keyBytes);
    const digest = crypto.pbkdf2(key, header.digestSalt, header.digestIterations, DIGEST_LENGTH, header.hash);
    if (digest.every((byte, i) => byte === header.digest[i])) return keyCipher(crypto, header, key);
  }
  throw new BlockError('password', 'Invalid password, cannot unlock any keyslot');
}

export interface LuksOptions {
  cipher?: string;
  mode?: string;
  hash?: string;
  keyBytes?: number;
  /** PBKDF2 rounds for the key slot; default what takes about `iterTime` ms. */
  iterTime?: number;
}

/** A new header with one key slot. Returns its bytes (header and key material) and the cipher. */
export function createLuks(
  crypto: Crypto,
  password: Uint8Array,
  options: LuksOptions,
  now: () => number,
): { bytes: Uint8Array; cipher: SectorCipher; payloadOffset: number } {
  const cipher = options.cipher ?? 'aes';
  const mode = options.mode ?? 'xts-plain64';
  const hash = options.hash ?? 'sha256';
  const keyBytes = options.keyBytes ?? (mode.startsWith('xts') ? 64 : 32);
  const stripes = 4000;
  const key = new Uint8Array(crypto.random(keyBytes));
  const probe = 20000;
  const start = now();
  crypto.pbkdf2(password, new Uint8Array(32), probe, keyBytes, hash);
  const perSecond = probe / Math.max(0.001, now() - start);
  const iterations = Math.max(1000, Math.min(MAX_ITERATIONS, Math.round((perSecond * (options.iterTime ?? 2000)) / 1000)));
  const materialSectors = Math.ceil(Math.ceil((keyBytes * stripes) / SECTOR) / 8) * 8;
  const payloadOffset = 8 + materialSectors * SLOTS;
  const bytes = new Uint8Array(payloadOffset * SECTOR);
  const view = new DataView(bytes.buffer);
  const encoder = new TextEncoder();
  bytes.set(LUKS_MAGIC, 0);
  view.setUint16(6, 1);
  bytes.set(encoder.encode(cipher), 8);
  bytes.set(encoder.encode(mode), 40);
  bytes.set(encoder.encode(hash), 72);
  view.setUint32(104, payloadOffset);
  view.setUint32(108, keyBytes);
  const digestSalt = crypto.random(32);
  const digestIterations = Math.max(1000, Math.floor(iterations / 8));
  bytes.set(crypto.pbkdf2(key, digestSalt, digestIterations, DIGEST_LENGTH, hash), 112);
  bytes.set(digestSalt, 132);
  view.setUint32(164, digestIterations);
  const u = crypto.random(16);
  u[6] = (u[6] & 15) | 0x40;
  u[8] = (u[8] & 63) | 0x80;
  const hex = [...u].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  bytes.set(encoder.encode(hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')), 168);
  for (let i = 0; i < SLOTS; i++) {
    const at = 208 + i * 48;
    view.setUint32(at, i === 0 ? SLOT_ACTIVE : SLOT_INACTIVE);
    view.setUint32(at + 40, 8 + materialSectors * i);
    view.setUint32(at + 44, stripes);
  }
  const salt = crypto.random(32);
  view.setUint32(208 + 4, iterations);
  bytes.set(salt, 208 + 8);
  const split = new Uint8Array(Math.ceil((keyBytes * stripes) / SECTOR) * SECTOR);
  split.set(afSplit(crypto, hash, key, stripes));
  makeSectorCipher(crypto, 'luks', cipher, mode, crypto.pbkdf2(password, salt, iterations, keyBytes, hash)).encrypt(split, 0);
  bytes.set(split, 8 * SECTOR);
  return { bytes, cipher: makeSectorCipher(crypto, 'luks', cipher, mode, key), payloadOffset };
}
