import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { codecs, zstdFrameLength } from '../host/block-codecs.ts';
import { nodeBlockHost as host } from '../host/block-file.ts';
import { BlockError } from './errors.ts';
import { openImage, parseFilename } from './open.ts';
import { RawNode } from './raw.ts';

const dir = mkdtempSync(join(tmpdir(), 'vivarium-raw-'));
after(() => rmSync(dir, { recursive: true, force: true }));

it('reads and writes shared memory, sparse and with holes', () => {
  const path = join(dir, 'disk');
  const file = host.openFile(path, { create: true });
  file.truncate(64 << 20);
  const node = new RawNode(file);
  const shared = new Uint8Array(new SharedArrayBuffer(8192));
  shared.fill(7);
  node.write(10 << 20, shared);
  shared.fill(0);
  node.read((10 << 20) + 100, shared.subarray(0, 10));
  assert.equal(shared[9], 7);
  assert.ok((file.allocated() ?? 0) < 1 << 20);
  node.writeZeroes((10 << 20) + 1, 8190);
  node.read(10 << 20, shared);
  assert.deepEqual([shared[0], shared[1], shared[8190], shared[8191]], [7, 0, 0, 7]);
  node.resize(1 << 20);
  assert.equal(node.size, 1 << 20);
  assert.throws(() => node.read(1 << 20, shared), BlockError);
  node.close();
  node.close();
});

it('a second writer is kept out, a second reader is not', (t) => {
  const path = join(dir, 'locked');
  host.openFile(path, { create: true }).close();
  const writer = host.openFile(path, { write: true });
  try {
    host.openFile(path, { write: true }).close();
    t.skip('no file locks on this host');
    writer.close();
    return;
  } catch (error) {
    assert.equal((error as BlockError).code, 'locked');
  }
  assert.throws(() => host.openFile(path, {}), /lock/);
  writer.close();
  const one = host.openFile(path, {});
  const two = host.openFile(path, {});
  assert.throws(() => host.openFile(path, { write: true }), /lock/);
  one.close();
  two.close();
  host.openFile(path, { write: true }).close();
});

it('host errors have a code and the words of the host', () => {
  for (const [path, code, words] of [
    [join(dir, 'nothing'), 'not-found', /No such file/],
    [dir, 'invalid', /directory/],
    ['/dev/null', 'invalid', /neither/],
  ] as const)
    assert.throws(
      () => openImage(host, path),
      (error: unknown) => error instanceof BlockError && error.code === code && words.test(error.message),
    );
});

it('file names in the forms QEMU writes into images', () => {
  assert.deepEqual(parseFilename('a/b:c'), { path: 'a/b:c' });
  assert.deepEqual(parseFilename('file:x'), { path: 'x' });
  assert.equal(parseFilename('json:{"driver":"qcow2","file":{"driver":"file","filename":"/x"}}').path, '/x');
  assert.throws(() => parseFilename('http://x/y'), /protocol/);
  assert.throws(() => parseFilename('json:{'), BlockError);
});

it('a zstd frame ends where it ends, whatever follows in its sector', () => {
  for (const data of [
    new Uint8Array(65536),
    crypto.getRandomValues(new Uint8Array(65536)),
    new TextEncoder().encode('abc'.repeat(9000)),
  ]) {
    const packed = codecs.zstdCompress(data);
    const padded = new Uint8Array(packed.length + 700).fill(0xa5);
    padded.set(packed);
    assert.equal(zstdFrameLength(padded), packed.length);
    assert.deepEqual(new Uint8Array(codecs.zstdDecompress(padded, data.length)), data);
    assert.throws(() => codecs.zstdDecompress(padded, data.length - 1), BlockError);
    const deflated = codecs.deflateRaw(data);
    const tail = new Uint8Array(deflated.length + 300).fill(0x5a);
    tail.set(deflated);
    assert.deepEqual(new Uint8Array(codecs.inflateRaw(tail, data.length)), data);
    assert.throws(() => codecs.inflateRaw(tail, data.length - 1), BlockError);
  }
});
