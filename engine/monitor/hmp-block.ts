/** Drives, snapshots and saved state in the human monitor, in QEMU's layout. */
import type { BlockControl, BlockSnapshot } from './block-control.ts';
import { type HumanMonitor, noMore, splitWords, UsageError } from './hmp.ts';

const two = (value: number): string => String(value).padStart(2, '0');

/** `512 B`, `1.5 MiB`. */
function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  let value = bytes;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1024;
    at++;
  }
  return `${Number(value.toPrecision(3))} ${units[at]}`;
}

/** The table of `info snapshots`. */
export function snapshotTable(list: readonly BlockSnapshot[]): string {
  const row = (id: string, tag: string, bytes: string, date: string, clock: string): string =>
    `${id.padEnd(10)}${tag.padEnd(17)}${bytes.padStart(8)}${date.padStart(20)}${clock.padStart(16)}\n`;
  let text = row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK');
  for (const item of list) {
    const d = new Date(item.seconds * 1000);
    const date = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
    const seconds = Math.floor(item.vmClockNs / 1e9);
    const clock = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${String(Math.floor((item.vmClockNs % 1e9) / 1e6)).padStart(3, '0')}`;
    text += row(item.id, item.name, size(item.vmStateSize), date, clock);
  }
  return text;
}

/** Bytes from `10G`; a plain number is in MiB, as `block_resize` has it. */
function bytesOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([bBkKmMgGtT]?)$/.exec(text);
  if (match === null) throw new UsageError(`invalid size '${text}'`);
  const unit = match[2] === '' ? 'm' : match[2].toLowerCase();
  return Math.floor(Number(match[1]) * 1024 ** 'bkmgt'.indexOf(unit));
}

export function registerHumanBlockCommands(monitor: HumanMonitor, block: BlockControl): void {
  registerSnapshots(monitor, block);
  registerDrives(monitor, block);
  registerInfo(monitor, block);
}

/** The words of a line, from `least` to `most` of them beside the flags. */
function words(text: string, name: string, least: number, most: number, flags = ''): { flags: Set<string>; rest: string[] } {
  const found = new Set<string>();
  const rest: string[] = [];
  for (const word of splitWords(text)) {
    if (!/^-[a-z]$/.test(word)) rest.push(word);
    else if (flags.includes(word[1])) found.add(word[1]);
    else throw new UsageError(`${name}: unsupported option ${word}`);
  }
  if (rest.length < least) throw new UsageError(`${name}: more arguments expected`);
  noMore(rest.slice(most).join(' '), name);
  return { flags: found, rest };
}

function registerSnapshots(monitor: HumanMonitor, block: BlockControl): void {
  monitor.register('savevm', 'tag', 'save a snapshot of the machine; one of the same tag is replaced', async (text) => {
    const { rest } = words(text, 'savevm', 1, 1);
    await block.saveSnapshot(rest[0], { replace: true });
    return '';
  });
  monitor.register('loadvm', 'tag', 'go back to a snapshot of the machine', async (text) => {
    await block.loadSnapshot(words(text, 'loadvm', 1, 1).rest[0]);
    return '';
  });
  monitor.register('delvm', 'tag', 'delete a snapshot of the machine', async (text) => {
    await block.deleteSnapshot(words(text, 'delvm', 1, 1).rest[0]);
    return '';
  });
  monitor.register('migrate', 'uri', "save the machine's state (file:PATH)", async (text) => {
    const { rest } = words(text, 'migrate', 1, 1, 'd');
    const match = /^file:(.+)$/.exec(rest[0]);
    if (match === null) throw new UsageError('migrate: file:PATH expected; no other way is offered');
    await block.saveState(match[1]);
    return '';
  });
}

function registerDrives(monitor: HumanMonitor, block: BlockControl): void {
  monitor.register('block_resize', 'device size', 'give a drive another size (MiB, or with a unit)', async (text) => {
    const { rest } = words(text, 'block_resize', 2, 2);
    await block.resize(rest[0], bytesOf(rest[1]));
    return '';
  });
  monitor.register(
    'snapshot_blkdev',
    '[-n] device file [format]',
    'write into an overlay from now on (-n: it is there)',
    async (text) => {
      const { rest, flags } = words(text, 'snapshot_blkdev', 2, 3, 'n');
      await block.overlay(rest[0], {
        file: rest[1],
        format: rest[2] ?? 'qcow2',
        mode: flags.has('n') ? 'existing' : 'absolute-paths',
      });
      return '';
    },
  );
  const common = { id: undefined, autoDismiss: true } as const;
  monitor.register('block_stream', 'device [speed [base]]', 'copy from backing files into the drive', async (text) => {
    const { rest } = words(text, 'block_stream', 1, 3);
    await block.startJob(rest[0], { ...common, kind: 'stream', speed: Number(rest[1] ?? 0), base: rest[2] });
    return '';
  });
  monitor.register(
    'drive_mirror',
    '[-n] [-f] device target [format]',
    'copy a drive while it is used (-f: its whole chain)',
    async (text) => {
      const { rest, flags } = words(text, 'drive_mirror', 2, 3, 'nf');
      await block.startJob(rest[0], {
        ...common,
        kind: 'mirror',
        speed: 0,
        target: rest[1],
        format: rest[2],
        mode: flags.has('n') ? 'existing' : 'absolute-paths',
        sync: flags.has('f') ? 'full' : 'top',
      });
      return '';
    },
  );
  const ofDrive = (name: string): string => block.jobs().find(({ id, drive }) => id === name || drive === name)?.id ?? name;
  for (const action of ['pause', 'resume', 'complete'] as const)
    monitor.register(`block_job_${action}`, 'device', `${action} a block job`, async (text) => {
      await block.jobAction(ofDrive(words(text, `block_job_${action}`, 1, 1).rest[0]), { do: action });
      return '';
    });
  monitor.register('block_job_cancel', '[-f] device', 'cancel a block job (-f: at once)', async (text) => {
    const { rest, flags } = words(text, 'block_job_cancel', 1, 1, 'f');
    await block.jobAction(ofDrive(rest[0]), { do: 'cancel', force: flags.has('f') });
    return '';
  });
  monitor.register('device_add', 'driver[,prop=value][,...]', 'plug a device in', async (text) => {
    const [driver = '', ...rest] = text.trim().split(',');
    const given = rest.map((part) => {
      const at = part.indexOf('=');
      return at < 0 ? [part, 'on'] : [part.slice(0, at), part.slice(at + 1)];
    });
    if (driver === '') throw new UsageError('device_add: a driver expected');
    await block.addDevice({ driver, ...Object.fromEntries(given) });
    return '';
  });
  monitor.register('device_del', 'device', 'ask a device to go', async (text) => {
    await block.removeDevice(words(text, 'device_del', 1, 1).rest[0]);
    return '';
  });
  monitor.register('eject', '[-f] device', 'take a medium out (-f: even where the guest prevents it)', async (text) => {
    const { rest, flags } = words(text, 'eject', 1, 1, 'f');
    await block.eject(rest[0], flags.has('f'));
    return '';
  });
  monitor.register('change', '[-f] device file [format]', 'put another medium in', async (text) => {
    const { rest, flags } = words(text, 'change', 2, 3, 'f');
    await block.changeMedium(rest[0], { file: rest[1], format: rest[2], readOnly: 'retain', force: flags.has('f') });
    return '';
  });
  monitor.register(
    'nbd_server_start',
    '[-a] [-w] host:port',
    'serve drives by NBD (-a: all of them, -w: writable)',
    async (text) => {
      const { rest, flags } = words(text, 'nbd_server_start', 1, 1, 'aw');
      const at = rest[0].lastIndexOf(':');
      const port = Number(rest[0].slice(at + 1));
      if (rest[0].startsWith('unix:')) await block.startNbd({ path: rest[0].slice(5) });
      else if (at < 0 || !Number.isInteger(port)) throw new UsageError('nbd_server_start: host:port expected');
      else await block.startNbd({ host: rest[0].slice(0, at), port });
      if (flags.has('a'))
        for (const drive of await block.drives())
          if (drive.chain.length > 0) await block.addExport(drive.id, { writable: flags.has('w') && !drive.readOnly });
      return '';
    },
  );
  monitor.register('nbd_server_add', '[-w] device [name]', 'serve a drive by NBD', async (text) => {
    const { rest, flags } = words(text, 'nbd_server_add', 1, 2, 'w');
    await block.addExport(rest[0], { name: rest[1], writable: flags.has('w') });
    return '';
  });
  monitor.register('nbd_server_stop', '', 'stop serving by NBD', async (text) => {
    words(text, 'nbd_server_stop', 0, 0);
    await block.stopNbd();
    return '';
  });
}

function registerInfo(monitor: HumanMonitor, block: BlockControl): void {
  monitor.registerInfo('snapshots', '', 'the snapshots that can be loaded', async (text) => {
    noMore(text, 'snapshots');
    const drives = (await block.drives()).filter(({ chain }) => chain[0]?.format === 'qcow2' && !chain[0].readOnly);
    const [first] = drives;
    if (first === undefined) return 'No available block device supports snapshots\n';
    const whole = first.chain[0].snapshots.filter(({ name }) =>
      drives.every(({ chain }) => chain[0].snapshots.some((each) => each.name === name)),
    );
    return whole.length === 0
      ? 'There is no snapshot available.\n'
      : `List of snapshots present on all disks:\n${snapshotTable(whole)}`;
  });
  monitor.registerInfo('block', '', 'the drives', async (text) => {
    noMore(text, 'block');
    const drives = await block.drives();
    return drives
      .map((drive) => {
        const [image, ...backing] = drive.chain;
        const head =
          image === undefined
            ? `${drive.id}: [not inserted]`
            : `${drive.id} (${image.nodeName}): ${image.file} (${image.format}${drive.readOnly ? ', read-only' : ''})`;
        const lines = [head, `    Attached to:      ${drive.device}`];
        if (drive.removable)
          lines.push(`    Removable device: ${drive.locked ? '' : 'not '}locked, tray ${drive.trayOpen ? 'open' : 'closed'}`);
        if (drive.ioStatus !== 'ok') lines.push(`    I/O status:       ${drive.ioStatus}`);
        if (image !== undefined) lines.push(`    Cache mode:       ${drive.cache}`);
        if (backing.length > 0) lines.push(`    Backing file:     ${backing[0].file} (chain depth: ${backing.length})`);
        return `${lines.join('\n')}\n`;
      })
      .join('\n');
  });
  monitor.registerInfo('blockstats', '', 'what the drives have read and written', async (text) => {
    noMore(text, 'blockstats');
    return (await block.drives())
      .map(
        ({ id, stats }) =>
          `${id}: rd_bytes=${stats.readBytes} wr_bytes=${stats.writtenBytes} rd_operations=${stats.readOperations} wr_operations=${stats.writeOperations} flush_operations=${stats.flushOperations} wr_total_time_ns=${stats.writeNs} rd_total_time_ns=${stats.readNs} flush_total_time_ns=${stats.flushNs}\n`,
      )
      .join('');
  });
  monitor.registerInfo('block-jobs', '', 'the jobs that run on drives', (text) => {
    noMore(text, 'block-jobs');
    const jobs = block.jobs().filter(({ drive }) => drive !== undefined);
    if (jobs.length === 0) return 'No active jobs\n';
    return jobs
      .map(
        ({ type, id, done, total, speed }) =>
          `Type ${type}, device ${id}: Completed ${done} of ${total} bytes, speed limit ${speed} bytes/s\n`,
      )
      .join('');
  });
  monitor.registerInfo('migrate', '', "how far saving the machine's state is", (text) => {
    noMore(text, 'migrate');
    const { status, done, total, error } = block.migration();
    return status === 'none'
      ? ''
      : `Status: ${status}${error === undefined ? '' : ` (${error})`}\nRAM: ${done} of ${total} bytes\n`;
  });
}
