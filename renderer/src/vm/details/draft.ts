/** What the pages of the details editor share. */
import type { VmDefinition } from '../../../../main/contract/index.ts';

export interface PageProps {
  draft: VmDefinition;
  /** What is wrong, by path of the definition. */
  readonly errors: Readonly<Record<string, string>>;
  /** Told when the input at a path changes: what was wrong there may be no more. */
  readonly clear: (path: string) => void;
}

/** The page that shows a member of the definition. */
export function pageOfField(path: string): string {
  const [member] = path.replace(/^changes\./, '').split('.');
  const pages: Record<string, string> = {
    os: 'system',
    memoryMiB: 'memory',
    cpus: 'cpus',
    boot: 'boot',
    accelerator: 'performance',
    machine: 'performance',
    display: 'display',
    serialPorts: 'devices',
    rng: 'devices',
    rtc: 'system',
    onReboot: 'boot',
    autostart: 'boot',
  };
  return pages[member] ?? 'overview';
}
