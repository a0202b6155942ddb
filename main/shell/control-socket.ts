/** Where an app listens for commands on its library. */
import { createHash } from 'node:crypto';
import { tmpdir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';

/** The longest path that every system takes for a Unix socket (sun_path has 104 bytes at least). */
const maxPath = 100;

export function controlSocketPath(library: string): string {
  const id = createHash('sha256').update(resolve(library)).digest('hex').slice(0, 16);
  if (process.platform === 'win32') return `\\\\.\\pipe\\vivarium-${id}`;
  const inside = join(resolve(library), 'control.sock');
  if (Buffer.byteLength(inside) <= maxPath) return inside;
  return join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), `vivarium-${userInfo().uid}-${id}.sock`);
}
