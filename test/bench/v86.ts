/**
 * A machine of v86 as a process of its own: `node v86.ts PACKAGE -m MIB -kernel FILE -initrd FILE -append TEXT`, with the
 * guest's first serial port on standard output. PACKAGE is the folder of the npm package; other options of `vivarium run`
 * are passed over. The firmware is Debian's SeaBIOS: the package has none.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What is used of the package's interface (its `v86.d.ts`). */
interface Emulator {
  add_listener(event: 'serial0-output-byte', listener: (byte: number) => void): void;
}
type File = { readonly buffer: ArrayBuffer };

const [folder, ...words] = process.argv.slice(2);
const option = (name: string): string => {
  const at = words.indexOf(`-${name}`);
  if (at < 0 || at + 1 >= words.length) throw new Error(`-${name} is missing`);
  return words[at + 1];
};
const file = (path: string): File => ({ buffer: new Uint8Array(readFileSync(path)).buffer });

const { V86 } = (await import(join(folder, 'build', 'libv86.mjs'))) as { V86: new (options: object) => Emulator };
const emulator = new V86({
  wasm_path: join(folder, 'build', 'v86.wasm'),
  memory_size: Number(option('m')) * 2 ** 20,
  bios: file('/usr/share/seabios/bios.bin'),
  vga_bios: file('/usr/share/seabios/vgabios-stdvga.bin'),
  bzimage: file(option('kernel')),
  initrd: file(option('initrd')),
  cmdline: option('append'),
  autostart: true,
});
emulator.add_listener('serial0-output-byte', (byte) => process.stdout.write(String.fromCharCode(byte), 'latin1'));
