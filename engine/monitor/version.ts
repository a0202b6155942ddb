import type { QmpVersion } from './qmp.ts';

/** The version of this engine: what `-version`, `info version` and the greeting of QMP say. */
export const version = '0.1.0';

/** The same in QAPI's form. The numbers are ours: no version of QEMU is claimed. */
export const qmpVersion: QmpVersion = (() => {
  const [major, minor, micro] = version.split('.').map(Number);
  return { qemu: { major, minor, micro }, package: `vivarium-${version}` };
})();
