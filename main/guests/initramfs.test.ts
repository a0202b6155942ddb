import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync, zstdCompressSync } from 'node:zlib';
import { checkInitrd } from '../vm/boot-files.ts';
import { cpioArchive } from './cpio.ts';
import { buildInitramfs, moduleDependencies } from './initramfs.ts';

const cpio = spawnSync('cpio', ['--version']).status === 0;

test('the archive is one that cpio reads back', { skip: cpio ? false : 'cpio is not installed' }, () => {
  const archive = cpioArchive([
    { path: 'd', kind: 'folder', mode: 0o755 },
    { path: 'd/odd', kind: 'file', mode: 0o640, content: 'abc' },
    { path: 'l', kind: 'link', mode: 0o777, content: 'd/odd' },
    { path: 'c', kind: 'character-device', mode: 0o600, device: [5, 1] },
  ]);
  const listed = execFileSync('cpio', ['-itv', '--quiet', '--numeric-uid-gid'], {
    input: archive,
    encoding: 'utf8',
    env: { ...process.env, TZ: 'UTC' },
  });
  const rows = listed.trim().split('\n');
  assert.match(rows[0], /^drwxr-xr-x +2 0 +0 .* d$/);
  assert.match(rows[1], /^-rw-r----- +1 0 +0 +3 .* d\/odd$/);
  assert.match(rows[2], /^lrwxrwxrwx .* l -> d\/odd$/);
  assert.match(rows[3], /^crw------- .* 5, +1 .* c$/);
  assert.equal(archive.length % 512, 0);
});

test('the initial RAM disk is whole, the same for the same parts, and its /init is good shell', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-initramfs-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const parts = {
    busybox: Buffer.from('busybox'),
    applets: ['sh', 'busybox', '../x'],
    modules: [{ name: 'evdev', content: Buffer.from('m'), virtio: false }],
  };
  const image = buildInitramfs(parts);
  assert.deepEqual(buildInitramfs(parts), image);
  const path = join(folder, 'initrd');
  writeFileSync(path, image);
  await checkInitrd(path, 'initrd');
  // The kernel unpacks archives one after the other, with zeros between them.
  for (const second of [image, zstdCompressSync(gunzipSync(image))]) {
    writeFileSync(path, Buffer.concat([image, Buffer.alloc(4 - (image.length % 4)), second]));
    await checkInitrd(path, 'initrd');
  }
  writeFileSync(path, image.subarray(0, image.length - 20));
  await assert.rejects(checkInitrd(path, 'initrd'), /cut off/);
  const archive = gunzipSync(image);
  assert.ok(!archive.includes('../x'));
  writeFileSync(path, archive);
  await checkInitrd(path, 'initrd');
  writeFileSync(path, archive.subarray(0, 600));
  await assert.rejects(checkInitrd(path, 'initrd'), /cut off/);
  const text = archive.toString('latin1');
  const init = text.slice(text.indexOf('#!/bin/sh\nexport'), text.indexOf('exec init\n') + 10);
  const { status, stderr } = spawnSync('sh', ['-n'], { input: init, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
});

test('dependencies of modules', () => {
  assert.deepEqual(moduleDependencies(Buffer.from('\0license=GPL\0depends=virtio_ring,virtio\0retpoline=Y\0')), [
    'virtio_ring',
    'virtio',
  ]);
  assert.deepEqual(moduleDependencies(Buffer.from('\0depends=\0')), []);
  assert.deepEqual(moduleDependencies(Buffer.from('nothing')), []);
});
