import assert from 'node:assert/strict';
import { it } from 'node:test';
import { crypto } from '../host/block-crypto.ts';
import { BlockError } from './errors.ts';
import { createLuks, makeSectorCipher, readLuksHeader, unlockLuks } from './luks.ts';

const text = (s: string) => new TextEncoder().encode(s);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

it('a header made here opens with its password and no other', () => {
  for (const mode of ['xts-plain64', 'cbc-essiv:sha256', 'cbc-plain']) {
    const { bytes, cipher } = createLuks(crypto, text('right'), { iterTime: 1, mode }, () => Date.now() / 1000);
    const header = readLuksHeader(bytes);
    const read = (offset: number, length: number) => bytes.slice(offset, offset + length);
    const opened = unlockLuks(crypto, header, text('right'), read);
    const sector = new Uint8Array(1024).fill(0x5a);
    cipher.encrypt(sector, 77);
    assert.notEqual(sector[0], sector[512]);
    opened.decrypt(sector, 77);
    assert.ok(sector.every((byte) => byte === 0x5a));
    assert.throws(
      () => unlockLuks(crypto, header, text('wrong'), read),
      (error: unknown) => error instanceof BlockError && error.code === 'password',
    );
  }
});

it('AES-XTS is that of IEEE 1619, vector 4', () => {
  const key = Buffer.from('2718281828459045235360287471352631415926535897932384626433832795', 'hex');
  const plain = new Uint8Array(512).map((_, i) => i & 255);
  makeSectorCipher(crypto, 'luks', 'aes', 'xts-plain64', key).encrypt(plain, 0);
  assert.equal(hex(plain.subarray(0, 32)), '27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c');
});

it('headers made to keep us busy are refused', () => {
  const { bytes } = createLuks(crypto, text('x'), { iterTime: 1 }, () => Date.now() / 1000);
  const change = (at: number, value: number) => {
    const copy = bytes.slice(0, 592);
    new DataView(copy.buffer).setUint32(at, value);
    return copy;
  };
  for (const evil of [
    change(164, 0xffffffff),
    change(108, 0x10000000),
    change(208 + 4, 0xffffffff),
    change(208 + 44, 0xffffffff),
    change(208, 5),
  ])
    assert.throws(() => readLuksHeader(evil), BlockError);
});
