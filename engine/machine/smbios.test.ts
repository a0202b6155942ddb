import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildSmbios, type SmbiosConfig } from './smbios.ts';

const config: SmbiosConfig = {
  cpus: 2,
  ramBytes: 40 * 2 ** 30,
  ramRanges: [
    { base: 0, length: 3 * 2 ** 30 },
    { base: 2 ** 32, length: 37 * 2 ** 30 },
  ],
  uuid: Uint8Array.from({ length: 16 }, (_, i) => i),
  serial: 'S\u00e9rie 1\n',
};
const sum = (data: Uint8Array): number => data.reduce((total, byte) => total + byte, 0) & 0xff;

/** Reads the structures as DSP0134 6.1 says: formatted part by its length, strings to a double zero. */
function parse(tables: Uint8Array): { type: number; data: Uint8Array; strings: string[] }[] {
  const out = [];
  let at = 0;
  while (at < tables.length) {
    const data = tables.subarray(at, at + tables[at + 1]);
    at += data.length;
    const strings: string[] = [];
    let text = '';
    while (tables[at] !== 0 || tables[at + 1] !== 0) {
      if (tables[at] === 0) {
        strings.push(text);
        text = '';
      } else text += String.fromCharCode(tables[at]);
      at++;
    }
    if (text !== '') strings.push(text);
    at += 2;
    out.push({ type: data[0], data, strings });
  }
  return out;
}

test('the structures parse, in order, with the lengths of version 2.8', () => {
  const smbios = buildSmbios(config);
  const found = parse(smbios.tables);
  assert.deepEqual(
    found.map(({ type, data }) => [type, data.length]),
    [
      [0, 24],
      [1, 27],
      [3, 22],
      [4, 42],
      [4, 42],
      [16, 23],
      [17, 40],
      [17, 40],
      [17, 40],
      [19, 31],
      [19, 31],
      [32, 11],
      [127, 4],
    ],
  );
  assert.equal(smbios.count, found.length);
  assert.equal(new Set(found.map(({ data }) => data[2] | (data[3] << 8))).size, found.length, 'handles are unique');
});

test('strings and the UUID are as the specification wants them', () => {
  const [, system] = parse(buildSmbios(config).tables);
  assert.deepEqual(system.strings, ['Vivarium', 'Vivarium PC', 'S?rie 1?']);
  assert.deepEqual([...system.data.subarray(4, 8)], [1, 2, 0, 3]);
  assert.deepEqual([...system.data.subarray(8, 16)], [3, 2, 1, 0, 5, 4, 7, 6]);
});

test('memory: modules of 16 GiB, the last one smaller', () => {
  const sizes = parse(buildSmbios(config).tables)
    .filter(({ type }) => type === 17)
    .map(({ data }) => data[12] | (data[13] << 8));
  assert.deepEqual(sizes, [16384, 16384, 8192]);
});

test('entry points: anchors, lengths, checksums', () => {
  const smbios = buildSmbios(config);
  const old = smbios.anchor21(0xf5000);
  assert.equal(old.length, 31);
  assert.equal(sum(old), 0);
  assert.equal(sum(old.subarray(16)), 0);
  assert.equal(new DataView(old.buffer).getUint32(24, true), 0xf5000);
  assert.equal(new DataView(old.buffer).getUint16(22, true), smbios.tables.length);
  const wide = smbios.anchor30(2 ** 33);
  assert.equal(wide.length, 24);
  assert.equal(sum(wide), 0);
  assert.equal(Number(new DataView(wide.buffer).getBigUint64(16, true)), 2 ** 33);
});
