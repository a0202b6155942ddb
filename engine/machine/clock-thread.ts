/** The thread that runs the timers of a machine. */
import type { MachineHost } from './machine.ts';
import { CLOCK_OWNER, makeMachine, partsOf, type ThreadData } from './threads.ts';

export function runClock(data: ThreadData, host: MachineHost): void {
  const { machine } = makeMachine(partsOf(data, CLOCK_OWNER, -1, host));
  machine.clock.serve(
    () => Atomics.load(machine.control.ending, 0) !== 0,
    () => machine.pci.sync(),
  );
}
