import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type HostInfo, toMachineConfig } from './config.ts';
import { OptionError } from './keyval.ts';
import { parseRunOptions } from './options.ts';
import type { RunOptions } from './run-options.ts';

const words = (line: string): string[] => (line.match(/'[^']*'|\S+/g) ?? []).map((word) => word.replace(/^'|'$/g, ''));

function parse(line: string): RunOptions {
  const parsed = parseRunOptions(words(line), '9');
  assert.ok(parsed.kind === 'run', line);
  return parsed.options;
}

const fails = (line: string, message: RegExp): void =>
  assert.throws(
    () => parse(line),
    (error: Error) => error instanceof OptionError && message.test(error.message),
    `${line} should fail with ${message}`,
  );

const host: HostInfo = {
  totalMemory: 8 * 2 ** 30,
  availableMemory: 4 * 2 ** 30,
  file: () => ({ bytes: 1 << 20 }),
  kvmProblem: () => 'no',
  portFree: async () => true,
};

/** Name, interface, index, file. */
const places = (line: string): unknown[] => parse(line).drives.map((each) => [each.id, each.interface, each.index, each.file]);

describe('-drive', () => {
  it('puts drives where QEMU does', () => {
    assert.deepEqual(places('disk.img -cdrom a.iso'), [
      ['ide0-hd0', 'ide', 0, 'disk.img'],
      ['ide1-cd0', 'ide', 2, 'a.iso'],
    ]);
    assert.deepEqual(places('-hdb b -drive file=c -drive file=v,if=virtio,id=x -drive file=n,if=none'), [
      ['ide0-hd1', 'ide', 1, 'b'],
      ['ide0-hd0', 'ide', 0, 'c'],
      ['x', 'virtio', 0, 'v'],
      ['none0', 'none', undefined, 'n'],
    ]);
    assert.deepEqual(places('-M q35 -hda a -cdrom b -drive file=c'), [
      ['ide0-hd0', 'ide', 0, 'a'],
      ['ide2-cd0', 'ide', 2, 'b'],
      ['ide1-hd0', 'ide', 1, 'c'],
    ]);
    assert.deepEqual(places('-drive file=a,bus=1,unit=1')[0], ['ide1-hd1', 'ide', 3, 'a']);
    fails('-hda a -drive file=b,index=0', /drive with bus=0, unit=0 \(index=0\) exists/);
    fails('-drive file=a,index=4', /Too many IDE buses/);
    fails('-hda a -hdb b -cdrom c -hdd d -drive file=e', /no IDE place left/);
    fails('-drive file=a,id=x -drive file=b,id=x', /Duplicate ID 'x'/);
    fails('-drive if=floppy,file=f,index=2', /Too many FLOPPY buses/);
    fails('-fda a -fdb b -drive if=floppy,file=c', /two floppy drives/);
    assert.deepEqual(places('-fdb b -drive if=floppy,file=a'), [
      ['floppy1', 'floppy', 1, 'b'],
      ['floppy0', 'floppy', 0, 'a'],
    ]);
    fails('-drive if=virtio', /Parameter 'file' is missing/);
    assert.equal(parse('-drive media=cdrom').drives[0].file, '');
  });

  it('reads cache, discard, errors, limits', () => {
    const [drive] = parse(
      '-drive file=a,,b.qcow2,format=qcow2,if=virtio,cache=unsafe,discard=unmap,detect-zeroes=unmap,readonly=on,serial=S1,' +
        'rerror=stop,werror=enospc,bps=1000,throttling.iops-read=5,node-name=n,aio=threads',
    ).drives;
    assert.deepEqual(
      { ...drive, option: '' },
      {
        option: '',
        id: 'virtio0',
        file: 'a,b.qcow2',
        format: 'qcow2',
        media: 'disk',
        interface: 'virtio',
        index: 0,
        readOnly: true,
        snapshot: false,
        cache: 'unsafe',
        discard: 'unmap',
        detectZeroes: 'unmap',
        serial: 'S1',
        nodeName: 'n',
        onReadError: 'stop',
        onWriteError: 'enospc',
        limits: { bps: 1000, iopsRead: 5 },
      },
    );
    assert.equal(parse('-drive file=a,cache.direct=on').drives[0].cache, 'none');
    assert.equal(parse('-drive file=a,cache.writeback=off').drives[0].cache, 'writethrough');
    assert.deepEqual(
      parse('-hda a -cdrom b -drive file=c,readonly=on -snapshot').drives.map(({ snapshot }) => snapshot),
      [true, false, false],
    );
    fails('-drive file=a,cache=directsync', /directsync/);
    fails('-drive file=a,cache=fast', /Parameter 'cache' does not accept 'fast'/);
    fails('-drive file=a,foo=1', /Invalid parameter 'foo'/);
    fails('-drive file=a,bps=1,bps_rd=2', /cannot be used at the same time/);
    fails('-drive file=a,detect-zeroes=unmap', /without setting discard/);
    fails('-drive file=http://x/y', /Unknown protocol 'http'/);
    fails('-drive file=a,format=qed', /does not accept 'qed'/);
    fails('-drive file=a,rerror=enospc', /werror=enospc/);
  });
});

describe('-device with a drive', () => {
  it('takes a -drive with if=none, or an empty CD', () => {
    const { drives, devices } = parse(
      '-drive file=a,if=none,id=d -device virtio-scsi-pci,id=s -device scsi-hd,drive=d,bus=s.0,bootindex=1,serial=X -device ide-cd,id=c',
    );
    assert.deepEqual(
      drives.map(({ id, file, media, bootIndex, serial, readOnly }) => [id, file, media, bootIndex, serial, readOnly]),
      [
        ['d', 'a', 'disk', 1, 'X', false],
        ['c', '', 'cdrom', undefined, undefined, true],
      ],
    );
    assert.equal(devices[2].properties.drive, 'c');
    fails('-device virtio-blk-pci', /Parameter 'drive' is missing/);
    fails('-device virtio-blk-pci,drive=nope', /can't find value 'nope'/);
    fails('-drive file=a,id=d,if=virtio -device ide-hd,drive=d', /did you need 'if=none'/);
    fails('-drive file=a,id=d,if=none -device ide-hd,drive=d -device ide-hd,drive=d', /already in use by another block device/);
    fails('-drive if=none,id=d -device ide-hd,drive=d', /Device needs media, but drive is empty/);
    fails('-drive file=a,if=none,id=d -device ide-hd,drive=d,werror=maybe', /werror 'maybe'/);
    fails('-drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,logical_block_size=1000', /no power of two/);
    fails('-device lsi53c895a', /no such disk controllers/);
    fails('-drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,iothread=t', /object 't' not found/);
    parse('-object iothread,id=t -drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,iothread=t');
  });
});

describe('-blockdev', () => {
  it('makes a drive of a format over a protocol', () => {
    const { drives } = parse(
      '-blockdev driver=file,node-name=f,filename=/x/a.qcow2,cache.direct=on -blockdev driver=qcow2,node-name=q,file=f,discard=unmap ' +
        `-blockdev '{"driver":"raw","node-name":"r","read-only":true,"file":{"driver":"nbd","server":{"type":"inet","host":"h","port":"10809"},"export":"e"}}' ` +
        '-device virtio-blk-pci,drive=q -device nvme,drive=r,serial=1',
    );
    assert.deepEqual(
      drives.map(({ id, file, format, cache, discard, readOnly, nodeName }) => [
        id,
        file,
        format,
        cache,
        discard,
        readOnly,
        nodeName,
      ]),
      [
        ['q', '/x/a.qcow2', 'qcow2', 'none', 'unmap', false, 'q'],
        ['r', 'nbd://h:10809/e', 'raw', 'writeback', 'ignore', true, 'r'],
      ],
    );
    fails('-blockdev driver=qcow2,node-name=q', /Parameter 'file' is missing/);
    fails('-blockdev driver=file,filename=a', /'node-name' must be specified/);
    fails('-blockdev driver=quorum,node-name=q', /driver 'quorum' is not in this version/);
    fails('-blockdev driver=raw,node-name=q,file=nope -device virtio-blk-pci,drive=q', /node-name='nope'/);
    fails('-blockdev driver=raw,node-name=a,file=a -device virtio-blk-pci,drive=a', /name each other/);
    fails('-blockdev {oops', /-blockdev/);
  });
});

describe('firmware flash', () => {
  const boot = async (line: string) => (await toMachineConfig(parse(`${line} -display none`), host)).config.boot;

  it('is the firmware and its variables', async () => {
    assert.deepEqual(
      await boot('-drive if=pflash,format=raw,readonly=on,file=CODE.fd -drive if=pflash,format=raw,file=VARS.fd'),
      {
        kind: 'firmware',
        image: 'CODE.fd',
        variables: 'VARS.fd',
        variablesKept: true,
        order: undefined,
        once: undefined,
        menu: false,
        direct: undefined,
      },
    );
    const nodes = await boot(
      '-blockdev driver=file,node-name=c,filename=C,read-only=on -blockdev driver=file,node-name=v,filename=V,read-only=on -M q35,pflash0=c,pflash1=v',
    );
    assert.ok(nodes.kind === 'firmware');
    assert.deepEqual([nodes.image, nodes.variables, nodes.variablesKept], ['C', 'V', false]);
    await assert.rejects(boot('-drive if=pflash,unit=1,file=V'), /there is no unit 0/);
    await assert.rejects(boot('-pflash C -bios x'), /-bios: cannot be used/);
  });

  it('boots in an order, once in another', async () => {
    const order = await boot('-boot order=c,once=d,menu=on');
    assert.ok(order.kind === 'firmware');
    assert.deepEqual([order.order, order.once, order.menu], ['c', 'd', true]);
    fails('-boot once=z', /Invalid boot device 'z'/);
  });
});
