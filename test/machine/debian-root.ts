/**
 * A Debian system on a disk of its own: debootstrap, GRUB in its boot sector, systemd, root's password `root`. Made once,
 * as root and with the network, into .cache/guests; tests put overlays on it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './harness.ts';

const image = join(root, '.cache', 'guests', 'debian-root.qcow2');
const TOOLS: Readonly<Record<string, string>> = {
  debootstrap: 'debootstrap',
  'grub-install': 'grub-common and grub-pc-bin',
  sfdisk: 'fdisk',
  losetup: 'mount',
  'mkfs.ext4': 'e2fsprogs',
  'qemu-img': 'qemu-utils',
};
/** Where the one partition starts. */
export const PARTITION_AT = 1 << 20;
const PACKAGES = 'linux-image-amd64,systemd-sysv,udev,e2fsprogs,kmod,login,passwd,initramfs-tools';

/** The image, or why there is none here. */
export function debianRoot(): { readonly image: string } | { readonly reason: string } {
  if (existsSync(image)) return { image };
  if (process.getuid?.() !== 0) return { reason: 'the Debian disk is made by root only' };
  for (const [tool, pack] of Object.entries(TOOLS))
    if (spawnSync(tool, ['--version']).error !== undefined) return { reason: `${tool} (package ${pack}) is not installed` };
  if (!existsSync('/usr/lib/grub/i386-pc')) return { reason: 'GRUB for BIOS (package grub-pc-bin) is not installed' };
  const work = mkdtempSync(join(root, '.cache', 'guests', '.debian-root-'));
  const run = (command: string, ...args: string[]): string => execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
  const loops: string[] = [];
  const mounted: string[] = [];
  try {
    const system = join(work, 'system');
    run('debootstrap', '--variant=minbase', `--include=${PACKAGES}`, 'bookworm', system);
    execFileSync('chroot', [system, 'chpasswd'], { input: 'root:root\n' });
    writeFileSync(join(system, 'etc/hostname'), 'vivarium\n');
    writeFileSync(join(system, 'etc/fstab'), 'LABEL=DEBROOT / ext4 defaults,errors=remount-ro 0 1\n');
    // A busy host makes the guest slow: no unit is to give up before the test does.
    mkdirSync(join(system, 'etc/systemd/system.conf.d'), { recursive: true });
    writeFileSync(
      join(system, 'etc/systemd/system.conf.d/patience.conf'),
      '[Manager]\nDefaultTimeoutStartSec=1800s\nDefaultDeviceTimeoutSec=1800s\n',
    );
    const raw = join(work, 'disk.raw');
    writeFileSync(raw, '');
    truncateSync(raw, 1800 << 20);
    execFileSync('sfdisk', ['-q', raw], { input: 'label: dos\nstart=2048, type=83, bootable\n' });
    const whole = run('losetup', '-f', '--show', raw).trim();
    loops.push(whole);
    const partition = run('losetup', '-f', '--show', '-o', String(PARTITION_AT), raw).trim();
    loops.push(partition);
    run('mkfs.ext4', '-q', '-L', 'DEBROOT', partition);
    const mount = join(work, 'mount');
    run('mkdir', mount);
    run('mount', partition, mount);
    mounted.push(mount);
    run('cp', '-a', `${system}/.`, mount);
    const boot = readdirSync(join(mount, 'boot'));
    const kernel = boot.find((name) => name.startsWith('vmlinuz-'));
    const initrd = boot.find((name) => name.startsWith('initrd.img-'));
    run('mkdir', '-p', join(mount, 'boot/grub'));
    writeFileSync(
      join(mount, 'boot/grub/grub.cfg'),
      `serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=1
menuentry "Debian" {
  search --no-floppy --label --set=root DEBROOT
  linux /boot/${kernel} root=LABEL=DEBROOT ro console=tty0 console=ttyS0,115200 quiet
  initrd /boot/${initrd}
}
`,
    );
    const modules = 'part_msdos ext2 biosdisk serial';
    run('grub-install', '--target=i386-pc', `--boot-directory=${mount}/boot`, `--modules=${modules}`, whole);
    run('umount', mounted.pop() ?? '');
    for (const loop of loops.splice(0).reverse()) run('losetup', '-d', loop);
    run('qemu-img', 'convert', '-O', 'qcow2', raw, join(work, 'disk.qcow2'));
    renameSync(join(work, 'disk.qcow2'), image);
    return { image };
  } catch (error) {
    return { reason: `the Debian disk could not be made: ${(error as Error).message.split('\n')[0]}` };
  } finally {
    for (const each of mounted) spawnSync('umount', [each]);
    for (const loop of loops) spawnSync('losetup', ['-d', loop]);
    rmSync(work, { recursive: true, force: true });
  }
}
