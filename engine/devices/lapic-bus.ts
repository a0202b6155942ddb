/**
 * The bus over which local APICs, IOAPICs and message-signalled interrupts send. Intel SDM 3A, 10.6 and 10.11.
 */
import type { LocalApic } from './lapic.ts';

/** Delivery modes as ICR, LVT, IOAPIC and MSI encode them. SDM 3A 10.6.1. */
export const Delivery = { fixed: 0, lowest: 1, smi: 2, nmi: 4, init: 5, sipi: 6, extInt: 7 } as const;

/** Carries messages between APICs. Has no state: every thread makes its own, with all of the machine's APICs. */
export class ApicBus {
  readonly apics: LocalApic[] = [];

  /** Called by each APIC as it is made, in order of vCPU. */
  attach(apic: LocalApic): void {
    this.apics.push(apic);
  }

  /**
   * Delivers a message by destination. `logical` chooses the destination mode, `wide` a 32-bit (x2APIC) destination;
   * `level` is the trigger mode that the receiver notes for the vector. True where some APIC took it.
   */
  deliver(destination: number, logical: boolean, delivery: number, vector: number, level: boolean, wide = false): boolean {
    if (delivery === Delivery.lowest) {
      let chosen: LocalApic | undefined;
      for (const apic of this.apics) {
        if (!apic.arbitrates || !apic.matches(destination, logical, wide)) continue;
        if (chosen === undefined || apic.ppr < chosen.ppr) chosen = apic;
      }
      return chosen?.accept(vector, level, delivery) ?? false;
    }
    let accepted = false;
    for (const apic of this.apics) {
      if (apic.matches(destination, logical, wide) && apic.accept(vector, level, delivery)) accepted = true;
    }
    return accepted;
  }

  /** Delivers to all APICs but `except`. */
  broadcast(delivery: number, vector: number, except?: LocalApic): void {
    for (const apic of this.apics) {
      if (apic !== except && apic.enabled) apic.accept(vector, false, delivery);
    }
  }

  /**
   * A message-signalled interrupt: a memory write of `data` to `address` (0xfeexxxxx). SDM 3A 10.11.
   * Address bits 11 to 5 extend the destination to 15 bits, as KVM's paravirtual convention has it.
   */
  deliverMsi(address: number, data: number): void {
    const destination = ((address >>> 12) & 0xff) | (((address >>> 5) & 0x7f) << 8);
    const logical = (address & 4) !== 0;
    const level = (data & 0x8000) !== 0;
    const delivery = (data >> 8) & 7;
    // A level message with the level de-asserted asks for nothing.
    if (level && (data & 0x4000) === 0) return;
    if (delivery === 3 || delivery === Delivery.sipi) return;
    this.deliver(destination, logical, delivery, data & 0xff, level);
  }
}
