/** Where a VM can be installed or started from, and which of that works in this version. */
import type { InstallSource, InstallSourceKind } from '../contract/index.ts';
import { missing, support } from '../vm/support.ts';

const source = (
  kind: InstallSourceKind,
  title: string,
  description: string,
  needs: readonly (keyof typeof support)[],
): InstallSource => {
  const lacking = needs.find((need) => !support[need]);
  return {
    kind,
    title,
    description,
    available: lacking === undefined,
    ...(lacking === undefined ? {} : { reason: `${missing[lacking]}.` }),
  };
};

export const installSources: readonly InstallSource[] = [
  source('iso', 'Local install media', 'An ISO image or a CD', ['cdrom', 'firmware']),
  source('kernel', 'Kernel and initial RAM disk', 'Start a Linux, multiboot or PVH kernel directly', []),
  source('network', 'Network install', 'Start an installer from the network', ['network']),
  source('import', 'Existing disk image', 'A disk that has a system on it already', ['disk', 'firmware']),
  source('manual', 'Manual', 'An empty machine, to be furnished by hand', ['disk', 'firmware']),
];
