/** Kernel modules of the sample guest that its initial RAM disk does not have, as a second archive behind the first. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { cpioArchive } from '../../main/guests/cpio.ts';

const root = resolve(import.meta.dirname, '../..');
const cache = join(root, '.cache', 'guests');
const folder = join(cache, 'debian-amd64');

/** The package is fetched once at most: what it does not have then, it never will. */
let fetched = false;

/** The module's file, fetched from the kernel's package once; undefined where that cannot be. */
function moduleFile(name: string): string | undefined {
  const { release, packages } = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as {
    release: string;
    packages: string[];
  };
  const kept = join(cache, `modules-${release}`);
  const file = join(kept, `${name}.ko`);
  if (existsSync(file)) return file;
  if (fetched) return undefined;
  fetched = true;
  const wanted = packages.find((each) => each.startsWith('linux-image'))?.split('_') ?? [];
  const version = decodeURIComponent(wanted[1] ?? '');
  const work = mkdtempSync(join(cache, '.modules-'));
  try {
    execFileSync('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', `${wanted[0]}=${version}`], {
      cwd: work,
      stdio: 'ignore',
    });
    const deb = readdirSync(work).find((each) => each.endsWith('.deb')) ?? '';
    const patterns = [
      ...['drivers/block/virtio_blk.ko', 'fs/ext4/*', 'fs/jbd2/*', 'fs/mbcache.ko', 'fs/isofs/*', 'lib/crc*', 'crypto/crc*'],
      ...['drivers/ata/libata.ko', 'drivers/ata/ata_piix.ko', 'drivers/ata/*ahci.ko', 'drivers/cdrom/*', 'block/t10-pi.ko'],
      ...['scsi_mod', 'scsi_common', 'sd_mod', 'sr_mod', 'virtio_scsi'].map((each) => `drivers/scsi/${each}.ko`),
      ...['drivers/nvme/host/nvme.ko', 'drivers/nvme/host/nvme-core.ko', 'drivers/block/floppy.ko'],
    ];
    execFileSync(
      'sh',
      ['-c', `dpkg-deb --fsys-tarfile ${deb} | tar -x --wildcards ${patterns.map((each) => `'*/kernel/${each}'`).join(' ')}`],
      { cwd: work, stdio: 'ignore' },
    );
    mkdirSync(kept, { recursive: true });
    for (const each of readdirSync(work, { recursive: true, encoding: 'utf8' }))
      if (each.endsWith('.ko')) renameSync(join(work, each), join(kept, basename(each)));
  } catch {
    return undefined;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return existsSync(file) ? file : undefined;
}

/** The sample guest's initial RAM disk with more modules in /more, written into `target`; undefined where there are none. */
export function initrdWith(names: readonly string[], target: string): string | undefined {
  if (!existsSync(join(folder, 'manifest.json'))) return undefined;
  const files = names.map((name) => ({ name, file: moduleFile(name) }));
  if (files.some(({ file }) => file === undefined)) return undefined;
  const archive = cpioArchive([
    { path: 'more', kind: 'folder', mode: 0o755 },
    ...files.map(({ name, file }) => ({
      path: `more/${name}.ko`,
      kind: 'file' as const,
      mode: 0o644,
      content: readFileSync(file ?? ''),
    })),
  ]);
  const path = join(target, 'initrd-more.img');
  // The kernel unpacks archives one after the other; a compressed one ends on a multiple of four with zeros.
  const first = readFileSync(join(folder, 'initrd.img'));
  const gap = Buffer.alloc((4 - (first.length % 4)) % 4);
  writeFileSync(path, Buffer.concat([first, gap, gzipSync(archive)]));
  return path;
}
