import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { initrdProblem } from './initrd-check.ts';

/** A newc archive with one file of `size` bytes. */
function archive(size: number): Uint8Array {
  const member = (name: string, bytes: number): Buffer => {
    const fields = [1, 0o100644, 0, 0, 1, 0, bytes, 0, 0, 0, 0, name.length + 1, 0];
    const head = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
    const padded = (length: number): number => Math.ceil(length / 4) * 4;
    const out = Buffer.alloc(padded(head.length) + padded(bytes), 0x41);
    out.fill(0, head.length, padded(head.length));
    out.write(head);
    return out;
  };
  return Buffer.concat([member('file', size), member('TRAILER!!!', 0), Buffer.alloc(512)]);
}

test('whole initial RAM disks pass, cut ones are found', async () => {
  const plain = archive(10_001);
  const random = Uint8Array.from({ length: 50_000 }, (_, i) => (i * 2654435761) >>> 24);
  const forms = [
    plain,
    gzipSync(random),
    zstdCompressSync(random),
    Buffer.concat([gzipSync(random), Buffer.alloc(2), gzipSync(plain)]),
  ];
  // So long that the second archive is still to be read when the first has ended.
  forms.push(Buffer.concat([gzipSync(random), Buffer.alloc(3), gzipSync(randomBytes(3 << 20))]));
  for (const form of forms) assert.equal(await initrdProblem(form), undefined);
  for (const form of forms.slice(0, 3)) assert.equal(await initrdProblem(form.subarray(0, form.length >> 1)), 'is truncated');
  assert.equal(await initrdProblem(plain.subarray(0, 60)), 'is truncated');
  const broken = Buffer.from(gzipSync(random));
  broken.fill(0xff, 40, 400);
  assert.match((await initrdProblem(broken)) ?? '', /damaged/);
  assert.equal(await initrdProblem(new Uint8Array(0)), 'is empty');
  assert.equal(await initrdProblem(Buffer.from('something else')), undefined);
});
