/**
 * Development (`npm run dev`): pages come from Vite and are replaced as their sources change; when a source of the
 * engine changes, VMs that run are ended and started again with the new one. Loaded only when asked for: the built app
 * has no Vite.
 */
import { watch } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Services } from '../services.ts';

export interface Development {
  readonly middleware: (request: IncomingMessage, response: ServerResponse, next: () => void) => void;
  /** Vite's own WebSocket shares the server. */
  attach(server: Server): void;
  close(): Promise<void>;
}

/** Changes that come within this long are one change, in ms. */
const settle = 300;

export async function startDevelopment(root: string, services: Services): Promise<Development> {
  // Named by a variable, so that bundles do not take Vite in.
  const name = 'vite';
  const { createServer } = (await import(name)) as typeof import('vite');
  const http = await import('node:http');
  // Vite wants the server at once, to listen for its WebSocket: it gets a stand-in whose upgrades are passed on.
  const relay = http.createServer();
  const vite = await createServer({
    root: join(root, 'renderer'),
    appType: 'spa',
    server: { middlewareMode: true, hmr: { server: relay } },
  });
  let timer: NodeJS.Timeout | undefined;
  const changed = new Set<string>();
  const watcher = watch(join(root, 'engine'), { recursive: true }, (_, file) => {
    if (file === null || !/\.(ts|wat|wasm)$/.test(file) || file.endsWith('.test.ts')) return;
    changed.add(file);
    clearTimeout(timer);
    timer = setTimeout(() => void restart(services, [...changed].sort(), () => changed.clear()), settle);
  });
  return {
    middleware: vite.middlewares,
    attach(server) {
      server.on('upgrade', (request, socket, head) => {
        if (request.headers['sec-websocket-protocol']?.startsWith('vite')) relay.emit('upgrade', request, socket, head);
      });
    },
    async close() {
      clearTimeout(timer);
      watcher.close();
      await vite.close();
    },
  };
}

async function restart(services: Services, files: string[], done: () => void): Promise<void> {
  done();
  services.bus.emit('app.engineChanged', { files });
  const running = services.vms.list().filter(({ pid }) => pid !== null);
  console.log(`Engine changed (${files.slice(0, 3).join(', ')}${files.length > 3 ? ' ...' : ''}); ${running.length} VMs restart`);
  await Promise.all(
    running.map(async ({ id, name }) => {
      try {
        await services.vms.forceOff(id);
        await services.vms.start(id);
      } catch (error) {
        services.notifications.add('error', `"${name}" did not start again`, (error as Error).message, id);
      }
    }),
  );
}
