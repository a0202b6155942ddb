/** What the ACPI tables say of a machine. */
export interface AcpiConfig {
  /** The local APIC id of each vCPU. */
  readonly apicIds: readonly number[];
  readonly ioapic: { readonly id: number; readonly base: number };
  /** The power management ports: PM1 event at `base`, control at +4, timer at +8. */
  readonly pm: {
    readonly base: number;
    /** Interrupt of the SCI; 9 on a PC. */
    readonly sci: number;
    /** The timer counts 32 bits instead of 24. */
    readonly timer32?: boolean;
    /** General purpose events: port and bytes (status and enable halves together). */
    readonly gpe0?: { readonly port: number; readonly length: number };
    /** Port and values that switch ACPI mode on and off; absent where SCI_EN is always set. */
    readonly smi?: { readonly port: number; readonly enable: number; readonly disable: number };
    /** SLP_TYP that turns the machine off. */
    readonly sleepType5: number;
  };
  /** Port and value that reset the machine (0xcf9 and 6 with PIIX3). */
  readonly reset?: { readonly port: number; readonly value: number };
  readonly pci: {
    /** First address and end of the memory window below 4 GiB. */
    readonly memory32: { readonly first: number; readonly end: number };
    /** More of the same, above the enhanced configuration window. */
    readonly more32?: { readonly first: number; readonly end: number };
    readonly memory64?: { readonly first: number; readonly end: number };
    /**
     * `pirq`: link devices over the PIIX PIRQ registers, in PIC and APIC mode alike;
     * `gsi`: the links in PIC mode, IOAPIC pins 16 to 19 in APIC mode;
     * `ich9`: eight links over the PIRQ registers of the ICH9 in PIC mode, IOAPIC pins 16 to 23 in APIC mode.
     */
    readonly routing: 'pirq' | 'gsi' | 'ich9';
    /** The enhanced configuration window (MCFG), for chipsets that have one. */
    readonly ecam?: { readonly base: number; readonly buses: number };
  };
  /** Where PCI devices come and go while the system runs: the registers' port, their event, the slots. */
  readonly hotplug?: { readonly port: number; readonly event: number; readonly slots: readonly number[] };
  /** Base address, where there is an HPET. */
  readonly hpet?: number;
  /** Port, where there is a fw_cfg. */
  readonly fwCfg?: number;
  /** Port and interrupt of each serial port. */
  readonly serial: readonly { readonly port: number; readonly irq: number }[];
  readonly ps2: boolean;
  /** A floppy controller is there. */
  readonly floppy?: boolean;
  /** A VGA adapter is there (a flag of the FADT). */
  readonly vga?: boolean;
  /** Tell Windows that the PM timer needs no double reads (WAET). */
  readonly waet?: boolean;
}
