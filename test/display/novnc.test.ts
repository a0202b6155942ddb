/** noVNC in Chromium over a MessagePort, as the app's console uses it; skipped where there is no Chromium. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { chromium } from 'playwright-core';
import type { ByteChannel, ByteChannelListener } from '../../engine/display/channel.ts';
import { Framebuffer } from '../../engine/display/framebuffer.ts';
import { DisplayPump } from '../../engine/display/pump.ts';
import { RfbServer } from '../../engine/display/server.ts';
import { RecordingSink } from '../../engine/display/testing.ts';
import { nodeCompression } from '../../engine/host/deflate.ts';

const CHROMIUM = '/usr/bin/chromium';
const skip = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not installed`;
const root = join(import.meta.dirname, '../..');

const PAGE = `<!doctype html><div id="screen" style="width:700px;height:500px"></div><script type="module">
import RFB from '/node_modules/@novnc/novnc/core/rfb.js';
const { port1, port2 } = new MessageChannel();
const bytes = (data) => Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer;
window.toClient = (data) => port1.postMessage(bytes(data));
port1.onmessage = ({ data }) => {
  const view = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
  let text = '';
  for (const byte of view) text += String.fromCharCode(byte);
  window.toServer(btoa(text));
};
const channel = { binaryType: 'arraybuffer', protocol: '', readyState: 'open', onopen: null, onmessage: null, onclose: null, onerror: null,
  send: (data) => port2.postMessage(new Uint8Array(data)), close: () => port2.close() };
port2.onmessage = (event) => channel.onmessage(event);
window.start = () => {
  const rfb = window.rfb = new RFB(document.getElementById('screen'), channel);
  rfb.addEventListener('clipboard', (e) => { window.text = e.detail.text; });
  rfb.addEventListener('connect', () => { window.connected = true; });
};
window.pixels = () => {
  const canvas = document.querySelector('canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let at = 0; at < data.length; at += 4) sum = (Math.imul(sum, 31) + (data[at] | (data[at + 1] << 8) | (data[at + 2] << 16))) | 0;
  return [canvas.width, canvas.height, sum];
};
window.ready = true;
</script>`;

function checksum(surface: Framebuffer): number {
  let sum = 0;
  for (const pixel of surface.pixels) sum = (Math.imul(sum, 31) + (pixel & 0xffffff)) | 0;
  return sum;
}

test('noVNC shows the surface while it scrolls, is drawn on and resized', { skip, timeout: 60_000 }, async () => {
  const web = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://x').pathname;
    if (path === '/') return void response.setHeader('content-type', 'text/html').end(PAGE);
    if (!/^\/node_modules\/@novnc\/novnc\/[\w./-]+\.js$/.test(path) || path.includes('..'))
      return void response.writeHead(404).end();
    response.setHeader('content-type', 'text/javascript').end(readFileSync(join(root, path)));
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'];
  const browser = await chromium.launch({ executablePath: CHROMIUM, args });
  const surface = new Framebuffer(640, 400);
  const sink = new RecordingSink();
  const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: sink, name: 'x' });
  const pump = new DisplayPump({ framebuffer: surface, server, refresh: () => surface.markAll() });
  try {
    const page = await browser.newPage();
    let listener: ByteChannelListener | undefined;
    await page.exposeFunction('toServer', (data: string) => listener?.data(Buffer.from(data, 'base64')));
    await page.goto(`http://127.0.0.1:${(web.address() as AddressInfo).port}/`);
    await page.waitForFunction('window.ready');
    await page.evaluate('window.start()');
    let order = Promise.resolve();
    const channel: ByteChannel = {
      peer: 'app',
      send: (bytes) => {
        const data = Buffer.from(bytes).toString('base64');
        order = order.then(() =>
          page.evaluate((text) => (globalThis as never as { toClient(t: string): void }).toClient(text), data),
        );
      },
      close: () => {},
      listen: (given) => {
        listener = given;
      },
    };
    server.accept(channel, { trusted: true });
    await page.waitForFunction('window.connected');
    const same = async (what: string): Promise<void> => {
      const want = [surface.width, surface.height, checksum(surface)];
      let got: unknown;
      for (let attempt = 0; attempt < 100; attempt++) {
        got = await page.evaluate('window.pixels()');
        if (JSON.stringify(got) === JSON.stringify(want)) return;
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      assert.deepEqual(got, want, what);
    };
    const text = (from: number, to: number): void => {
      for (let at = from; at < to; at++) surface.pixels[at] = Math.imul(at, 0x9e3779b1) >>> 29 === 0 ? 0xaaaaaa : 0;
    };
    text(0, 640 * 400);
    await same('text of two colours');
    for (let line = 0; line < 5; line++) {
      surface.pixels.copyWithin(0, 16 * 640);
      text(640 * 384, 640 * 400 - line);
      await same(`scroll ${line}`);
    }
    for (let at = 0; at < 640 * 100; at++) surface.pixels[at] = Math.imul(at, 0x9e3779b1) & 0xffffff;
    for (let at = 640 * 200; at < 640 * 300; at++) surface.pixels[at] = (at % 40) * 0x010203;
    await same('noise and a gradient');
    surface.resize(500, 333);
    surface.pixels.fill(0x336699);
    await same('a new size');
    server.setClipboard('text ☃');
    await page.waitForFunction("window.text === 'text ☃'");
    await page.evaluate("window.rfb.focus(); window.rfb.clipboardPasteFrom('from the page ☃')");
    await page.keyboard.press('a');
    for (let wait = 0; wait < 100 && sink.events.length < 3; wait++) await new Promise((resolve) => setTimeout(resolve, 30));
    const keys = sink.events.filter(([kind]) => kind === 'key');
    assert.deepEqual(keys, [
      ['key', 0x1e, 0x61, true],
      ['key', 0x1e, 0x61, false],
    ]);
    assert.deepEqual(
      sink.events.find(([kind]) => kind === 'clipboard'),
      ['clipboard', 'from the page ☃'],
    );
  } finally {
    pump.stop();
    server.close();
    await browser.close();
    web.close();
  }
});
