/** `-chardev` and the short forms that `-serial`, `-monitor` and others take (QEMU documentation, "Character device options"). */
import type { ChardevOptions, SocketAddress } from '../../host/chardev-types.ts';
import { Keyval, OptionError, splitCommas } from './keyval.ts';

/** Back ends that QEMU has and this version has not, with the reason. */
const unavailable: Readonly<Record<string, string>> = {
  pty: 'needs a pseudo-terminal, which this version cannot make; use unix:PATH,server=on,wait=off instead',
  vc: 'needs a window of its own; use stdio, file:PATH or unix:PATH instead',
  udp: 'is not in this version',
  serial: 'is not in this version',
  tty: 'is not in this version',
  parallel: 'is not in this version',
  parport: 'is not in this version',
  msmouse: 'is not in this version',
  wctablet: 'is not in this version',
  braille: 'is not in this version',
  console: 'is only on Windows',
  testdev: 'is not in this version',
  spicevmc: 'needs SPICE, which is not in this version',
  spiceport: 'needs SPICE, which is not in this version',
  dbus: 'is not in this version',
  telnet: 'is not in this version; use tcp:HOST:PORT instead',
  websocket: 'is not in this version; use tcp:HOST:PORT instead',
  mux: 'is written mux=on with another back end',
};

export const chardevBackends = ['null', 'stdio', 'file', 'pipe', 'ringbuf', 'socket'] as const;

function common(keys: Keyval, id: string) {
  return { id, mux: keys.flag('mux') ?? false, logfile: keys.text('logfile'), logappend: keys.flag('logappend') ?? false };
}

function port(keys: Keyval, text: string): number {
  if (!/^\d+$/.test(text) || Number(text) > 65535) throw keys.error(`'${text}' is no port number`);
  return Number(text);
}

function socket(keys: Keyval, base: ReturnType<typeof common>): ChardevOptions {
  const path = keys.text('path');
  const host = keys.text('host');
  const service = keys.text('port');
  const ipv4 = keys.flag('ipv4');
  const ipv6 = keys.flag('ipv6');
  for (const key of ['telnet', 'tn3270', 'websocket', 'tls-creds', 'tls-authz', 'fd', 'abstract'])
    if (keys.has(key) && keys.flag(key) !== false) throw keys.error(`'${key}' is not in this version`);
  if ((path === undefined) === (service === undefined)) throw keys.error("one of 'path' and 'port' is needed");
  if (path === '') throw keys.error("'path' is empty");
  const address: SocketAddress =
    path !== undefined
      ? { type: 'unix', path }
      : {
          type: 'tcp',
          host: host ?? '',
          port: port(keys, service ?? ''),
          family: ipv6 && !ipv4 ? 6 : ipv4 && !ipv6 ? 4 : undefined,
        };
  const server = keys.flag('server') ?? false;
  if (!server && keys.has('wait')) throw keys.error("'wait' is only for a server");
  const wait = keys.flag('wait') ?? server;
  const reconnect = keys.integer('reconnect', 0, 86_400) ?? 0;
  if (server && reconnect > 0) throw keys.error("'reconnect' is only for a client");
  keys.text('delay');
  return { ...base, backend: 'socket', address, server, wait, reconnect, nodelay: keys.flag('nodelay') ?? false };
}

/** `-chardev BACKEND,id=ID,...` */
export function parseChardev(text: string): ChardevOptions {
  const option = `-chardev ${text}`;
  const keys = new Keyval(option, text, 'backend');
  const backend = keys.required('backend');
  const id = keys.required('id');
  if (!/^[A-Za-z][\w.-]*$/.test(id)) throw keys.error(`'${id}' is no identifier: a letter, then letters, digits, '-', '.', '_'`);
  const result = fromKeys(keys, backend, id, true);
  keys.finish();
  return result;
}

function fromKeys(keys: Keyval, backend: string, id: string, signal: boolean): ChardevOptions {
  const base = common(keys, id);
  switch (backend) {
    case 'null':
      return { ...base, backend };
    case 'stdio':
      return { ...base, backend, signal: keys.flag('signal') ?? signal };
    case 'file': {
      const path = keys.required('path');
      return { ...base, backend, path, append: keys.flag('append') ?? false, inputPath: keys.text('input-path') };
    }
    case 'pipe':
      return { ...base, backend, path: keys.required('path') };
    case 'ringbuf':
    case 'memory': {
      const size = keys.size('size') ?? 65_536;
      if (size < 1 || size > 1 << 28 || (size & (size - 1)) !== 0) throw keys.error("'size' expects a power of two up to 256M");
      return { ...base, backend: 'ringbuf', size };
    }
    case 'socket':
      return socket(keys, base);
  }
  throw keys.error(
    Object.hasOwn(unavailable, backend)
      ? `back end '${backend}' ${unavailable[backend]}`
      : `'${backend}' is not a valid char driver name`,
  );
}

/** What a short form stands for: a back end of its own, one by id, or none. */
export type ChardevReference =
  | { readonly kind: 'none' }
  | { readonly kind: 'id'; readonly id: string }
  | { readonly kind: 'new'; readonly options: ChardevOptions };

/**
 * The short form: `stdio`, `null`, `none`, `file:PATH`, `pipe:PATH`, `unix:PATH[,server=on][,wait=off]`,
 * `tcp:HOST:PORT[,...]`, `chardev:ID`; `mon:` before it multiplexes the monitor on it (`mux`).
 * `id`: the identifier a new back end gets. `option`: the option's name for messages.
 */
export function parseChardevShort(option: string, text: string, id: string): ChardevReference & { readonly mux: boolean } {
  const whole = `${option} ${text}`;
  const mux = text.startsWith('mon:');
  const spec = mux ? text.slice(4) : text;
  if (spec === 'none') return { kind: 'none', mux };
  if (spec.startsWith('chardev:')) return { kind: 'id', id: spec.slice(8), mux };
  const [head, ...parts] = splitCommas(spec);
  const colon = head.indexOf(':');
  const backend = colon < 0 ? head : head.slice(0, colon);
  const rest = colon < 0 ? '' : head.slice(colon + 1);
  const doubled = (value: string): string => value.replaceAll(',', ',,');
  const suffix = parts.map((part) => `,${doubled(part)}`).join('');
  const make = (name: string, properties: string): ChardevReference & { mux: boolean } => {
    const keys = new Keyval(whole, `${properties}${suffix}`.replace(/^,/, ''));
    const options = fromKeys(keys, name, id, !mux);
    keys.finish();
    return { kind: 'new', options: mux ? { ...options, mux: true } : options, mux };
  };
  switch (backend) {
    case 'stdio':
    case 'null':
      return make(backend, '');
    case 'ringbuf':
    case 'memory':
      return make('ringbuf', '');
    case 'file':
    case 'pipe':
      if (rest === '') throw new OptionError(`${whole}: a path is needed after '${backend}:'`);
      return make(backend, `path=${doubled(rest)}`);
    case 'unix':
      if (rest === '') throw new OptionError(`${whole}: a path is needed after 'unix:'`);
      return make('socket', `path=${doubled(rest)}`);
    case 'tcp': {
      const match = /^(\[[^\]]*\]|[^:]*):(\d+)$/.exec(rest);
      if (match === null) throw new OptionError(`${whole}: tcp:HOST:PORT expected`);
      return make('socket', `host=${doubled(match[1].replace(/^\[|\]$/g, ''))},port=${match[2]}`);
    }
  }
  if (backend.startsWith('/dev/')) throw new OptionError(`${whole}: devices of the host ${unavailable.serial}`);
  throw new OptionError(
    Object.hasOwn(unavailable, backend)
      ? `${whole}: '${backend}' ${unavailable[backend]}`
      : `${whole}: '${backend}' is not a valid char driver`,
  );
}
