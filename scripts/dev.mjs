/**
 * `npm run dev`: the app with its pages from Vite, replaced as their sources change, and with VMs that start again when
 * the engine changes. Node itself starts the services again when a file of main/ changes.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { ensureGuest, ensurePackages, node24, root, run } from './setup.mjs';

await ensurePackages();
await ensureGuest();
process.on('SIGINT', () => {});
const environment = { ...process.env, VIVARIUM_DEVELOPMENT_COOKIE: randomBytes(24).toString('base64url') };
process.exitCode = await run(
  node24,
  [
    '--watch-preserve-output',
    `--watch-path=${join(root, 'main')}`,
    join(root, 'main', 'shell', 'serve.ts'),
    '--dev',
    '--port',
    '5180',
    ...process.argv.slice(2),
  ],
  { env: environment },
);
