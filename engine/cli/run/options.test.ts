import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type HostInfo, toMachineConfig } from './config.ts';
import { Keyval, OptionError, parseSize, splitCommas } from './keyval.ts';
import { offered, unavailable } from './option-table.ts';
import { helpText, parseRunOptions } from './options.ts';
import type { RunOptions } from './run-options.ts';

/** Splits at spaces; single quotes hold an argument together. */
const words = (line: string): string[] => (line.match(/'[^']*'|\S+/g) ?? []).map((word) => word.replace(/^'|'$/g, ''));

function parse(line: string): RunOptions {
  const parsed = parseRunOptions(words(line), '9.9.9');
  assert.ok(parsed.kind === 'run', line);
  return parsed.options;
}

function text(line: string): string {
  const parsed = parseRunOptions(words(line), '9.9.9');
  assert.ok(parsed.kind === 'print', line);
  return parsed.text;
}

const fails = (line: string, message: RegExp): void =>
  assert.throws(
    () => parseRunOptions(words(line), '9'),
    (error: Error) => error instanceof OptionError && message.test(error.message),
    `${line} should fail with ${message}`,
  );

const files: Readonly<Record<string, number>> = {
  '/k': 8_000_000,
  '/i': 1000,
  '/empty': 0,
  '/usr/share/seabios/bios-256k.bin': 262_144,
  '/fw/x.bin': 1,
};
const host: HostInfo = {
  totalMemory: 8 * 2 ** 30,
  availableMemory: 4 * 2 ** 30,
  file: (path) => (files[path] === undefined ? { problem: 'No such file or directory' } : { bytes: files[path] }),
  kvmProblem: () => 'could not access KVM kernel module',
  portFree: async (_host, port) => port !== 5900,
};

describe('option syntax', () => {
  it('splits at commas, doubled ones stand for themselves', () => {
    assert.deepEqual(splitCommas('a,b=1,,2,c'), ['a', 'b=1,2', 'c']);
    const keys = new Keyval('-x', 'v,path=/a,,b,flag,nowait,n=0x10', 'first');
    assert.deepEqual(
      [keys.text('first'), keys.text('path'), keys.flag('flag'), keys.flag('wait'), keys.integer('n', 0, 16)],
      ['v', '/a,b', true, false, 16],
    );
    keys.finish();
    const left = new Keyval('-x', 'a=1,b=2');
    left.text('a');
    assert.throws(() => left.finish(), /-x: Invalid parameter 'b'/);
  });

  it('reads sizes', () => {
    const sizes: [string, number | undefined][] = [
      ['512', 512 << 20],
      ['4G', 4 * 2 ** 30],
      ['1.5g', 1.5 * 2 ** 30],
      ['64k', 65_536],
      ['10MiB', 10 << 20],
      ['4096b', 4096],
      ['-1', undefined],
      ['x', undefined],
      ['', undefined],
      ['9999999T', undefined],
    ];
    for (const [given, bytes] of sizes) assert.equal(parseSize(given, 1 << 20), bytes, given);
  });
});

describe('vivarium run', () => {
  it('takes the command line of the README', async () => {
    const options = parse(
      "-m 512 -smp 2 -kernel /k -initrd /i -append 'console=ttyS0 quiet' -serial stdio -display none -no-reboot",
    );
    const { config, notes } = await toMachineConfig(options, host);
    assert.deepEqual(notes, []);
    assert.deepEqual(config, {
      version: 1,
      name: '',
      uuid: '00000000-0000-0000-0000-000000000000',
      memoryMiB: 512,
      cpus: { count: 2, sockets: 1, cores: 2, threads: 1, model: 'x86-64-v2', features: {} },
      machine: { type: 'pc', accelerator: 'auto', options: {} },
      boot: { kind: 'kernel', kernel: '/k', initrd: '/i', append: 'console=ttyS0 quiet' },
      drives: [],
      netdevs: [],
      display: { adapter: 'std', memoryMiB: 16 },
      serial: [{ connect: 'chardev', chardev: 'serial0' }],
      rtc: { base: 'utc', clock: 'host' },
      chardevs: [{ id: 'serial0', mux: false, logfile: undefined, logappend: false, backend: 'stdio', signal: true }],
      monitors: [],
      devices: [],
      sockets: { qmp: [], vnc: undefined },
      lifecycle: { paused: false, onReboot: 'exit', onPoweroff: 'exit' },
      debug: { trace: [], items: [], logFile: undefined },
    });
  });

  it('takes one dash or two, and the last of options that are given twice', () => {
    assert.equal(parse('--m 1G -m size=2G --name demo').memoryBytes, 2 * 2 ** 30);
    assert.equal(parse('--name a,,b').name, 'a,b');
    assert.equal(parse('-name guest=x,process=y').name, 'x');
  });

  it('works out the topology', () => {
    const cases: [string, number[]][] = [
      ['4', [4, 1, 4, 1]],
      ['cpus=4,sockets=2', [4, 2, 2, 1]],
      ['4,cores=2', [4, 2, 2, 1]],
      ['4,cores=2,threads=2', [4, 1, 2, 2]],
      ['sockets=2,cores=2,threads=2', [8, 2, 2, 2]],
      ['8,sockets=2,cores=2', [8, 2, 2, 2]],
      ['maxcpus=3', [3, 1, 3, 1]],
    ];
    for (const [given, [cpus, sockets, cores, threads]] of cases)
      assert.deepEqual(parse(`-smp ${given}`).smp, { cpus, sockets, cores, threads }, given);
    fails('-smp 0', /-smp 0: Parameter 'cpus' expects a number from 1/);
    fails('-smp 2,cores=3', /is not the number of CPUs \(2\)/);
    fails('-smp 65', /at most 64/);
    fails('-smp 2,maxcpus=4', /hot-plug/);
    fails('-smp 2,dies=2', /'dies' other than 1/);
  });

  it('makes character devices from short forms', () => {
    const { chardevs, serials, monitors } = parse(
      '-serial mon:stdio -serial unix:/tmp/a,,b,server=on,wait=off -serial none -serial file:/x -qmp tcp:localhost:4444,server,nowait',
    );
    assert.deepEqual(serials, ['serial0', 'serial1', undefined, 'serial3']);
    assert.deepEqual(
      chardevs.map((chardev) => [chardev.id, chardev.backend, chardev.mux]),
      [
        ['serial0', 'stdio', true],
        ['serial1', 'socket', false],
        ['serial3', 'file', false],
        ['compat_monitor_qmp0', 'socket', false],
      ],
    );
    assert.deepEqual(chardevs[0].backend === 'stdio' && chardevs[0].signal, false, 'Ctrl-C goes to the guest');
    const [, first, , tcp] = chardevs;
    assert.ok(first.backend === 'socket' && tcp.backend === 'socket');
    assert.deepEqual([first.address, first.server, first.wait], [{ type: 'unix', path: '/tmp/a,b' }, true, false]);
    assert.deepEqual(
      [tcp.address, tcp.server, tcp.wait],
      [{ type: 'tcp', host: 'localhost', port: 4444, family: undefined }, true, false],
    );
    assert.deepEqual(monitors, [
      { chardev: 'serial0', mode: 'readline', pretty: false },
      { chardev: 'compat_monitor_qmp0', mode: 'control', pretty: false },
    ]);
  });

  it('makes character devices from -chardev', () => {
    const { chardevs } = parse(
      '-chardev socket,id=a,path=/p,server=on,wait=off,logfile=/l -chardev ringbuf,id=b,size=4k -chardev stdio,id=c,mux=on,signal=off ' +
        '-chardev file,id=d,path=/f,append=on -serial chardev:c -mon chardev=c -mon a,mode=control -serial chardev:b -debugcon chardev:d',
    );
    assert.deepEqual(
      chardevs.map(({ id }) => id),
      ['a', 'b', 'c', 'd'],
    );
    fails('-chardev socket,id=a', /one of 'path' and 'port'/);
    fails('-chardev null', /Parameter 'id' is missing/);
    fails('-chardev null,id=a,x=1', /Invalid parameter 'x'/);
    fails('-chardev nix,id=a', /'nix' is not a valid char driver name/);
    fails('-chardev pty,id=a', /pseudo-terminal/);
    fails('-chardev null,id=a -chardev null,id=a', /Duplicate ID 'a'/);
    fails('-chardev ringbuf,id=a,size=1000', /power of two/);
    fails('-serial pty', /-serial pty: 'pty' needs a pseudo-terminal/);
    fails('-serial foo', /'foo' is not a valid char driver/);
    fails('-serial chardev:x', /chardev 'x' not found/);
    fails('-serial stdio -monitor stdio', /cannot use stdio by multiple character devices/);
    fails('-chardev null,id=a -serial chardev:a -serial chardev:a', /in use by -serial \(port 1\); mux=on/);
    fails('-serial null -serial null -serial null -serial null -serial null', /four serial ports/);
    fails('-serial tcp:localhost', /tcp:HOST:PORT expected/);
  });

  it('takes devices with their properties', async () => {
    const options = parse(
      '-device isa-debug-exit,iobase=0xf4,iosize=0x04 -object rng-random,id=r,filename=/dev/urandom -device virtio-rng-pci,rng=r,max-bytes=1024 ' +
        '-device virtio-serial-pci,id=vs -chardev null,id=c -device virtconsole,chardev=c -kernel /k -display none ' +
        `-device '{"driver":"virtserialport","name":"org.x","nr":2}' -global isa-debug-exit.iosize=8 -global virtio-rng-pci.period=100`,
    );
    const { config } = await toMachineConfig(options, host);
    assert.deepEqual(config.devices, [
      { driver: 'isa-debug-exit', id: undefined, properties: { iobase: '244', iosize: '4' } },
      { driver: 'virtio-rng-pci', id: undefined, properties: { period: '100', 'max-bytes': '1024' } },
      { driver: 'virtio-serial-pci', id: 'vs', properties: {} },
      { driver: 'virtconsole', id: undefined, properties: { chardev: 'c' } },
      { driver: 'virtserialport', id: undefined, properties: { name: 'org.x', nr: '2' } },
    ]);
    fails('-device foo', /-device foo: 'foo' is not a valid device model name/);
    fails('-device virtio-net-pci,netdev=n', /device 'virtio-net-pci' is not in this version \(it has no network cards\)/);
    fails('-device isa-debug-exit,foo=1', /Property 'isa-debug-exit.foo' not found/);
    fails('-device isa-debug-exit,iobase=x', /'iobase' expects a number/);
    fails('-device virtio-rng-pci,rng=nope', /object 'nope' not found/);
    fails('-device virtconsole', /No 'virtio-serial-bus' bus/);
    fails('-device isa-serial', /Parameter 'chardev' is missing/);
    fails('-device virtio-rng-pci,id=a -device isa-debug-exit,id=a', /Duplicate device ID 'a'/);
    fails('-global foo.bar=1', /device model 'foo' is not in this version/);
    fails('-object secret,id=s', /object 'secret' is not in this version/);
  });

  it('takes machine, CPU and accelerator', () => {
    const options = parse('-M pc,accel=kvm:tcg,usb=off -cpu qemu64,+sse4_2,-x2apic,avx2=off,enforce');
    assert.deepEqual(options.accelerators, ['kvm', 'jit']);
    assert.deepEqual(options.cpu, {
      model: 'qemu64',
      features: [
        { name: 'sse4.2', on: true },
        { name: 'x2apic', on: false },
        { name: 'avx2', on: false },
      ],
    });
    assert.deepEqual(parse('-machine type=pc-i440fx-7.2 -accel tcg,thread=multi').accelerators, ['jit']);
    fails('-machine microvm', /machine type 'microvm' is not in this version/);
    fails('-machine foo', /unsupported machine type 'foo'/);
    fails('-machine pc,usb=on', /'usb=on' is not in this version/);
    fails('-machine pc,foo=on', /Property 'foo'/);
    fails('-machine accel=xen', /accelerator 'xen'/);
    assert.deepEqual(parse('-cpu max,host-phys-bits,phys-bits=40,vendor=AuthenticAMD').cpu, {
      model: 'max',
      features: [],
      vendor: 'AuthenticAMD',
    });
    fails('-cpu max,phys-bits=36', /physical addresses have 40 bits/);
    fails('-cpu max,vendor=AMD', /a vendor has 12 characters/);
    fails('-cpu foo', /unable to find CPU model 'foo'/);
    fails('-cpu max,+avx512f', /CPU feature 'avx512f' is not in this version/);
    assert.deepEqual(parse('-cpu Haswell,+lzcnt,-sha-ni').cpu.features, [
      { name: 'abm', on: true },
      { name: 'sha-ni', on: false },
    ]);
    assert.deepEqual(parse('-cpu max,migratable=no,avx2=no').cpu.features, [{ name: 'avx2', on: false }]);
    assert.deepEqual(parse('-icount shift=3,sleep=off').icount, { shift: 3 });
    assert.deepEqual(parse('-icount 7').icount, { shift: 7 });
    fails('-icount shift=auto', /'auto' is not in this version/);
    assert.deepEqual(parse('-icount shift=3,rr=record,rrfile=x').icount, { shift: 3, replay: { mode: 'record', file: 'x' } });
    fails('-cpu host', /needs -accel kvm/);
  });

  it('does with -nographic what QEMU does', () => {
    const plain = parse('-nographic');
    assert.deepEqual([plain.serials, plain.monitors.length, plain.vnc], [['serial0'], 1, undefined]);
    assert.equal(plain.chardevs[0].mux, true);
    assert.equal(parse('-nographic -monitor none').chardevs[0].mux, false);
    assert.equal(parse('-nographic -serial none').monitors[0].chardev, 'compat_monitor0');
    assert.deepEqual(parse('-nographic -serial stdio').monitors, []);
    assert.deepEqual(parse('-nodefaults').serials, []);
    assert.equal(parse('-nodefaults').vga, 'none');
  });

  it('takes the rest', async () => {
    const options = parse(
      '-S -no-shutdown -name n -uuid 6A6D1E9C-0000-4000-8000-00000000000a -rtc base=2006-06-17T16:01:21,clock=vm -d int,trace:pic* -D /log -trace uart_* -boot order=dc,menu=on ' +
        '-pidfile /p -echr 2 -net none -nic none -audio none -parallel none -k en-us -vga std -L /fw -bios x.bin -vnc 127.0.0.1:1,password=on -no-user-config -no-hpet',
    );
    const { config } = await toMachineConfig(options, host);
    assert.deepEqual(config.lifecycle, { paused: true, onReboot: 'reset', onPoweroff: 'pause' });
    assert.deepEqual(config.debug, { trace: ['pic*', 'uart_*'], items: ['int'], logFile: '/log' });
    assert.deepEqual(config.rtc, { base: '2006-06-17T16:01:21Z', clock: 'vm' });
    assert.deepEqual(config.boot, {
      kind: 'firmware',
      image: '/fw/x.bin',
      order: 'dc',
      once: undefined,
      menu: true,
      direct: undefined,
    });
    assert.deepEqual(config.sockets.vnc, { address: { type: 'tcp', host: '127.0.0.1', port: 5901 }, password: '' });
    assert.equal(config.uuid, '6a6d1e9c-0000-4000-8000-00000000000a');
    assert.deepEqual([options.escape, options.pidfile], [2, '/p']);
  });

  it('takes ranges of addresses for the log as QEMU does', async () => {
    const options = parse('-d in_asm,wasm -dfilter 0x8000..0x8fff,0xffffffc000080000+0x200 -dfilter 0x2000-0x1000,010+1');
    const { config } = await toMachineConfig(options, host);
    assert.deepEqual(config.debug.items, ['in_asm', 'wasm']);
    assert.deepEqual(config.debug.ranges, [
      { first: '0x8000', last: '0x8fff' },
      { first: '0xffffffc000080000', last: '0xffffffc0000801ff' },
      { first: '0x1001', last: '0x2000' },
      { first: '0x8', last: '0x8' },
    ]);
  });

  it('names what is wrong or not there', () => {
    fails('-foo', /^-foo: invalid option/);
    fails('-m', /^-m: requires an argument/);
    fails('-m abc', /-m abc: Parameter 'size' expects a size/);
    fails('-m 64,foo=2', /Invalid parameter 'foo'/);
    fails('-m 64,maxmem=1G', /'maxmem'/);
    fails('-sd x', /^-sd: not in this version/);
    fails('-netdev user,id=n', /^-netdev: not in this version/);
    fails('-usb', /^-usb: not in this version/);
    fails('-daemonize', /^-daemonize: not in this version/);
    fails('-display gtk', /-display gtk/);
    fails('-vga qxl', /-vga qxl/);
    fails(
      '-d foo',
      /log item 'foo' is not in this version; there are in_asm, ir, op_opt, wasm, int, cpu_reset and trace:PATTERN/,
    );
    fails('-d exec,in_asm', /log item 'exec'/);
    for (const range of ['7', '0x10..0xf', '5+0', '5-0', '5-7', '0xffffffffffffffff+2', '1..2x', ''])
      fails(`-dfilter ${range === '' ? '1..2,' : range}`, /^-dfilter .*(is no range|has no addresses)/);
    fails('-rtc base=foo', /invalid datetime format/);
    fails('-boot order=z', /Invalid boot device 'z'/);
    fails('-uuid 1', /UUID/);
    fails('-vnc foo', /no vnc port specified/);
    fails('-vnc :0,websocket=on', /'websocket' is not in this version/);
    fails('-initrd /i', /-initrd is only allowed with the -kernel option/);
    fails('-net nic', /networks are not in this version/);
  });

  it('passes over no option of the tables: each is taken or refused by name', () => {
    for (const [name, { argument }] of unavailable)
      fails(`-${name}${argument ? ' x' : ''}`, new RegExp(`^-${name}: not in this version`));
    const names = offered.flatMap((row) => row.names);
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.equal(unavailable.has(name), false, name);
    for (const name of names) assert.match(helpText(), new RegExp(`-${name}\\b`));
  });

  it('prints help', () => {
    assert.match(text('-help'), /^usage: vivarium run/);
    assert.equal(text('-version'), 'Vivarium version 9.9.9\n');
    assert.match(text('-device help'), /name "virtio-rng-pci", bus PCI/);
    assert.match(text('-device isa-debug-exit,help'), /iobase=<uint32>.*default: 0x501/);
    assert.match(text('-machine help'), /^Supported machines are:\npc .*\(default\)/);
    assert.match(text('-cpu help'), /x86 qemu64/);
    assert.match(text('-d help'), /cpu_reset/);
    assert.match(text('-chardev help'), /ringbuf/);
  });
});

describe('the host', () => {
  const rejects = (line: string, message: RegExp): Promise<void> => assert.rejects(toMachineConfig(parse(line), host), message);

  it('is asked for files, memory, ports and KVM', async () => {
    await rejects('-kernel /nope -display none', /-kernel: could not open kernel file '\/nope': No such file or directory/);
    await rejects('-kernel /empty -display none', /kernel file '\/empty' is empty/);
    await rejects('-kernel /k -initrd /nope -display none', /-initrd: could not open initial RAM disk '\/nope'/);
    await rejects('-kernel /k -m 16G -display none', /16384 MiB is more than this host has \(8192 MiB\)/);
    await rejects('-kernel /k -vnc :0', /port 5900 is in use by another program/);
    await rejects('-kernel /k -display none -accel kvm', /-accel kvm: could not access KVM/);
    await rejects('-bios nope.bin -display none', /could not load PC BIOS 'nope.bin'/);
    await rejects('-kernel /k -display none -device VGA', /has a VGA adapter already/);
    assert.equal(
      (await toMachineConfig(parse('-kernel /k -display none -accel kvm -accel tcg'), host)).config.machine.accelerator,
      'jit',
    );
    const big = await toMachineConfig(parse('-kernel /k -m 6G -display none'), host);
    assert.match(big.notes[0], /warning: the guest's 6144 MiB are more than is free/);
    const vnc = await toMachineConfig(parse('-kernel /k'), host);
    assert.deepEqual(vnc.notes, ['VNC server running on localhost:5901']);
    assert.deepEqual((await toMachineConfig(parse('-display none'), host)).config.boot, {
      kind: 'firmware',
      image: '/usr/share/seabios/bios-256k.bin',
      order: undefined,
      once: undefined,
      menu: false,
      direct: undefined,
    });
  });
});
