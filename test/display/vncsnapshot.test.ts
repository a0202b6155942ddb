/** Another project's VNC client takes a picture of our display; skipped where Debian's `vncsnapshot` is not installed. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Framebuffer } from '../../engine/display/framebuffer.ts';
import { DisplayPump } from '../../engine/display/pump.ts';
import { RfbServer } from '../../engine/display/server.ts';
import { RecordingSink } from '../../engine/display/testing.ts';
import { nodeCompression } from '../../engine/host/deflate.ts';
import { listenRfb } from '../../engine/host/rfb-listener.ts';

const found = spawnSync('vncsnapshot', ['-help']).error === undefined;
const skip = found ? false : 'vncsnapshot is not installed (apt-get install vncsnapshot)';
const PORT_OF_DISPLAY_0 = 5900;

for (const encoding of ['raw', 'zlib', 'tight', 'copyrect zrle raw']) {
  test(`vncsnapshot understands ${encoding}`, { skip, timeout: 30_000 }, async () => {
    const log: string[] = [];
    const framebuffer = new Framebuffer(640, 400);
    const server = new RfbServer({
      framebuffer,
      compression: nodeCompression,
      input: new RecordingSink(),
      name: 'test',
      log: (line) => log.push(line),
    });
    // Blocks of 80 by 50 pixels, each of one colour but for a dithered one: the client writes JPEG.
    const colour = (x: number, y: number): number => {
      const block = Math.floor(x / 80) + 8 * Math.floor(y / 50);
      return block === 9 ? ((x ^ y) & 1 ? 0x808080 : 0x7e7e7e) : (block * 0x040302 + 0x102030) & 0xffffff;
    };
    const pump = new DisplayPump({
      framebuffer,
      server,
      refresh: ({ pixels }) => {
        for (let at = 0; at < pixels.length; at++) pixels[at] = colour(at % 640, Math.floor(at / 640));
        framebuffer.markAll();
      },
    });
    const address = { kind: 'tcp', host: '127.0.0.1', port: PORT_OF_DISPLAY_0 + 60, lastPort: PORT_OF_DISPLAY_0 + 99 } as const;
    const listener = await listenRfb(server, address);
    const folder = await mkdtemp(join(tmpdir(), 'vncsnapshot-'));
    try {
      const file = join(folder, 'shot.jpg');
      const display = `127.0.0.1:${listener.port! - PORT_OF_DISPLAY_0}`;
      const child = spawn('vncsnapshot', ['-quality', '100', '-encodings', encoding, display, file], { timeout: 20_000 });
      let said = '';
      child.stderr.on('data', (text) => {
        said += text;
      });
      const [status] = await once(child, 'close');
      assert.equal(status, 0, `${said}\n${log.join('\n')}`);
      assert.ok((await stat(file)).size > 1000);
      // Where a decoder of JPEG is at hand, compare pixels.
      const ppm = spawnSync('djpeg', ['-ppm', file], { maxBuffer: 1 << 24 });
      if (ppm.error !== undefined) return;
      assert.equal(ppm.stdout.subarray(0, 15).toString(), 'P6\n640 400\n255\n');
      const pixels = ppm.stdout.subarray(15);
      for (let y = 20; y < 400; y += 50) {
        for (let x = 40; x < 640; x += 80) {
          const want = colour(x, y);
          for (let part = 0; part < 3; part++) {
            const got = pixels[(y * 640 + x) * 3 + part];
            assert.ok(Math.abs(got - ((want >> (part * 8)) & 255)) <= 4, `${x},${y}: ${got} for ${want.toString(16)}`);
          }
        }
      }
    } finally {
      pump.stop();
      server.close();
      await listener.close();
      await rm(folder, { recursive: true });
    }
  });
}
