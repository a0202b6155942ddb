/** The DSDT: what of the machine an operating system cannot find out by looking. ACPI 6.4, chapters 5 to 9. */
import { ich9Line } from '../../devices/ich9.ts';
import {
  type Aml,
  and,
  argument,
  busRange,
  byteField,
  device,
  dmaChannel,
  dwordField,
  dwordFields,
  eisaId,
  equal,
  giveBack,
  integer,
  ioPorts,
  ioWindow,
  irq,
  local,
  memory32,
  memoryWindow32,
  memoryWindow64,
  method,
  name,
  notify,
  operationRegion,
  or,
  otherwise,
  pack,
  path,
  processor,
  resources,
  Space,
  scope,
  serialized,
  sharedIrqs,
  store,
  string,
  when,
} from './aml.ts';
import type { AcpiConfig } from './config.ts';

/** Interrupts that a PIRQ may be steered to. */
const LINK_IRQS = [5, 10, 11];
/** First IOAPIC pin of the PCI lines in `gsi` routing. */
const FIRST_PCI_PIN = 16;
const LINKS = ['LNKA', 'LNKB', 'LNKC', 'LNKD', 'LNKE', 'LNKF', 'LNKG', 'LNKH'];

/** The line a slot's pin is wired to; as `PciBus.intxOf`. */
const lineOf = (slot: number, pin: number): number => (slot + 3 + pin) & 3;

function routes(line: (slot: number, pin: number) => number, target: (line: number) => readonly [Aml, Aml]): Aml {
  const entries: Aml[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let pin = 0; pin < 4; pin++) {
      const [source, index] = target(line(slot, pin));
      entries.push(pack(integer(slot * 0x10000 + 0xffff), integer(pin), source, index));
    }
  }
  return pack(...entries);
}

function link(line: number): Aml {
  const register = path(`\\_SB.PCI0.ISA.PRQ${line}`);
  return device(
    LINKS[line],
    name('_HID', eisaId('PNP0C0F')),
    name('_UID', integer(line + 1)),
    name('_PRS', resources(sharedIrqs(...LINK_IRQS))),
    method('_STA', 0, when(and(register, integer(0x80)), giveBack(integer(0x09))), giveBack(integer(0x0b))),
    method('_DIS', 0, or(register, integer(0x80), register)),
    serialized(
      '_CRS',
      0,
      name('BUF0', resources(sharedIrqs(0))),
      // The interrupt number is the descriptor's first, at byte 5.
      dwordField(path('BUF0'), 5, 'IRQ0'),
      when(equal(and(register, integer(0x80)), integer(0)), and(register, integer(15), path('IRQ0'))),
      giveBack(path('BUF0')),
    ),
    serialized('_SRS', 1, dwordField(argument(0), 5, 'IRQ1'), store(path('IRQ1'), register)),
  );
}

function processors(config: AcpiConfig): Aml {
  const all = config.apicIds.map((apicId, i) => {
    const where = `C${i.toString(16).toUpperCase().padStart(3, '0')}`;
    // The Processor object has an 8-bit id; those above are devices.
    if (i < 255 && apicId < 255) return processor(where, i);
    return device(where, name('_HID', string('ACPI0007')), name('_UID', integer(i)));
  });
  return scope('\\_SB', ...all);
}

function isaDevices(config: AcpiConfig): Aml[] {
  const out: Aml[] = [
    device('RTC', name('_HID', eisaId('PNP0B00')), name('_CRS', resources(ioPorts(0x70, 8), irq(8)))),
    device('PIT', name('_HID', eisaId('PNP0100')), name('_CRS', resources(ioPorts(0x40, 4), irq(0)))),
    device('SPKR', name('_HID', eisaId('PNP0800')), name('_CRS', resources(ioPorts(0x61, 1)))),
  ];
  if (config.ps2) {
    out.push(
      device('KBD', name('_HID', eisaId('PNP0303')), name('_CRS', resources(ioPorts(0x60, 1), ioPorts(0x64, 1), irq(1)))),
      device('MOU', name('_HID', eisaId('PNP0F13')), name('_CRS', resources(irq(12)))),
    );
  }
  if (config.floppy)
    out.push(
      device(
        'FDC0',
        name('_HID', eisaId('PNP0700')),
        name('_CRS', resources(ioPorts(0x3f0, 6), ioPorts(0x3f7, 1), irq(6), dmaChannel(2))),
      ),
    );
  config.serial.forEach((serial, i) => {
    out.push(
      device(
        `COM${i + 1}`,
        name('_HID', eisaId('PNP0501')),
        name('_UID', integer(i + 1)),
        name('_CRS', resources(ioPorts(serial.port, 8), irq(serial.irq))),
      ),
    );
  });
  return out;
}

const slotName = (slot: number): string => `S${(slot * 8).toString(16).toUpperCase().padStart(2, '0')}`;

/** Slots whose device may come and go: an eject method each, and the event's method that tells of them. ACPI 6.4, 5.6.4, 6.3.3. */
function hotplug({ port, event, slots }: NonNullable<AcpiConfig['hotplug']>): Aml[] {
  const where = '\\_SB.PCI0';
  return [
    scope(
      where,
      operationRegion('HPR', Space.io, port, 12),
      dwordFields('HPR', ['HPUP', 32], ['HPDN', 32], ['HPEJ', 32]),
      ...slots.map((slot) =>
        device(
          slotName(slot),
          name('_ADR', integer(slot * 0x10000)),
          name('_SUN', integer(slot)),
          method('_EJ0', 1, store(integer(2 ** slot), path('HPEJ'))),
        ),
      ),
      serialized(
        'HPEV',
        0,
        // Reading takes the news away: once for all slots.
        store(path('HPUP'), local(0)),
        store(path('HPDN'), local(1)),
        ...slots.flatMap((slot) => [
          when(and(local(0), integer(2 ** slot)), notify(slotName(slot), integer(1))),
          when(and(local(1), integer(2 ** slot)), notify(slotName(slot), integer(3))),
        ]),
      ),
    ),
    scope('\\_GPE', method(`_E${event.toString(16).toUpperCase().padStart(2, '0')}`, 0, path(`${where}.HPEV`))),
  ];
}

/** The table's body, without its header. */
export function dsdtBody(config: AcpiConfig): Uint8Array {
  const { pci, pm } = config;
  const windows = [
    busRange(0, 0xff),
    ioPorts(0xcf8, 8),
    ioWindow(0, 0xcf7),
    ioWindow(0xd00, 0xffff),
    memoryWindow32(0xa0000, 0xbffff, true),
    memoryWindow32(pci.memory32.first, pci.memory32.end - 1),
    ...(pci.more32 === undefined ? [] : [memoryWindow32(pci.more32.first, pci.more32.end - 1)]),
    ...(pci.memory64 === undefined ? [] : [memoryWindow64(pci.memory64.first, pci.memory64.end - 1)]),
  ];
  const isIch9 = pci.routing === 'ich9';
  const line = isIch9 ? (slot: number, pin: number) => ich9Line(slot, pin + 1) : lineOf;
  const links = routes(line, (line) => [path(`\\_SB.${LINKS[line]}`), integer(0)]);
  const routing =
    pci.routing === 'pirq'
      ? [name('_PRT', links)]
      : [
          name('PRTP', links),
          name(
            'PRTA',
            routes(line, (line) => [integer(0), integer(FIRST_PCI_PIN + line)]),
          ),
          method('_PRT', 0, when(path('PICF'), giveBack(path('PRTA'))), otherwise(giveBack(path('PRTP')))),
        ];
  // Ports and memory that belong to no device above, so nothing is put over them.
  const reserved = [
    ioPorts(pm.base, isIch9 ? 128 : 64),
    ...(pm.smi === undefined ? [] : [ioPorts(pm.smi.port, 2)]),
    ...(config.hotplug === undefined ? [] : [ioPorts(config.hotplug.port, 0x14)]),
    ...(pci.ecam === undefined ? [] : [memory32(pci.ecam.base, pci.ecam.buses * 2 ** 20)]),
  ];
  const terms: Aml[] = [
    // Which interrupt model the system chose: 0 PIC, 1 APIC.
    name('\\PICF', integer(0)),
    method('\\_PIC', 1, store(argument(0), path('\\PICF'))),
    name('\\_S5', pack(integer(pm.sleepType5), integer(pm.sleepType5), integer(0), integer(0))),
    processors(config),
    scope(
      '\\_SB',
      device(
        'PCI0',
        name('_HID', eisaId('PNP0A03')),
        name('_UID', integer(0)),
        name('_CRS', resources(...windows)),
        ...routing,
        device(
          'ISA',
          name('_ADR', integer(isIch9 ? 0x1f0000 : 0x10000)),
          operationRegion('PIRQ', Space.pciConfig, 0x60, 4),
          byteField('PIRQ', ['PRQ0', 8], ['PRQ1', 8], ['PRQ2', 8], ['PRQ3', 8]),
          ...(isIch9
            ? [
                operationRegion('PIR2', Space.pciConfig, 0x68, 4),
                byteField('PIR2', ['PRQ4', 8], ['PRQ5', 8], ['PRQ6', 8], ['PRQ7', 8]),
              ]
            : []),
          ...isaDevices(config),
        ),
      ),
      device('MBRD', name('_HID', eisaId('PNP0C02')), name('_UID', integer(1)), name('_CRS', resources(...reserved))),
    ),
  ];
  terms.push(scope('\\_SB', ...LINKS.slice(0, isIch9 ? 8 : 4).map((_, line) => link(line))));
  if (config.hotplug !== undefined) terms.push(...hotplug(config.hotplug));
  if (config.fwCfg !== undefined) {
    terms.push(
      scope(
        '\\_SB.PCI0',
        device(
          'FWCF',
          name('_HID', string('QEMU0002')),
          name('_STA', integer(0x0b)),
          name('_CRS', resources(ioPorts(config.fwCfg, 12))),
        ),
      ),
    );
  }
  if (config.hpet !== undefined) {
    terms.push(
      scope(
        '\\_SB',
        device(
          'HPET',
          name('_HID', eisaId('PNP0103')),
          name('_UID', integer(0)),
          name('_CRS', resources(memory32(config.hpet, 0x400))),
        ),
      ),
    );
  }
  return Uint8Array.from(terms.flat());
}
