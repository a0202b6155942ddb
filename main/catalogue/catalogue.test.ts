import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AppError } from '../contract/index.ts';
import { Catalogue } from './catalogue.ts';
import { descriptorBytes, descriptorOffset, parseVolumeDescriptor } from './iso9660.ts';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-catalogue-'));
let catalogue: Catalogue;
before(async () => {
  catalogue = await Catalogue.load(new URL('../../assets/os-catalogue.json', import.meta.url));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** An image with a primary volume descriptor (ECMA-119 8.4) of `blocks` blocks of 2048 bytes. */
function image(name: string, volumeId: string, blocks = 20): string {
  const data = Buffer.alloc(20 * 2048);
  const descriptor = data.subarray(descriptorOffset, descriptorOffset + descriptorBytes);
  descriptor[0] = 1;
  descriptor.write('CD001', 1);
  descriptor[6] = 1;
  descriptor.fill(' ', 8, 72);
  descriptor.write(volumeId, 40);
  descriptor.writeUInt32LE(blocks, 80);
  descriptor.writeUInt16LE(2048, 128);
  descriptor.fill(' ', 318, 446);
  descriptor.write('A PUBLISHER', 318);
  const path = join(folder, name);
  writeFileSync(path, data);
  return path;
}

test('volume ids of real media name their system', () => {
  const cases: Record<string, string | undefined> = {
    'Ubuntu 24.04.1 LTS amd64': 'ubuntu24.04',
    'Ubuntu-Server 26.04 LTS amd64': 'ubuntu26.04',
    'Debian 12.5.0 amd64 n': 'debian12',
    'Debian 13.1.0 amd64 1': 'debian13',
    'd-live 12.5.0 gn amd64': 'debian12',
    'Fedora-WS-Live-43': 'fedora43',
    'Fedora-S-dvd-x86_64-44': 'fedora44',
    'alpine-std 3.22.1 x86_64': 'alpine',
    ARCH_202611: 'arch',
    'openSUSE-Leap-15.6-DVD-x86_64': 'leap15.6',
    'Install-Leap-16.0-x86_64': 'leap16.0',
    'AlmaLinux-9-4-x86_64-dvd': 'almalinux9',
    'AlmaLinux-10-0-x86_64-dvd': 'almalinux10',
    'Rocky-10-0-x86_64-dvd': 'rocky10',
    'CentOS-Stream-9-BaseOS-x86_64': 'centos-stream9',
    'nixos-minimal-25.11-x86_64': 'nixos25.11',
    '14_1_RELEASE_AMD64_DVD': 'freebsd14',
    'OpenBSD/amd64   7.6 Install CD': 'openbsd',
    'CCCOMA_X64FRE_EN-US_DV9': 'windows11',
    'SSS_X64FREE_EN-US_DV9': 'windows-server2025',
    'HOLIDAY PHOTOS': undefined,
  };
  for (const [volumeId, id] of Object.entries(cases)) assert.equal(catalogue.match(volumeId)[0], id, volumeId);
  assert.deepEqual(catalogue.match('CCCOMA_X64FRE_EN-US_DV9'), ['windows11', 'windows10'], 'the newest first');
});

test('every system asks for no more than it recommends', () => {
  for (const { id, minimum, recommended } of catalogue.list())
    assert.ok(
      recommended.memoryMiB >= minimum.memoryMiB && recommended.diskGiB >= minimum.diskGiB && recommended.cpus >= minimum.cpus,
      id,
    );
});

test('detection of images, kernels, and what is neither', async () => {
  const debian = await catalogue.detect(image('debian.iso', 'Debian 12.5.0 amd64 n'));
  assert.deepEqual(
    [debian.kind, debian.os, debian.volumeId, debian.publisher, debian.note],
    ['iso9660', 'debian12', 'Debian 12.5.0 amd64 n', 'A PUBLISHER', undefined],
  );
  assert.match((await catalogue.detect(image('cut.iso', 'Debian 12.5.0 amd64 n', 21))).note ?? '', /cut off/);
  assert.match((await catalogue.detect(image('other.iso', 'PHOTOS'))).note ?? '', /"PHOTOS", which is not in the catalogue/);
  const short = join(folder, 'short');
  writeFileSync(short, 'x');
  assert.equal((await catalogue.detect(short)).kind, 'unknown');
  const qcow2 = join(folder, 'disk');
  writeFileSync(qcow2, Buffer.from('514649fb00000003', 'hex'));
  assert.equal((await catalogue.detect(qcow2)).kind, 'qcow2');
  await assert.rejects(
    catalogue.detect(join(folder, 'absent')),
    (error) => error instanceof AppError && error.code === 'file-missing',
  );
  await assert.rejects(catalogue.detect(folder), (error) => error instanceof AppError && error.code === 'file-unreadable');
});

test('a medium that cannot be read in time does not hold the wizard up', { skip: process.platform === 'win32' }, async () => {
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  await assert.rejects(catalogue.detect(pipe, 100), (error) => error instanceof AppError && error.code === 'timeout');
  // The reader still waits in the system: somebody must open the other end.
  writeFileSync(pipe, '');
});

test('hostile descriptors', () => {
  assert.equal(parseVolumeDescriptor(new Uint8Array(0)), undefined);
  assert.equal(parseVolumeDescriptor(new Uint8Array(2048)), undefined);
  const data = new Uint8Array(2048).fill(0xff);
  data.set([1, ...Buffer.from('CD001'), 1]);
  assert.equal(parseVolumeDescriptor(data)?.volumeId.length, 32);
  data.fill(0, 40, 72);
  assert.equal(parseVolumeDescriptor(data)?.volumeId, '');
});

test('recommendations: an unknown system gets a sane default, old and demanding ones a warning', () => {
  assert.deepEqual(catalogue.recommend(null).recommended.diskGiB, 20);
  assert.match(catalogue.recommend('windows10').warnings.join(), /no security updates since 2025-10-14/);
  assert.match(catalogue.recommend('windows11').warnings.join(), /TPM/);
});
