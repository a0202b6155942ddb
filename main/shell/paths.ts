/**
 * Where the app's own files are: in a checkout (run from `.ts` sources) and as it is built. Built, `main/` and
 * `renderer/` may lie in Electron's archive; `engine/` never does, for its processes and threads are started from files.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from '../host/files.ts';
import type { FirmwareFiles } from '../vm/machine-config.ts';

export interface AppPaths {
  /** True in a checkout. */
  readonly fromSource: boolean;
  readonly root: string;
  /** The folder of the built pages. */
  readonly renderer: string;
  readonly assets: string;
  /** The program of a VM process. */
  readonly engineEntry: string;
  /** The program of the engine's commands (`run`, `img`). */
  readonly engineCli: string;
  /** Firmware that was packed with the app; may be empty. */
  readonly firmware: string;
  readonly cache: string;
  readonly version: string;
}

export function appPaths(resources: string | undefined = (process as { resourcesPath?: string }).resourcesPath): AppPaths {
  const here = fileURLToPath(import.meta.url);
  const fromSource = here.endsWith('.ts');
  // In a checkout this is main/shell/paths.ts; built, everything is one file in main/.
  const root = fromSource ? dirname(dirname(dirname(here))) : dirname(dirname(here));
  const extension = fromSource ? 'ts' : 'js';
  /** Packed, it lies beside the archive. */
  const outside = (name: string): string => {
    const beside = resources === undefined ? undefined : join(resources, name);
    return beside !== undefined && existsSync(beside) ? beside : join(root, name);
  };
  const engine = outside('engine');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  return {
    fromSource,
    root,
    renderer: fromSource ? join(root, 'dist', 'renderer') : join(root, 'renderer'),
    assets: join(root, 'assets'),
    engineEntry: join(engine, 'host', `vm-process.${extension}`),
    engineCli: join(engine, 'cli', `main.${extension}`),
    firmware: outside('firmware'),
    cache: fromSource ? join(root, '.cache') : cacheFolder(),
    version,
  };
}

const candidates: Readonly<Record<keyof FirmwareFiles, readonly string[]>> = {
  bios: ['seabios/bios-256k.bin', 'qemu/bios-256k.bin', 'kvm/bios-256k.bin'],
  uefi: ['OVMF/OVMF_CODE_4M.fd', 'OVMF/OVMF_CODE.fd', 'edk2/ovmf/OVMF_CODE.fd', 'edk2/x64/OVMF_CODE.4m.fd'],
};

/** Firmware of the host, or what was packed with the app. */
export function findFirmware(packed: string): FirmwareFiles {
  const find = (kind: keyof FirmwareFiles): string | undefined =>
    [...candidates[kind].map((name) => join('/usr/share', name)), ...candidates[kind].map((name) => join(packed, name))].find(
      (path) => existsSync(path),
    );
  return { bios: find('bios'), uefi: find('uefi') };
}
