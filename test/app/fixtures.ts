/** Folders, kernels and services for tests of the app. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { EventName, Events, RequestArgs, RequestName, RequestResult, WizardPlan } from '../../main/contract/index.ts';
import { AppError } from '../../main/contract/index.ts';
import { cpioArchive } from '../../main/guests/cpio.ts';
import { Services, type ServicesOptions } from '../../main/services.ts';
import { forkTool } from '../../main/storage/image-tool.ts';
import { ForkLauncher } from '../../main/vm/fork-launcher.ts';

export const doubleEntry = fileURLToPath(new URL('./vm-double.ts', import.meta.url));
const catalogueFile = fileURLToPath(new URL('../../assets/os-catalogue.json', import.meta.url));

export function temporaryFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-test-'));
  context.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}

/** A file that begins like a bzImage (boot protocol header) and is as long as it says, or `cut` bytes shorter. */
export function kernelFile(folder: string, cut = 0): string {
  const image = Buffer.alloc(5 * 512 + 64 * 16);
  image[0x1f1] = 4;
  image.writeUInt32LE(64, 0x1f4);
  image.writeUInt16LE(0xaa55, 0x1fe);
  image.write('HdrS', 0x202);
  const path = join(folder, `vmlinuz-${cut}`);
  writeFileSync(path, image.subarray(0, image.length - cut));
  return path;
}

export function initrdFile(folder: string): string {
  const path = join(folder, 'initrd.img');
  writeFileSync(path, gzipSync(cpioArchive([{ path: 'init', kind: 'file', mode: 0o755, content: 'x'.repeat(5000) }])));
  return path;
}

export const plan = (folder: string, name: string, append = ''): WizardPlan => ({
  source: { kind: 'kernel', kernel: kernelFile(folder), initrd: initrdFile(folder), append },
  os: null,
  memoryMiB: 64,
  cpus: 2,
  storage: { kind: 'none' },
  name,
  network: 'none',
});

export type Ask = <N extends RequestName>(name: N, args: RequestArgs<N>) => Promise<RequestResult<N>>;

/** Services over the double, and a way to ask them as a window would. */
export async function openServices(context: TestContext, folder: string, options: Partial<ServicesOptions> = {}) {
  const services = await Services.open({
    libraryPath: join(folder, 'library'),
    configFolder: join(folder, 'config'),
    cacheFolder: join(folder, 'cache'),
    catalogueFile,
    version: '0.0.0',
    shell: 'serve',
    launcher: new ForkLauncher({ entry: doubleEntry }),
    tool: forkTool(fileURLToPath(new URL('../../engine/cli/main.ts', import.meta.url))),
    controlSocket: null,
    firstVm: true,
    sampleMs: 50,
    pictureMs: 100,
    ...options,
  });
  context.after(() => services.close());
  const session = {};
  const ask = (async (name, args) => {
    const answer = await services.dispatch({ id: 1, request: name, args: JSON.parse(JSON.stringify(args)) }, session);
    if ('error' in answer) throw AppError.from(answer.error);
    return JSON.parse(JSON.stringify(answer.result));
  }) as Ask;
  return { services, ask, session };
}

/** Resolves with the first event that `matches`; rejects after 40 s. */
export function eventOf<N extends EventName>(
  services: Services,
  name: N,
  matches: (payload: Events[N]) => boolean,
): Promise<Events[N]> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      stop();
      reject(new Error(`no ${name} within 40 s`));
    }, 40_000);
    const stop = services.bus.on(name, (payload) => {
      if (!matches(payload)) return;
      clearTimeout(timer);
      stop();
      resolve(payload);
    });
  });
}

/** For assert.rejects: an AppError with this code and, where given, field. */
export const appError = (code: string, field?: string) => (error: unknown) =>
  error instanceof AppError && error.code === code && (field === undefined || error.field === field);
