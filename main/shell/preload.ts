/**
 * The preload script of every window: it knows no service, only how messages and ports cross. The page's side is
 * `bridgeTransport` in contract/client.ts.
 */
import { contextBridge, ipcRenderer, webUtils } from 'electron';
import type { AnswerMessage, EventMessage, PreloadBridge } from '../contract/index.ts';

const listeners: ((message: AnswerMessage | EventMessage) => void)[] = [];
const tell = (message: AnswerMessage | EventMessage): void => {
  for (const listener of listeners) listener(message);
};

const bridge: PreloadBridge = {
  send: (message) => void ipcRenderer.invoke('vivarium', message).then(tell),
  listen: (listener) => void listeners.push(listener),
  openPort: (token, vm, kind, index) => void ipcRenderer.invoke('vivarium', { port: token, vm, kind, index }),
  pathOfFile: (file) => webUtils.getPathForFile(file as Parameters<typeof webUtils.getPathForFile>[0]),
};

ipcRenderer.on('vivarium:event', (_, message: EventMessage) => tell(message));
// A port cannot cross the bridge; it goes to the page as a message of its own window.
ipcRenderer.on('vivarium:port', ({ ports }, message: unknown) => {
  const page = globalThis as unknown as {
    postMessage(message: unknown, target: string, transfer: unknown[]): void;
    location: { origin: string };
  };
  page.postMessage(message, page.location.origin, ports);
});
contextBridge.exposeInMainWorld('vivarium', bridge);
