/**
 * The sample guest's initial RAM disk: BusyBox, a few kernel modules, and an /init that mounts the kernel's file
 * systems, makes the power button work, and gives a shell on the screen and on the first serial port.
 */
import { gzipSync } from 'node:zlib';
import { type CpioMember, cpioArchive } from './cpio.ts';

/** The line that says the guest is up; the release and the number of CPUs follow it. */
export const readyMarker = 'Vivarium guest ready:';

export interface InitramfsParts {
  readonly busybox: Uint8Array;
  /** The names BusyBox goes by. */
  readonly applets: readonly string[];
  /** Kernel modules in the order in which they are to be loaded. */
  readonly modules: readonly { readonly name: string; readonly content: Uint8Array; readonly virtio: boolean }[];
}

const init = (modules: InitramfsParts['modules']): string => `#!/bin/sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
hostname vivarium
for module in ${modules.flatMap(({ name, virtio }) => (virtio ? [] : [name])).join(' ')}; do
  insmod /lib/modules/$module.ko
done
if grep -q 0x1af4 /sys/bus/pci/devices/*/vendor 2>/dev/null; then
  for module in ${modules.flatMap(({ name, virtio }) => (virtio ? [name] : [])).join(' ')}; do
    insmod /lib/modules/$module.ko
  done
fi
# A shell on the screen and on the first serial port, where they exist.
{
  [ -c /dev/tty1 ] && echo 'tty1::respawn:-/bin/sh'
  [ "$(cat /sys/class/tty/ttyS0/type 2>/dev/null || echo 0)" != 0 ] && echo 'ttyS0::respawn:-/bin/sh'
  echo '::ctrlaltdel:/bin/reboot -f'
} > /etc/inittab
# The power button: acpid hears it from the input layer.
if ls /dev/input/event* >/dev/null 2>&1; then acpid; fi
exec init
`;

const profile = `export PATH=/bin HOME=/root PS1='\\w # '
case $(tty) in
  */ttyS*) export TERM=xterm ;;
  *) export TERM=linux ;;
esac
cd
echo
echo "${readyMarker} Linux $(uname -r), $(nproc) CPUs, on $(tty)"
echo 'This is BusyBox on the kernel of Debian. "poweroff -f" turns the machine off.'
echo
`;

/** The archive, compressed with gzip. */
export function buildInitramfs({ busybox, applets, modules }: InitramfsParts): Buffer {
  const folder = (path: string, mode = 0o755): CpioMember => ({ path, kind: 'folder', mode });
  const file = (path: string, content: Uint8Array | string, mode = 0o644): CpioMember => ({ path, kind: 'file', mode, content });
  const folders = [
    'bin',
    'dev',
    'etc',
    'etc/acpi',
    'etc/acpi/PWRF',
    'lib',
    'lib/modules',
    'proc',
    'root',
    'sys',
    'tmp',
    'var',
    'var/run',
    'var/log',
  ];
  const members: CpioMember[] = [
    ...folders.map((path) => folder(path)),
    // The kernel opens it for /init before anything is mounted.
    { path: 'dev/console', kind: 'character-device', mode: 0o600, device: [5, 1] },
    { path: 'dev/null', kind: 'character-device', mode: 0o666, device: [1, 3] },
    file('bin/busybox', busybox, 0o755),
    ...applets
      .filter((name) => name !== 'busybox' && !name.includes('/'))
      .map((name): CpioMember => ({ path: `bin/${name}`, kind: 'link', mode: 0o777, content: 'busybox' })),
    { path: 'sbin', kind: 'link', mode: 0o777, content: 'bin' },
    ...modules.map(({ name, content }) => file(`lib/modules/${name}.ko`, content)),
    file('etc/passwd', 'root::0:0:root:/root:/bin/sh\n'),
    file('etc/group', 'root:x:0:\n'),
    file('etc/profile', profile),
    // What acpid runs for KEY_POWER.
    file('etc/acpi/PWRF/00000080', '#!/bin/sh\npoweroff -f\n', 0o755),
    file('init', init(modules), 0o755),
  ];
  return gzipSync(cpioArchive(members), { level: 9 });
}

/** Names of modules that a module says it needs (`depends=` in its .modinfo section). */
export function moduleDependencies(content: Uint8Array): string[] {
  const text = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  const at = text.indexOf('\0depends=');
  if (at < 0) return [];
  const value = text.toString('latin1', at + 9, text.indexOf(0, at + 9));
  return value === '' ? [] : value.split(',');
}
