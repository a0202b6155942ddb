/** The machine's screen, keyboard and mouse on the control thread: RFB server, screenshots, typed keys. */

import type { QKeyCode } from '../bus/keys.ts';
import { keyOfKeysym, keyOfScancode } from '../devices/keycodes.ts';
import { VgaRenderer } from '../devices/vga-render.ts';
import { Framebuffer } from '../display/framebuffer.ts';
import { encodePng } from '../display/png.ts';
import { encodePpm } from '../display/ppm.ts';
import { DisplayPump } from '../display/pump.ts';
import { RfbServer } from '../display/server.ts';
import { nodeCompression } from '../host/deflate.ts';
import { listenRfb, type RfbListener } from '../host/rfb-listener.ts';
import { type InputEvent, MonitorError, type VncInfo } from '../monitor/machine-control.ts';
import { Paging } from '../x86/system/paging.ts';
import { BootError } from './linux-boot.ts';
import type { Machine } from './machine.ts';

const BUTTONS: Readonly<Record<string, number>> = { left: 1, right: 2, middle: 4, side: 8, extra: 16 };
const STROKES_MAX = 1000;

export class Screen {
  readonly rfb: RfbServer | undefined;
  readonly #machine: Machine;
  readonly #pump: DisplayPump | undefined;
  #vnc: RfbListener | undefined;
  #vncPassword = false;
  #buttons = 0;
  #pointer: { x: number; y: number } | undefined;
  #typing = Promise.resolve();
  #strokes = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
    const { vga, config } = machine;
    if (vga === undefined) return;
    const { vnc } = config.sockets;
    const framebuffer = new Framebuffer();
    const renderer = new VgaRenderer(vga, machine.vram);
    this.rfb = new RfbServer({
      framebuffer,
      compression: nodeCompression,
      name: config.name || 'Vivarium',
      password: vnc?.password || undefined,
      requirePassword: vnc?.password === '',
      input: {
        key: ({ scancode, keysym }, down) => this.#key(scancode, keysym, down),
        pointer: (x, y, buttons) => this.#movePointer(x, y, buttons),
        clipboard: () => {},
      },
    });
    this.#vncPassword = vnc?.password !== undefined;
    this.#pump = new DisplayPump({
      framebuffer,
      server: this.rfb,
      refresh: (surface) => this.#refresh(renderer, surface),
    });
  }

  /** Opens the VNC socket; rejects when the address is taken. */
  async listen(): Promise<void> {
    const { vnc } = this.#machine.config.sockets;
    if (vnc === undefined || this.rfb === undefined) return;
    const { address } = vnc;
    try {
      this.#vnc = await listenRfb(
        this.rfb,
        address.type === 'unix'
          ? { kind: 'unix', path: address.path }
          : { kind: 'tcp', host: address.host, port: address.port, lastPort: address.port },
      );
    } catch (error) {
      throw new BootError('port-in-use', 'sockets.vnc', error instanceof Error ? error.message : String(error));
    }
  }

  async close(): Promise<void> {
    this.#pump?.stop();
    this.rfb?.close();
    await this.#vnc?.close();
  }

  #key(scancode: number | undefined, keysym: number, down: boolean): void {
    const key = (scancode === undefined ? undefined : keyOfScancode(scancode)) ?? keyOfKeysym(keysym);
    if (key === undefined) return;
    this.#machine.fromOutside({ kind: 'key', key, down });
  }

  #movePointer(x: number, y: number, buttons: number): void {
    const last = this.#pointer ?? { x, y };
    this.#pointer = { x, y };
    const wheel = ((buttons & 8) !== 0 ? -1 : 0) + ((buttons & 16) !== 0 ? 1 : 0);
    const held = (buttons & 1) | ((buttons & 4) >> 1) | ((buttons & 2) << 1);
    if (x === last.x && y === last.y && held === this.#buttons && wheel === 0) return;
    this.#buttons = held;
    this.#machine.fromOutside({ kind: 'mouse', dx: x - last.x, dy: y - last.y, wheel, buttons: held });
  }

  /** Strokes go one after the other, however fast they are asked for; more than 1000 at once are refused. */
  async sendKeys(keys: readonly QKeyCode[], holdMs: number): Promise<void> {
    if (this.#strokes >= STROKES_MAX) throw new MonitorError('too many keys are waiting to be pressed');
    this.#strokes++;
    this.#typing = this.#typing.then(async () => {
      await this.#stroke(keys, holdMs);
      this.#strokes--;
    });
    await this.#typing;
  }

  async #stroke(keys: readonly QKeyCode[], holdMs: number): Promise<void> {
    for (const key of keys) this.#machine.fromOutside({ kind: 'key', key, down: true });
    await new Promise((resolve) => setTimeout(resolve, holdMs));
    for (const key of [...keys].reverse()) this.#machine.fromOutside({ kind: 'key', key, down: false });
  }

  inputEvents(events: readonly InputEvent[]): void {
    const machine = this.#machine;
    machine.shared.lock.hold(() => {
      let dx = 0;
      let dy = 0;
      let wheel = 0;
      for (const event of events) {
        if (event.type === 'key') machine.fromOutside({ kind: 'key', key: event.key, down: event.down });
        else if (event.type === 'rel') {
          if (event.axis === 'x') dx += event.value;
          else dy += event.value;
        } else if (event.type === 'btn') {
          const bit = BUTTONS[event.button] ?? 0;
          if (event.button === 'wheel-up' && event.down) wheel -= 1;
          if (event.button === 'wheel-down' && event.down) wheel += 1;
          this.#buttons = event.down ? this.#buttons | bit : this.#buttons & ~bit;
        }
      }
      machine.fromOutside({ kind: 'mouse', dx, dy, wheel, buttons: this.#buttons });
    });
  }

  #refresh(renderer: VgaRenderer, surface: Framebuffer): void {
    const machine = this.#machine;
    machine.shared.lock.hold(() => {
      machine.pci.sync();
      renderer.capture();
    });
    const frame = renderer.draw({ dirty: this.#dirtyVram(), time: machine.clock.now() / 1e6 });
    if (surface.width !== frame.width || surface.height !== frame.height) surface.resize(frame.width, frame.height);
    for (const { x, y, width, height } of frame.changed) {
      for (let row = y; row < y + height; row++) {
        const at = row * frame.width + x;
        surface.pixels.set(renderer.pixels.subarray(at, at + width), at);
      }
      surface.markDirty(x, y, width, height);
    }
  }

  /** Takes the dirty marks of video memory: a page written after this is marked again. */
  #dirtyVram(): (offset: number, length: number) => boolean {
    const { memory, layout, allTlbs } = this.#machine;
    const first = memory.pageOf(layout.vram);
    const count = layout.vramBytes / 4096;
    const pages = memory.dirty.slice(first, first + count);
    if (pages.some((mark) => mark !== 0)) {
      memory.dirty.fill(0, first, first + count);
      for (const tlbs of allTlbs) Paging.protect(tlbs, first, count);
    }
    return (offset, length) => {
      for (let page = offset >> 12; page <= (offset + length - 1) >> 12; page++) if (pages[page] !== 0) return true;
      return false;
    };
  }

  screendump(format: 'png' | 'ppm'): Uint8Array {
    if (this.#pump === undefined) throw new MonitorError('this machine has no display (-vga none)');
    const shot = this.#pump.screenshot();
    return format === 'png' ? encodePng(shot, nodeCompression) : encodePpm(shot);
  }

  setVncPassword(password: string | undefined): void {
    this.#vncPassword = password !== undefined;
    this.rfb?.setPassword(password);
  }

  vncInfo(): VncInfo {
    const { vnc } = this.#machine.config.sockets;
    const address = this.#vnc === undefined ? undefined : vnc?.address;
    const clients = (this.rfb?.clients() ?? []).map((client) => ({ host: client.peer, port: 0, family: 'unknown' as const }));
    return {
      host: address === undefined ? '' : address.type === 'unix' ? address.path : address.host,
      port: this.#vnc?.port ?? 0,
      family: address === undefined ? 'unknown' : address.type === 'unix' ? 'unix' : address.host.includes(':') ? 'ipv6' : 'ipv4',
      auth: this.#vncPassword ? 'vnc' : 'none',
      clients,
    };
  }
}
