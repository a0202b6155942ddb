/**
 * Fetches the sample guest from Debian by apt: the kernel that `linux-image-amd64` points to, and `busybox-static`.
 * Nothing is installed on the host, and no privileges are needed: packages are downloaded (apt checks them against its
 * signed lists) and opened in a folder of their own. What comes out is `vmlinuz`, `initrd.img` and `manifest.json`.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { AppError } from '../contract/index.ts';
import { checkInitrd, checkKernel } from '../vm/boot-files.ts';
import { aptEnvironment, aptOptions, download, extract } from './apt.ts';
import { buildInitramfs, moduleDependencies } from './initramfs.ts';

const run = promisify(execFile);

/** Raised when the initial RAM disk is made differently, so that old ones are built anew. */
const buildVersion = 3;

export type GuestArchitecture = 'amd64' | 'i386';

export interface GuestManifest {
  readonly build: number;
  /** The kernel's release. */
  readonly release: string;
  readonly packages: readonly string[];
  readonly sha256: { readonly vmlinuz: string; readonly 'initrd.img': string };
}

export interface GuestFiles {
  readonly kernel: string;
  readonly initrd: string;
  readonly release: string;
}

const kernelPointer = { amd64: 'linux-image-amd64', i386: 'linux-image-686-pae:i386' } as const;
const busyboxPackage = { amd64: 'busybox-static:amd64', i386: 'busybox-static:i386' } as const;
/** Modules that the guest loads, with what they depend on. */
const wanted = ['evdev', 'button', 'virtio_pci', 'virtio_rng', 'virtio_console'];

export const guestFolder = (cache: string, architecture: GuestArchitecture = 'amd64'): string =>
  join(cache, 'guests', `debian-${architecture}`);

/** The guest in this cache, if it is there and whole; `verify` reads it all and compares. */
export async function findGuest(
  cache: string,
  architecture: GuestArchitecture = 'amd64',
  verify = false,
): Promise<GuestFiles | undefined> {
  const folder = guestFolder(cache, architecture);
  const files = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img') };
  try {
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as GuestManifest;
    if (manifest.build !== buildVersion) return undefined;
    await checkKernel(files.kernel, 'kernel');
    await checkInitrd(files.initrd, 'initrd');
    if (
      verify &&
      ((await sha256(files.kernel)) !== manifest.sha256.vmlinuz || (await sha256(files.initrd)) !== manifest.sha256['initrd.img'])
    )
      return undefined;
    return { ...files, release: manifest.release };
  } catch {
    return undefined;
  }
}

/** Why the guest cannot be fetched on this host; undefined: it can. */
export async function whyNotFetchable(): Promise<string | undefined> {
  const byHand =
    'Copy a Linux kernel and an initial RAM disk here and name them in the wizard, or fetch the guest on a Debian machine.';
  if (process.platform !== 'linux')
    return `The sample guest is fetched with Debian's apt, which this system does not have. ${byHand}`;
  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb', 'tar'])
    if (!(await run('sh', ['-c', `command -v ${tool}`]).catch(() => undefined)))
      return `The sample guest is fetched with Debian's apt; ${tool} is not here. ${byHand}`;
  return undefined;
}

/** Fetches and builds the guest; rejects with `unsupported` or `host` and what to do. `tell` hears of progress. */
export async function fetchGuest(
  cache: string,
  tell: (progress: number, what: string) => void,
  { architecture = 'amd64', signal }: { architecture?: GuestArchitecture; signal?: AbortSignal } = {},
): Promise<GuestFiles> {
  const reason = await whyNotFetchable();
  if (reason !== undefined) throw new AppError('unsupported', reason);
  const folder = guestFolder(cache, architecture);
  await mkdir(join(cache, 'guests'), { recursive: true });
  const work = await mkdtemp(join(cache, 'guests', '.fetch-'));
  try {
    tell(0.02, 'Asking apt for the kernel');
    const pointer = kernelPointer[architecture];
    const options = await aptOptions(cache, pointer, () => tell(0.03, "Reading Debian's lists of packages"), signal);
    const kernelPackage = await pointee(options, pointer);
    if (kernelPackage === undefined) throw new AppError('host', `${pointer} depends on no package of a kernel`);
    tell(0.05, `Downloading ${kernelPackage} and BusyBox`);
    const packages = await download(options, [kernelPackage, busyboxPackage[architecture]], work, signal);
    const find = (prefix: string): string => join(work, packages.find((name) => name.startsWith(prefix)) ?? '');
    tell(0.5, 'Opening the packages');
    const tree = join(work, 'tree');
    await mkdir(tree);
    await extract(find('busybox-static'), tree, ['*/busybox'], signal);
    const patterns = [
      './boot/vmlinuz-*',
      ...['acpi', 'input', 'virtio', 'char/hw_random', 'char/virtio_console.ko'].map((part) => `*/kernel/drivers/${part}*`),
    ];
    await extract(find('linux-image'), tree, patterns, signal);
    tell(0.85, 'Building the initial RAM disk');
    const vmlinuz = (await readdir(join(tree, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
    if (vmlinuz === undefined) throw new AppError('bad-file', `The package ${kernelPackage} has no kernel in it`);
    const busybox = await firstExisting([join(tree, 'bin/busybox'), join(tree, 'usr/bin/busybox')]);
    const initrd = buildInitramfs({
      busybox,
      applets: await applets(join(work, 'busybox'), busybox),
      modules: await modulesIn(tree),
    });
    const ready = join(work, 'ready');
    await mkdir(ready);
    await rename(join(tree, 'boot', vmlinuz), join(ready, 'vmlinuz'));
    await writeFile(join(ready, 'initrd.img'), initrd);
    await checkKernel(join(ready, 'vmlinuz'), 'kernel');
    await checkInitrd(join(ready, 'initrd.img'), 'initrd');
    const release = vmlinuz.slice('vmlinuz-'.length);
    const manifest: GuestManifest = {
      build: buildVersion,
      release,
      packages: packages.map((name) => basename(name, '.deb')),
      sha256: { vmlinuz: await sha256(join(ready, 'vmlinuz')), 'initrd.img': await sha256(join(ready, 'initrd.img')) },
    };
    await writeFile(join(ready, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    await rm(folder, { recursive: true, force: true });
    await rename(ready, folder);
    tell(1, `Debian's kernel ${release} is ready`);
    return { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img'), release };
  } catch (error) {
    if (error instanceof AppError) throw error;
    const detail = (error as { stderr?: string }).stderr?.trim().split('\n').at(-1) ?? (error as Error).message;
    throw new AppError('host', `The sample guest could not be fetched: ${detail}. "apt-get update" as root may help.`, {
      cause: error,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The package that a pointer package depends on; undefined: apt does not know it. */
async function pointee(options: readonly string[], pointer: string): Promise<string | undefined> {
  const { stdout } = await run('apt-cache', [...options, 'depends', pointer], { env: aptEnvironment }).catch(() => ({
    stdout: '',
  }));
  return /^\s*\|?Depends: (linux-image-\S+)/m.exec(stdout)?.[1];
}

async function firstExisting(paths: readonly string[]): Promise<Buffer> {
  for (const path of paths) {
    const content = await readFile(path).catch(() => undefined);
    if (content !== undefined && content.readUInt32BE(0) === 0x7f454c46) return content;
  }
  throw new AppError('bad-file', 'The package busybox-static has no program in it');
}

/** The names BusyBox goes by: it tells them itself, on the host. */
async function applets(path: string, content: Uint8Array): Promise<string[]> {
  await writeFile(path, content, { mode: 0o700 });
  const { stdout } = await run(path, ['--list']);
  const names = stdout.split('\n').filter((name) => name !== '');
  if (!names.includes('sh')) throw new AppError('bad-file', 'BusyBox tells no list of its commands');
  return names;
}

async function modulesIn(tree: string): Promise<{ name: string; content: Buffer; virtio: boolean }[]> {
  const files = new Map<string, string>();
  for (const file of await readdir(tree, { recursive: true }))
    if (file.endsWith('.ko')) files.set(basename(file, '.ko').replaceAll('-', '_'), join(tree, file));
  const loaded = new Map<string, { name: string; content: Buffer; virtio: boolean }>();
  const load = async (name: string): Promise<void> => {
    const file = files.get(name);
    // Built into this kernel, or not made for it: it goes without.
    if (file === undefined || loaded.has(name)) return;
    const content = await readFile(file);
    for (const dependency of moduleDependencies(content)) await load(dependency.replaceAll('-', '_'));
    loaded.set(name, { name, content, virtio: name.startsWith('virtio') });
  };
  for (const name of wanted) await load(name);
  return [...loaded.values()];
}

async function sha256(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
