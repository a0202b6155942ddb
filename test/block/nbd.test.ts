/** NBD beside QEMU's client and server. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { BlockError } from '../../engine/block/errors.ts';
import { MemoryFile } from '../../engine/block/file.ts';
import { NbdSession, parseNbdAddress } from '../../engine/block/nbd.ts';
import { openImage } from '../../engine/block/open.ts';
import { createQcow2 } from '../../engine/block/qcow2/create.ts';
import { RawNode } from '../../engine/block/raw.ts';
import { nodeBlockHost as host } from '../../engine/host/block-file.ts';
import { serveNbd } from '../../engine/host/block-nbd.ts';
import { haveQemu, qemuImg, Random, scratch } from './harness.ts';

const { dir, remove } = scratch();
after(remove);

function run(command: string, ...args: string[]): Promise<{ status: number | null; out: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args);
    let out = '';
    child.stdout.on('data', (data) => {
      out += data;
    });
    child.stderr.on('data', (data) => {
      out += data;
    });
    child.on('close', (status) => resolve({ status, out }));
  });
}

describe('the server, to QEMU', { skip: !haveQemu && 'no qemu-img' }, () => {
  it('reads, writes, zeroes, trims, maps', async () => {
    const path = join(dir, 'served.qcow2');
    const file = host.openFile(path, { create: true });
    createQcow2(file, host, { size: 8 << 20 });
    file.close();
    const node = openImage(host, path, { write: true });
    const socket = join(dir, 'socket');
    const server = await serveNbd(
      new Map([
        ['disk', { node, writable: true }],
        ['look', { node, writable: false }],
      ]),
      { path: socket },
    );
    try {
      const url = `nbd+unix:///disk?socket=${socket}`;
      const io = await run(
        'qemu-io',
        '-f',
        'raw',
        '-c',
        'write -P 7 1M 3M',
        '-c',
        'write -z 2M 64k',
        '-c',
        'discard 3M 64k',
        '-c',
        'flush',
        '-c',
        'read -P 7 1M 1M',
        '-c',
        'read -P 0 2M 64k',
        url,
      );
      assert.equal(io.status, 0, io.out);
      assert.doesNotMatch(io.out, /fail|error/i);
      const map = await run('qemu-img', 'map', '--output=json', '-f', 'raw', url);
      const runs = JSON.parse(map.out) as { start: number; length: number; zero: boolean }[];
      assert.deepEqual(
        runs.map((r) => [r.start, r.length, r.zero]),
        [
          [0, 1 << 20, true],
          [1 << 20, 1 << 20, false],
          [2 << 20, 65536, true],
          [(2 << 20) + 65536, (1 << 20) - 65536, false],
          [3 << 20, 65536, true],
          [(3 << 20) + 65536, (1 << 20) - 65536, false],
          [4 << 20, 4 << 20, true],
        ],
      );
      const list = await run('qemu-nbd', '-L', '-k', socket);
      assert.match(list.out, /disk/);
      assert.match(list.out, /look/);
      const denied = await run('qemu-io', '-f', 'raw', '-c', 'write 0 512', `nbd+unix:///look?socket=${socket}`);
      assert.notEqual(denied.status, 0);
      const none = await run('qemu-img', 'info', `nbd+unix:///nope?socket=${socket}`);
      assert.match(none.out, /not available|no export/);
      const copy = await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', url, join(dir, 'copy'));
      assert.equal(copy.status, 0, copy.out);
    } finally {
      server.close();
      node.close();
    }
    const compare = qemuImg('compare', '-f', 'raw', join(dir, 'copy'), path);
    assert.equal(compare.status, 0, compare.out);
  });
});

describe('the client, to qemu-nbd', { skip: !haveQemu && 'no qemu-img' }, () => {
  it('is a disk like any other', async (t) => {
    const path = join(dir, 'theirs.raw');
    const socket = join(dir, 'theirs.socket');
    assert.equal(qemuImg('create', '-f', 'raw', path, '8M').status, 0);
    const server = spawn('qemu-nbd', ['-f', 'raw', '-k', socket, '-x', 'disk', '-t', path], { stdio: 'ignore' });
    try {
      for (let i = 0; i < 200 && !existsSync(socket); i++) await new Promise((resolve) => setTimeout(resolve, 20));
      const url = `nbd+unix:///disk?socket=${socket}`;
      let node: RawNode;
      try {
        node = openImage(host, url, { format: 'raw', write: true }) as RawNode;
      } catch (error) {
        if (error instanceof BlockError && error.code === 'unsupported') return t.skip(error.message);
        throw error;
      }
      assert.equal(node.size, 8 << 20);
      const data = new Random(9).bytes(3_000_000);
      node.write(1_000_000, data);
      const shared = new Uint8Array(new SharedArrayBuffer(data.length));
      node.read(1_000_000, shared);
      assert.equal(Buffer.compare(new Uint8Array(shared), data), 0);
      node.writeZeroes(2_000_000, 100_000);
      node.flush();
      assert.equal(node.blockStatus(6 << 20, 1 << 20).kind, 'zero');
      assert.equal(node.blockStatus(1_003_520, 65536).kind, 'data');
      assert.throws(() => node.file.pwrite(new Uint8Array(1), 8 << 20), BlockError);
      node.close();
      data.fill(0, 1_000_000, 1_100_000);
      assert.equal(Buffer.compare(readFileSync(path).subarray(1_000_000, 4_000_000), data), 0);
      assert.throws(() => openImage(host, `nbd+unix:///other?socket=${socket}`), /no export/);
    } finally {
      server.kill();
    }
  });
});

it('a session survives any bytes, and holds little', () => {
  const node = new RawNode(new MemoryFile('m', new Uint8Array(65536)));
  for (let seed = 1; seed <= 2000; seed++) {
    const random = new Random(seed);
    let sent = 0;
    const session = new NbdSession(new Map([['', { node, writable: true }]]), (bytes) => {
      sent += bytes.length;
      return true;
    });
    const parts: number[] = [0, 0, 0, random.below(4)];
    for (let i = 0; i < 6; i++) {
      if (random.chance(0.8))
        parts.push(...new TextEncoder().encode('IHAVEOPT'), 0, 0, 0, random.below(12), 0, 0, 0, random.below(20));
      if (random.chance(0.3)) parts.push(...new TextEncoder().encode('IHAVEOPT'), 0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0);
      for (let k = random.below(30); k > 0; k--) parts.push(random.pick([0, 0, 1, 255, random.below(256)]));
      if (random.chance(0.5))
        parts.push(
          0x25,
          0x60,
          0x95,
          0x13,
          0,
          random.below(32),
          0,
          random.below(9),
          ...new Array(8).fill(1),
          0,
          0,
          0,
          0,
          0,
          0,
          random.below(256),
          0,
          0,
          random.chance(0.1) ? 255 : 0,
          random.below(255),
          0,
        );
    }
    session.feed(new Uint8Array(parts));
    assert.ok(sent < 64 << 20);
  }
});

it('addresses', () => {
  assert.deepEqual(parseNbdAddress('nbd://localhost/x'), { host: 'localhost', port: 10809, exportName: 'x' });
  assert.deepEqual(parseNbdAddress('nbd+unix:///?socket=/a/b'), { unix: '/a/b', exportName: '' });
  assert.equal(parseNbdAddress('nbd:unix:/a/b:exportname=c').exportName, 'c');
  assert.equal(parseNbdAddress('nbd:127.0.0.1:99').port, 99);
  assert.throws(() => parseNbdAddress('nbd:'), BlockError);
});
