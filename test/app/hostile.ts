/**
 * Packages and media that were damaged at random, read as the app reads them: an answer or a typed error, soon, and nothing
 * else. `node test/app/hostile.ts iso|ovf|tar COUNT [FIRST SEED]`.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseVolumeDescriptor } from '../../main/catalogue/iso9660.ts';
import { AppError } from '../../main/contract/index.ts';
import { parseOvf, readTar } from '../../main/storage/ovf.ts';
import { Random } from '../block/harness.ts';

const item = (type: number, id: number, more: string): string =>
  `<Item><rasd:InstanceID>${id}</rasd:InstanceID><rasd:ResourceType>${type}</rasd:ResourceType>${more}</Item>`;
const ovf = `<?xml version="1.0" encoding="UTF-8"?><!-- made by hand -->
<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="x" xmlns:vssd="y">
  <References><File ovf:href="disk &amp; more.vmdk" ovf:id="f1" ovf:size="123456"/><File ovf:href="two.vmdk" ovf:id="f2"/></References>
  <DiskSection><Info>d</Info><Disk ovf:diskId="d1" ovf:capacity="32" ovf:capacityAllocationUnits="byte * 2^20" ovf:fileRef="f1"/>
  <Disk ovf:diskId="d2" ovf:capacity="9007199254740993" ovf:capacityAllocationUnits="GigaBytes" ovf:fileRef="f2" ovf:parentRef="d1"/></DiskSection>
  <VirtualSystem ovf:id="Appliance"><Name>Appliance &lt;1&gt; &#x41;&#66;</Name><![CDATA[ <x> ]]>
  <OperatingSystemSection ovf:id="96"><Description>Debian 12</Description></OperatingSystemSection>
  <VirtualHardwareSection><System><vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType></System>
  ${item(3, 1, '<rasd:VirtualQuantity>2</rasd:VirtualQuantity>')}
  ${item(4, 2, '<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:VirtualQuantity>256</rasd:VirtualQuantity>')}
  ${item(20, 3, '<rasd:ResourceSubType>AHCI</rasd:ResourceSubType>')}${item(6, 4, '')}
  ${item(17, 5, '<rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:Parent>3</rasd:Parent><rasd:AddressOnParent>0</rasd:AddressOnParent>')}
  ${item(17, 6, '<rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:Parent>4</rasd:Parent>')}${item(10, 7, '')}
  </VirtualHardwareSection></VirtualSystem></ovf:Envelope>`;

/** An answer, or an error that a person can read. */
function allow<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof AppError) return undefined;
    throw error;
  }
}

export function ovfCase(seed: number): void {
  const random = new Random(seed);
  let text = ovf;
  for (let edits = 1 + random.below(6); edits > 0; edits--) {
    const at = random.below(text.length);
    const how = random.below(5);
    const from = random.below(ovf.length);
    const piece =
      how === 0
        ? ''
        : how === 1
          ? ovf.slice(from, from + random.below(200))
          : how === 2
            ? random.pick([
                '<',
                '&',
                '>',
                '"',
                '\0',
                ']]>',
                '<!--',
                '<![CDATA[',
                '&#99999999;',
                '&a;',
                '<!DOCTYPE a [<!ENTITY a "b">]>',
              ])
            : how === 3
              ? random.pick(['-1', '1e308', '99999999999999999999', '0x', 'NaN', ' '])
              : `${'<a>'.repeat(random.below(300))}`;
    text = text.slice(0, at) + piece + text.slice(at + (random.chance(0.7) ? random.below(30) : 0));
  }
  const machine = allow(() => parseOvf(text));
  if (machine === undefined) return;
  // What goes on from there is numbers that can be used.
  const look = (value: unknown): void => {
    if (typeof value === 'number') assert.ok(Number.isFinite(value) && value >= 0 && value < 2 ** 80, `seed ${seed}: ${value}`);
    else if (typeof value === 'object' && value !== null) for (const each of Object.values(value)) look(each);
  };
  look(machine);
}

export function isoCase(seed: number): void {
  const random = new Random(seed);
  const data = new Uint8Array(2048).fill(0x20);
  data.set([1, ...Buffer.from('CD001'), 1]);
  data.set(Buffer.from('Debian 12.9.0 amd64 n'), 40);
  const damaged = random.chance(0.1) ? data.slice(0, random.below(2048)) : data;
  for (let hits = random.below(60); hits > 0 && damaged.length > 0; hits--)
    damaged[random.chance(0.3) ? random.below(Math.min(damaged.length, 8)) : random.below(damaged.length)] = random.below(256);
  const found = allow(() => parseVolumeDescriptor(damaged));
  if (found === undefined) return;
  for (const text of [found.systemId, found.volumeId, found.publisher, found.application]) {
    assert.ok(text.length <= 128, `seed ${seed}`);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: there are to be none
    assert.doesNotMatch(text, /[\u0000-\u001f]/, `seed ${seed}`);
  }
  assert.ok(found.volumeBytes >= 0 && found.volumeBytes < 2 ** 48, `seed ${seed}`);
}

function tarHeader(name: string, size: number, kind: string): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write(size.toString(8).padStart(11, '0'), 124);
  header.write(kind, 156);
  header.write('ustar\0', 257);
  return header;
}
const sumInto = (header: Buffer): void => {
  header.fill(0x20, 148, 156);
  header.write(
    header
      .reduce((a, b) => a + b, 0)
      .toString(8)
      .padStart(6, '0'),
    148,
  );
};

export async function tarCase(seed: number, path: string): Promise<void> {
  const random = new Random(seed);
  const headers = [tarHeader('a.ovf', 700, '0'), tarHeader('././@LongLink', 300, 'L'), tarHeader('b.vmdk', 2000, '0')];
  const body = headers.flatMap((header, n) => [header, Buffer.alloc([1024, 512, 2048][n], 'x')]);
  for (const header of headers) {
    for (let hits = random.below(4); hits > 0; hits--)
      header[random.chance(0.6) ? 124 + random.below(40) : random.below(512)] = random.below(256);
    if (random.chance(0.9)) sumInto(header);
  }
  const whole = Buffer.concat([...body, Buffer.alloc(1024)]);
  writeFileSync(path, whole.subarray(0, random.chance(0.3) ? random.below(whole.length) : whole.length));
  try {
    for (const { offset, size, name } of await readTar(path)) {
      assert.ok(offset >= 0 && size >= 0 && offset + size <= whole.length, `seed ${seed}: ${offset} ${size}`);
      assert.ok(name.length < 70_000);
    }
  } catch (error) {
    if (!(error instanceof AppError)) throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
  }
}

if (import.meta.main) {
  const [kind, count, start = '1'] = process.argv.slice(2);
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-hostile-'));
  const began = performance.now();
  let slowest = 0;
  try {
    for (let n = 0; n < Number(count); n++) {
      const seed = Number(start) + n;
      const from = process.cpuUsage();
      if (kind === 'iso') isoCase(seed);
      else if (kind === 'ovf') ovfCase(seed);
      else await tarCase(seed, join(folder, 'a.ova'));
      const used = process.cpuUsage(from);
      slowest = Math.max(slowest, (used.user + used.system) / 1000);
    }
    console.log(
      `${kind}: ${count} cases from seed ${start}, the slowest ${slowest.toFixed(0)} ms of CPU, ${((performance.now() - began) / 1000).toFixed(0)} s`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
