#!/usr/bin/env node
/**
 * The command `vivarium`, from a checkout: hands its arguments to the program that knows them, on Node 24.
 * `run` and `img` are the engine's; everything else is the app's.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { ensurePackages, node24, root } from './setup.mjs';

if (!existsSync(node24)) await ensurePackages();
const args = process.argv.slice(2);
const program = ['run', 'img', 'version', '--version'].includes(args[0])
  ? ['engine', 'cli', 'main.ts']
  : ['main', 'cli', 'main.ts'];
const child = spawn(node24, [join(root, ...program), ...args], { stdio: 'inherit' });
// The terminal sends Ctrl-C to the program as well; what others send to this one is passed on.
process.on('SIGINT', () => {});
for (const signal of ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']) process.on(signal, () => child.kill(signal));
child.on('error', (error) => {
  console.error(`vivarium: ${error.message}`);
  process.exit(127);
});
child.on('close', (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
